"""The shipped contract over both Postgres stores, and what only a database can do wrong."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from langgraph.store.base import PutOp

from memgraph_plugin.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    EmbeddingMismatch,
    InvalidValue,
    StoreError,
)
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.conformance import TTL
from memgraph_plugin.testing.store_contract import StoreContract
from memgraph_plugin.types import Delete, Insert, NoOp, Update

ADA = ("memories", "ada")


class TestAsyncPostgres(StoreContract):
    has_sync = False

    @pytest.fixture
    async def store(self, shared_dsn: str) -> AsyncIterator[AsyncPostgresMemoryStore]:
        async with AsyncPostgresMemoryStore(shared_dsn, embeddings=HashingEmbeddings(), ttl=TTL) as store:
            yield store


class TestPostgres(StoreContract):
    @pytest.fixture
    def store(self, shared_dsn: str) -> Iterator[PostgresMemoryStore]:
        with PostgresMemoryStore(shared_dsn, embeddings=HashingEmbeddings(), ttl=TTL) as store:
            yield store


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        yield store


def open_transactions(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as conn:
        found = conn.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state LIKE 'idle in%'"
        ).fetchone()
        assert found is not None
        return int(found[0])


@pytest.mark.parametrize("times", [1, 2, 3, 7, 40, 255])
def test_term_frequencies_are_read_back_from_the_rank(dsn: str, times: int) -> None:
    """BM25 of two texts of one word, repeated: the formula in Python, with the length in distinct words."""
    with PostgresMemoryStore(dsn) as store:
        store.apply(ADA, [Insert(text="tea " * times), Insert(text="tea")])
        found = {len(hit.memory.text.split()): hit.bm25 for hit in store.recall(ADA, "tea")}
    idf = math.log(1 + (2 - 2 + 0.5) / (2 + 0.5))
    assert found[times] == pytest.approx(idf * times * 2.2 / (times + 1.2))


def test_the_statement_ranks_as_the_python_does(store: PostgresMemoryStore) -> None:
    draw = random.Random(0)
    words = ["tea", "coffee", "lisbon", "porto", "violin", "sister", "garden", "river", "winter", "lamp"]
    turns = [
        Insert(
            key=f"{i:03}",
            text=" ".join(draw.sample(words, 4)),
            session=f"s{i // 7}" if i % 5 else None,
            position=i % 7,
        )
        for i in range(60)
    ]
    twin = InMemoryMemoryStore(embeddings=HashingEmbeddings(), language="simple")
    for each in (store, twin):
        each.apply(ADA, turns)
    for query in ("tea in lisbon", "winter garden", "violin lamp river"):
        ours = {hit.memory.key: hit.score for hit in store.recall(ADA, query, k=60)}
        theirs = {hit.memory.key: hit.score for hit in twin.recall(ADA, query, k=60)}
        assert ours == pytest.approx(theirs, abs=0.01)  # half-precision vectors


def test_a_failed_write_leaves_nothing_behind_and_no_transaction_open(
    store: PostgresMemoryStore, dsn: str
) -> None:
    store.apply(ADA, [Insert(text="likes tea", key="k")])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE memgraph_plugin.memory_version ADD CHECK (reason <> 'refuse me')")
    with pytest.raises(StoreError):
        store.apply(ADA, [Update(key="k", text="likes milk"), Insert(text="new", reason="refuse me")])
    assert open_transactions(dsn) == 0
    assert [hit.memory.text for hit in store.recall(ADA, "likes")] == ["likes tea"]
    assert len(store.history(ADA, "k")) == 1


def test_a_model_that_fails_holds_no_transaction(dsn: str) -> None:
    class Broken(HashingEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            assert open_transactions(dsn) == 0
            raise RuntimeError("the model is gone")

    with PostgresMemoryStore(dsn, embeddings=Broken()) as store:
        store.recall(ADA, "tea")  # the connections are there, with what they ask on their own
        with pytest.raises(RuntimeError, match="the model is gone"):
            store.apply(ADA, [Insert(text="likes tea")])
        assert store.recall(ADA, "tea") == []


def test_a_killed_connection_is_replaced(store: PostgresMemoryStore, dsn: str) -> None:
    store.apply(ADA, [Insert(text="likes tea")])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert store.recall(ADA, "tea")


def test_vectors_of_another_model_are_refused_by_both_names(dsn: str) -> None:
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        store.apply(ADA, [Insert(text="likes tea")])
    other = PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(dimensions=64))
    with other, pytest.raises(EmbeddingMismatch, match=r"hashing:256.*hashing:64"):
        other.recall(ADA, "tea")
    with PostgresMemoryStore(dsn) as by_words_alone:
        assert by_words_alone.recall(ADA, "tea")


def test_given_vectors_are_stored_in_bulk(store: PostgresMemoryStore) -> None:
    vectors = HashingEmbeddings().embed_documents([f"note {i}" for i in range(200)])
    turns = [Insert(key=str(i), text=f"note {i}", embedding=vector) for i, vector in enumerate(vectors)]
    assert len(store.apply(ADA, turns).applied) == 200
    assert store.recall(ADA, "note 77")[0].memory.key == "77"
    with pytest.raises(EmbeddingMismatch, match=r"256 dimensions.* 3"):
        store.apply(ADA, [Insert(text="x", embedding=[1.0, 0.0, 0.0])])


def test_an_unknown_language_is_refused(dsn: str) -> None:
    with PostgresMemoryStore(dsn, language="klingon") as store, pytest.raises(ConfigurationError, match="kl"):
        store.get(ADA, "k")


@pytest.mark.parametrize(
    ("language", "text", "query"),
    [
        ("german", "Sie mag alte Häuser", "altes Haus"),
        ("french", "Elle va à l'ÉCOLE", "écoles"),
        ("russian", "Она любит старые книги", "книга"),
        ("english", "我昨天去了北京大学看朋友", "北京大学"),
        ("english", "東京で寿司を食べた", "寿司"),
        ("english", "서울대학교에서 만났다", "서울"),
    ],
)
def test_words_are_found_in_many_languages(dsn: str, language: str, text: str, query: str) -> None:
    with PostgresMemoryStore(dsn, language=language) as store:
        store.apply(ADA, [Insert(text=text), Insert(text="something else")])
        assert [hit.memory.text for hit in store.recall(ADA, query)] == [text]


def test_a_row_may_have_a_language_of_its_own(store: PostgresMemoryStore) -> None:
    store.apply(ADA, [Insert(key="k", text="running", language="simple"), Insert(text="something else")])
    found = {hit.memory.key: hit.bm25 for hit in store.recall(ADA, "runs")}
    assert found["k"] is None


def test_a_put_is_logged_with_its_version(store: PostgresMemoryStore) -> None:
    store.put(ADA, "k", {"text": "likes tea"})
    store.put(ADA, "k", {"text": "likes milk"})
    store.delete(ADA, "k")
    assert [(v.version, v.operation) for v in store.history(ADA, "k")] == [
        (1, "insert"),
        (2, "update"),
        (3, "delete"),
    ]


def test_one_bad_put_of_a_batch_stops_all_of_it(store: PostgresMemoryStore) -> None:
    with pytest.raises(InvalidValue, match="NUL"):
        store.batch([PutOp(ADA, "a", {"text": "fine"}), PutOp(ADA, "b", {"text": "nul\0"})])
    assert store.get(ADA, "a") is None


def test_a_closed_store_and_a_dead_database_say_so(dsn: str) -> None:
    store = PostgresMemoryStore(dsn)
    with store:
        store.apply(ADA, [NoOp()])
    with pytest.raises(StoreError, match="not open"):
        store.apply(ADA, [Delete(key="k")])
    with PostgresMemoryStore("host=/nowhere dbname=x") as gone, pytest.raises(DatabaseUnavailable):
        gone.recall(ADA, "tea")


async def test_sync_calls_inside_the_loop_are_refused_and_from_a_thread_they_work(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        await store.aapply(ADA, [Insert(text="likes tea", key="k")])
        with pytest.raises(ConfigurationError, match="PostgresMemoryStore"):
            store.recall(ADA, "tea")
        assert (await asyncio.to_thread(store.recall, ADA, "tea"))[0].memory.key == "k"


async def test_writers_of_one_memory_lose_no_update(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        await store.aapply(ADA, [Insert(text="0", key="counter")])

        async def increment() -> None:
            while True:
                last = (await store.ahistory(ADA, "counter"))[-1]
                assert last.memory is not None
                step = Update(key="counter", text=str(int(last.memory.text) + 1), version=last.version)
                if (await store.aapply(ADA, [step])).applied:
                    return

        await asyncio.gather(*(increment() for _ in range(12)))
        assert (await store.ahistory(ADA, "counter"))[-1].memory.text == "12"  # type: ignore[union-attr]


async def test_a_key_inserted_twice_at_once_is_inserted_once(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        done = await asyncio.gather(*(store.aapply(ADA, [Insert(text=str(i), key="k")]) for i in range(8)))
        assert sorted(receipts.receipts[0].status for receipts in done) == ["applied"] + ["rejected"] * 7
