"""Another embedding model, or vectors that were missing: online, resumable, never two models at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from memgraph_plugin.errors import EmbeddingMismatch, SchemaOutOfDate, StoreError
from memgraph_plugin.store import reembedding
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.store.reembedding import reembed
from memgraph_plugin.store.schema import migrate
from memgraph_plugin.store.sealing import AesGcmSealer
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, Update

ADA = ("memories", "ada")
OLD, NEW = HashingEmbeddings(), HashingEmbeddings(64)


class Renamed(HashingEmbeddings):
    """Another model of the same dimension: its vectors are turned by one place."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "renamed"

    def embed_query(self, text: str) -> list[float]:
        first, *others = super().embed_query(text)
        return [*others, first]


class Counting(HashingEmbeddings):
    """Counts what it embeds, and may be told to fail at a text."""

    def __init__(self, fails_after: int = 1_000_000) -> None:
        super().__init__(64)
        self.texts: list[str] = []
        self.left = fails_after

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.left < len(texts):
            raise KeyboardInterrupt
        self.left -= len(texts)
        self.texts += texts
        return super().embed_documents(texts)


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(dsn, embeddings=OLD) as store:
        store.apply(ADA, [Insert(key=f"k{i:03}", text=f"note {i} about tea") for i in range(60)])
        store.put(("memories", "bob"), "image", {"bytes": 3}, index=False)
        yield store


def rows(dsn: str, what: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(what.encode()).fetchall()


VECTORS = "SELECT count(*), count(embedding), max(vector_dims(embedding)) FROM memgraph_plugin.memory"
MODEL = "SELECT name, dimension, next_name FROM memgraph_plugin.embedding_model"
NEXT = "SELECT count(*) FROM memgraph_plugin.embedding_next"


@pytest.mark.parametrize("layout", [(None, None), (3, "vector")])
def test_all_memories_get_vectors_of_the_new_model(
    empty_dsn: str, layout: tuple[int | None, str | None]
) -> None:
    migrate(empty_dsn, "memgraph_plugin", *layout)
    with PostgresMemoryStore(empty_dsn, embeddings=OLD) as store:
        for user in range(5):
            store.apply(("u", str(user)), [Insert(text=f"note {i} of {user}") for i in range(12)])
    told: list[tuple[int, int]] = []
    done = reembed(empty_dsn, "memgraph_plugin", NEW, progress=lambda done, total: told.append((done, total)))
    assert (done.before, done.model, done.embedded) == (("hashing:256", 256), ("hashing:64", 64), 60)
    assert told[0] == (0, 60)
    assert told[-1] == (60, 60)
    assert rows(empty_dsn, VECTORS) == [(60, 60, 64)]
    assert rows(empty_dsn, MODEL) == [("hashing:64", 64, None)]
    assert rows(empty_dsn, NEXT) == [(0,)]
    with PostgresMemoryStore(empty_dsn, embeddings=NEW) as store:
        assert store.recall(("u", "3"), "note 7 of 3")[0].cosine == pytest.approx(1, abs=1e-3)
        store.apply(("u", "3"), [Update(key=store.recall(("u", "3"), "7")[0].memory.key, text="tea")])


@pytest.mark.parametrize("other", [NEW, Renamed()])
async def test_open_stores_of_the_old_model_are_refused_by_both_names(
    store: PostgresMemoryStore, dsn: str, other: HashingEmbeddings
) -> None:
    assert store.recall(ADA, "tea")
    async with AsyncPostgresMemoryStore(dsn, embeddings=OLD) as also:
        assert await also.arecall(ADA, "tea")
        reembed(dsn, "memgraph_plugin", other)
        both = rf"{other.name} \({other.dimensions} .*hashing:256 \(256\)"
        with pytest.raises(EmbeddingMismatch, match=both):
            store.recall(ADA, "tea")
        with pytest.raises(EmbeddingMismatch, match=both):
            store.search(ADA[:1], query="tea")
        with pytest.raises(EmbeddingMismatch, match=both):
            await also.arecall(ADA, "tea")
        for many in (1, 70):
            with pytest.raises(EmbeddingMismatch, match=both):
                store.apply(ADA, [Insert(text=f"likes tea {i}") for i in range(many)])
            with pytest.raises(EmbeddingMismatch, match=both):
                await also.aapply(ADA, [Insert(text=f"likes tea {i}") for i in range(many)])
    # What needs no vector goes on.
    assert len(store.recall(ADA, "", k=100)) == 60
    store.apply(ADA, [Delete(key="k001")])
    with PostgresMemoryStore(dsn) as by_words:
        assert by_words.recall(ADA, "tea")
        with pytest.raises(EmbeddingMismatch, match=f"{other.dimensions} dimensions"):
            by_words.apply(ADA, [Insert(text="x", embedding=[1.0] * 3)])


def test_a_store_by_words_that_was_given_vectors_notices_too(dsn: str, store: PostgresMemoryStore) -> None:
    with PostgresMemoryStore(dsn) as by_words:
        by_words.apply(ADA, [Insert(text="x", embedding=[1.0] * 256)])
        reembed(dsn, "memgraph_plugin", Renamed())
        with pytest.raises(EmbeddingMismatch, match=r"renamed.*hashing:256"):
            by_words.apply(ADA, [Insert(text="y", embedding=[1.0] * 256)])


def test_a_run_that_was_stopped_goes_on(
    dsn: str, store: PostgresMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "BATCH", 10)
    with pytest.raises(KeyboardInterrupt):
        reembed(dsn, "memgraph_plugin", Counting(fails_after=35))
    assert rows(dsn, NEXT) == [(30,)]
    assert rows(dsn, MODEL) == [("hashing:256", 256, "hashing:64")]
    # The old model is as it was; what changes or goes is embedded again, or not at all.
    store.apply(ADA, [Update(key="k000", text="likes milk"), Delete(key="k001")])
    assert rows(dsn, NEXT) == [(29,)]
    assert store.recall(ADA, "milk")[0].memory.key == "k000"
    again = Counting()
    reembed(dsn, "memgraph_plugin", again)
    assert len(again.texts) == 31
    assert rows(dsn, VECTORS) == [(60, 59, 64)]
    with PostgresMemoryStore(dsn, embeddings=NEW) as now:
        assert now.recall(ADA, "milk")[0].cosine == pytest.approx(
            sum(a * b for a, b in zip(NEW.embed_query("milk"), NEW.embed_query("likes milk"), strict=True)),
            abs=1e-2,
        )


def test_a_third_model_and_the_old_one_begin_anew(
    dsn: str, store: PostgresMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "BATCH", 10)
    with pytest.raises(KeyboardInterrupt):
        reembed(dsn, "memgraph_plugin", Counting(fails_after=35))
    assert reembed(dsn, "memgraph_plugin", OLD).embedded == 0
    assert rows(dsn, NEXT) == [(0,)]
    assert rows(dsn, MODEL) == [("hashing:256", 256, None)]
    with pytest.raises(KeyboardInterrupt):
        reembed(dsn, "memgraph_plugin", Counting(fails_after=35))
    assert reembed(dsn, "memgraph_plugin", Renamed()).embedded == 60


def test_a_process_that_is_killed_loses_a_batch_at_most(dsn: str, store: PostgresMemoryStore) -> None:
    program = """
import sys, time
from memgraph_plugin.store import reembedding
from memgraph_plugin.testing import HashingEmbeddings

class Slow(HashingEmbeddings):
    def embed_documents(self, texts):
        time.sleep(0.05)
        return super().embed_documents(texts)

reembedding.BATCH = 4
reembedding.reembed(sys.argv[1], "memgraph_plugin", Slow(64), progress=lambda *n: print(*n, flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", program, dsn], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(4)]
    with pytest.raises(StoreError, match="another process"):
        reembed(dsn, "memgraph_plugin", NEW)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = rows(dsn, NEXT)[0][0]
    assert isinstance(kept, int)
    assert int(said[-1].split()[0]) <= kept < 60
    for _ in range(50):
        try:
            done = reembed(dsn, "memgraph_plugin", NEW)
            break
        except StoreError:  # the server has not noticed yet
            time.sleep(0.1)
    assert done.embedded == 60 - kept
    assert rows(dsn, VECTORS) == [(61, 60, 64)]


def test_readers_and_writers_go_on_meanwhile(
    dsn: str, store: PostgresMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the cut-over, all that they do works; then all is refused; no vector of the old model stays."""
    monkeypatch.setattr(reembedding, "BATCH", 7)
    outcomes: list[str] = []
    stop = threading.Event()

    def work(n: int) -> None:
        i = 0
        with PostgresMemoryStore(dsn, embeddings=OLD) as mine:
            while not stop.is_set():
                i += 1
                try:
                    mine.apply(
                        ADA, [Insert(text=f"new {n} {i}"), Update(key=f"k{i % 60:03}", text=f"now {n} {i}")]
                    )
                    assert mine.recall(ADA, "note")[0].cosine is not None
                    outcomes.append("done")
                except EmbeddingMismatch:
                    outcomes.append("refused")
                    return
                except StoreError as error:
                    outcomes.append(str(error))
                    return

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    reembed(dsn, "memgraph_plugin", Renamed())
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 3
    assert set(outcomes) == {"done", "refused"}
    with psycopg.connect(dsn) as conn:
        held = conn.execute(
            "SELECT text, embedding::text FROM memgraph_plugin.memory WHERE text <> ''"
        ).fetchall()
    for text, embedding in held:
        vector = [float(x) for x in embedding.strip("[]").split(",")]
        right = Renamed().embed_query(text)
        assert sum(a * b for a, b in zip(vector, right, strict=True)) == pytest.approx(1, abs=1e-2)


def test_rows_without_a_vector_are_filled(dsn: str) -> None:
    with PostgresMemoryStore(dsn) as by_words:
        by_words.apply(ADA, [Insert(text=f"note {i}") for i in range(5)])
        by_words.put(ADA, "blank", {"text": " "})
    assert reembed(dsn, "memgraph_plugin", NEW).before is None
    assert rows(dsn, VECTORS) == [(6, 5, 64)]
    with PostgresMemoryStore(dsn) as by_words:
        by_words.apply(ADA, [Insert(text="likes tea")])
    assert reembed(dsn, "memgraph_plugin", NEW).embedded == 1
    assert reembed(dsn, "memgraph_plugin", NEW).embedded == 0


def test_sealed_memories_are_opened_to_be_embedded(dsn: str) -> None:
    pytest.importorskip("cryptography")
    sealer = AesGcmSealer({"one": bytes(32)})
    with PostgresMemoryStore(dsn, embeddings=OLD, sealer=sealer) as store:
        store.apply(ADA, [Insert(text=f"note {i}", key=str(i)) for i in range(20)])
    assert reembed(dsn, "memgraph_plugin", NEW, sealer=sealer).embedded == 20
    with PostgresMemoryStore(dsn, embeddings=NEW, sealer=sealer) as store:
        assert store.recall(ADA, "note 7", k=1)[0].memory.key == "7"
    assert "note" not in str(rows(dsn, "SELECT text, value FROM memgraph_plugin.memory"))


def test_an_index_of_vectors_makes_room(dsn: str, store: PostgresMemoryStore) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "CREATE INDEX big ON memgraph_plugin.memory USING hnsw "
            "((embedding::halfvec(256)) halfvec_cosine_ops) WHERE namespace = 'memories.ada'"
        )
    done = reembed(dsn, "memgraph_plugin", NEW)
    assert len(done.dropped_indexes) == 1
    assert rows(dsn, VECTORS) == [(61, 60, 64)]


def test_writers_that_do_not_end_are_not_waited_for(
    dsn: str, store: PostgresMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "LOCK_SECONDS", 1)
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE memgraph_plugin.memory SET source = 'x' WHERE key = 'k000'")
        with pytest.raises(StoreError, match="run this again"):
            reembed(dsn, "memgraph_plugin", NEW)
        assert store.recall(ADA, "tea")
    again = Counting()
    reembed(dsn, "memgraph_plugin", again)
    assert again.texts == []
    assert rows(dsn, VECTORS) == [(61, 60, 64)]


def test_vectors_that_point_nowhere_are_none(dsn: str, store: PostgresMemoryStore) -> None:
    class Zero(HashingEmbeddings):
        def embed_query(self, text: str) -> list[float]:
            return [0.0] * 64 if text.startswith("note 7 ") else super().embed_query(text)

    reembed(dsn, "memgraph_plugin", Zero(64))
    assert rows(dsn, VECTORS) == [(61, 59, 64)]


def test_a_database_without_tables_says_what_to_run(empty_dsn: str) -> None:
    with pytest.raises(SchemaOutOfDate):
        reembed(empty_dsn, "memgraph_plugin", NEW)
