"""Namespaces too large to be read whole: their indexes are made, used and dropped, and answers stay right."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import conninfo
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.errors import ConfigurationError, StoreError
from memgraph_plugin.store import indexing
from memgraph_plugin.store.indexing import SearchIndex, after_count, route
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.recall_contract import HOSTILE
from memgraph_plugin.types import Insert, Namespace

BIG = ("acme", "big")
ROWS = 700
QUESTIONS = ("the harbour at dawn", "red kayak and violin", "who paints the fence", "granite museum", "tea")
# fmt: off
WORDS = (
    "harbour", "dawn", "kayak", "red", "violin", "lesson", "museum", "fence", "paint", "granite", "marble",
    "tea", "basil", "water", "summer", "train", "paper", "printer", "weekend", "monday", "north", "lyon",
    "noon", "okapi", "zebra", "violet", "report", "budget", "quarter", "secret", "garden",
)
# fmt: on


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a few hundred rows are many."""
    monkeypatch.setattr(indexing, "CANDIDATES", 200)
    monkeypatch.setattr(indexing, "ENOUGH", 10)
    monkeypatch.setattr(indexing, "LOOK_EVERY", 1)


@pytest.fixture
def open_store(dsn: str) -> Iterator[Callable[..., PostgresMemoryStore]]:
    opened: list[PostgresMemoryStore] = []

    def make(conninfo: str = dsn, **options: object) -> PostgresMemoryStore:
        options.setdefault("index_threshold", None)
        opened.append(PostgresMemoryStore(conninfo, embeddings=HashingEmbeddings(64), **options))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def fill(store: PostgresMemoryStore, namespace: Namespace = BIG, rows: int = ROWS, seed: int = 1) -> None:
    draw = random.Random(seed)
    weights = [1 / (n + 1) for n in range(len(WORDS))]
    store.apply(
        namespace,
        [
            Insert(
                key=f"k{n:04d}",
                text=f"note{n % 97} " + " ".join(draw.choices(WORDS, weights, k=8)),
                value={"n": n},
                session=f"s{n // 20}",
                position=n % 20,
            )
            for n in range(rows)
        ],
    )


def indexes(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        found = conn.execute(
            "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid "
            "WHERE relname ~ '^memory_(words|places|vectors)_' AND indisvalid ORDER BY 1"
        )
        return [name for (name,) in found]


def eventually(check: Callable[[], bool]) -> bool:
    until = time.monotonic() + 60
    while not check() and time.monotonic() < until:
        time.sleep(0.05)
    return check()


def found_by(store: PostgresMemoryStore, namespace: Namespace = BIG) -> list[list[str]]:
    searched = [[item.key for item in store.search(namespace, query=q, limit=10)] for q in QUESTIONS]
    return searched + [[hit.memory.key for hit in store.recall(namespace, q)] for q in QUESTIONS]


def overlap(one: list[list[str]], other: list[list[str]]) -> float:
    pairs = list(zip(one, other, strict=True))
    return sum(len(set(a) & set(b)) / len(a) for a, b in pairs) / len(pairs)


def test_with_an_index_the_same_is_found(
    open_store: Callable[..., PostgresMemoryStore], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    fill(store)
    exact = found_by(store)
    assert indexes(dsn) == []
    assert store.create_index(BIG)
    assert len(indexes(dsn)) == 3
    sent = []
    fetch = store._database.fetch
    monkeypatch.setattr(store._database, "fetch", lambda name, *a: sent.append(name) or fetch(name, *a))
    assert overlap(found_by(store), exact) >= 0.97
    assert set(sent) - {"count_rows"} == {"nearest_indexed", "recall_indexed"}
    assert store.drop_index(BIG)
    assert not store.drop_index(BIG)
    assert indexes(dsn) == []
    assert found_by(store) == exact


def test_an_index_is_made_when_a_namespace_has_become_large_and_dropped_when_it_is_no_more(
    open_store: Callable[..., PostgresMemoryStore], dsn: str
) -> None:
    store = open_store(index_threshold=500)
    for user in range(20):
        fill(store, ("acme", f"small-{user}"), rows=5)
        store.search(("acme", f"small-{user}"), query="tea")
    fill(store, rows=499)
    store.search(BIG, query="tea")
    store.recall(BIG, "tea")
    time.sleep(0.3)
    assert indexes(dsn) == []
    store.apply(BIG, [Insert(key="one more", text="a red kayak at the harbour")])
    store.search(BIG, query="tea")
    assert eventually(lambda: len(indexes(dsn)) == 3 and ("acme.big", False) in store._indexes._known)
    assert store.search(BIG, query="a red kayak at the harbour")[0].key == "one more"
    assert store.recall(BIG, "a red kayak at the harbour")[0].memory.key == "one more"
    for n in range(260):
        store.delete(BIG, f"k{n:04d}")
    store.search(BIG, query="tea")
    assert eventually(lambda: indexes(dsn) == [])
    assert store.search(BIG, query="a red kayak at the harbour")[0].key == "one more"


def test_what_lies_below_is_searched_beside_the_index(open_store: Callable[..., PostgresMemoryStore]) -> None:
    store = open_store()
    fill(store)
    store.create_index(BIG)
    for space in ((*BIG, "work"), ("acme", "big-sister"), ("acme", "bigger")):
        store.apply(space, [Insert(key=space[-1], text="okapi report of the okapi")])
    found = store.search(BIG, query="okapi report of the okapi", limit=5)
    assert (found[0].namespace, found[0].key) == ((*BIG, "work"), "work")
    assert not {item.key for item in found} & {"big-sister", "bigger"}
    assert "work" not in {hit.memory.key for hit in store.recall(BIG, "okapi report")}


def test_an_index_may_be_of_all_namespaces_below_a_prefix(
    open_store: Callable[..., PostgresMemoryStore], dsn: str
) -> None:
    store = open_store(index={"search": "hybrid"})
    vectors = open_store()
    for user in range(7):
        fill(store, ("acme", f"u{user}"), rows=100, seed=user)
    fill(store, ("other", "u"), rows=100)

    def found(store: PostgresMemoryStore) -> list[list[str]]:
        return [
            [f"{item.namespace} {item.key}" for item in store.search(("acme",), query=q)] for q in QUESTIONS
        ]

    exact, nearest = found(store), found(vectors)
    assert store.create_index(("acme",), below=True)
    vectors._indexes.refresh()
    assert overlap(found(store), exact) >= 0.9
    assert overlap(found(vectors), nearest) >= 0.97
    assert store.drop_index(("acme",), below=True)


def test_a_filter_that_leaves_few_rows_is_answered_by_reading_them_all(
    open_store: Callable[..., PostgresMemoryStore],
) -> None:
    store = open_store()
    fill(store)
    store.create_index(BIG)
    odd = {"n": {"$in": [3, 33, 333]}}
    assert {item.value["n"] for item in store.search(BIG, query="tea", filter=odd)} == {3, 33, 333}
    assert {hit.memory.value["n"] for hit in store.recall(BIG, "tea", filter=odd)} == {3, 33, 333}
    assert store.recall(BIG, "tea", kinds=["core"]) == []
    assert len(store.search(BIG, query="tea", limit=650, offset=100)) == 600
    pages = [store.search(BIG, query="tea", limit=20, offset=offset) for offset in range(0, 100, 20)]
    found = [item.key for page in pages for item in page]
    assert found == [item.key for item in store.search(BIG, query="tea", limit=100)]


@pytest.mark.parametrize("label", ["o'brien", "back\\slash", "100% %s", "{0}", '"quoted"', "猫 $1"])
def test_any_name_may_become_large(open_store: Callable[..., PostgresMemoryStore], label: str) -> None:
    store = open_store()
    fill(store, (label, "x"), rows=150)
    assert store.create_index((label, "x"))
    assert len(store.search((label, "x"), query="tea", limit=50)) == 50
    assert len(store.recall((label, "x"), "tea's \\ 100% {0}")) == 10
    assert store.drop_index((label, "x"))


def test_any_query_is_answered_with_an_index(open_store: Callable[..., PostgresMemoryStore]) -> None:
    store = open_store()
    fill(store)
    store.create_index(BIG)
    many = " ".join(f"word{n} {WORDS[n % len(WORDS)]}" for n in range(300))
    for query in (*HOSTILE, many, "kayak " * 600, "e\u0301"):
        assert len(store.recall(BIG, query)) == 10
        assert len(store.search(BIG, query=query)) == 10


def test_writes_to_a_large_namespace_are_seen_at_once(open_store: Callable[..., PostgresMemoryStore]) -> None:
    store = open_store()
    fill(store)
    store.create_index(BIG)
    store.apply(BIG, [Insert(key=f"new{n}", text=f"walrus number {n}") for n in range(120)])
    assert {item.key[:3] for item in store.search(BIG, query="walrus number", limit=50)} == {"new"}
    assert {hit.memory.key[:3] for hit in store.recall(BIG, "walrus", k=50)} == {"new"}
    for n in range(120):
        store.delete(BIG, f"new{n}")
    assert not {hit.memory.key for hit in store.recall(BIG, "walrus")} & {f"new{n}" for n in range(120)}


def test_a_build_that_was_cut_off_is_done_again(
    open_store: Callable[..., PostgresMemoryStore], dsn: str
) -> None:
    store = open_store()
    fill(store, rows=100)
    store.create_index(BIG)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text ~ 'memory_v'")
    assert len(indexes(dsn)) == 2
    assert store.create_index(BIG)
    assert len(indexes(dsn)) == 3


def test_who_does_not_own_the_tables_is_told_once_and_served(
    open_store: Callable[..., PostgresMemoryStore], dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"poor_{uuid.uuid4().hex[:8]}"
    fill(open_store())
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA memgraph_plugin TO {role}")
        conn.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA memgraph_plugin TO {role}"
        )
        store = open_store(conninfo.make_conninfo(dsn, user=role), index_threshold=500)
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                assert len(store.search(BIG, query="tea")) == 10
                assert eventually(lambda: bool(caplog.records))
        assert [record.message for record in caplog.records if "memgraph-plugin index" in record.message]
        assert len(caplog.records) == 1
        with pytest.raises(StoreError, match="memgraph-plugin index"):
            store.create_index(BIG)
        store.close()
        conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_row_level_security_holds_with_an_index(
    open_store: Callable[..., PostgresMemoryStore], dsn: str
) -> None:
    role = f"tenant_{uuid.uuid4().hex[:8]}"
    owner = open_store()
    fill(owner)
    exact = found_by(owner)
    owner.create_index(BIG)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA memgraph_plugin TO {role}")
        conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA memgraph_plugin TO {role}")
        conn.execute(
            "CREATE POLICY hand_made ON memgraph_plugin.memory AS RESTRICTIVE "
            "USING (namespace = current_setting('test.only', true))"
        )
        for setting, wanted in (("acme.big", 0.97), ("acme.ada", 0.0)):
            store = open_store(conninfo.make_conninfo(dsn, user=role, options=f"-c test.only={setting}"))
            found = found_by(store)
            assert overlap(exact, found) >= wanted
            assert wanted or not any(found)
            store.close()
        conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_partition_that_holds_a_namespace_gets_its_index(
    open_store: Callable[..., PostgresMemoryStore], empty_dsn: str
) -> None:
    store = open_store(empty_dsn)
    store.setup(partitions=4, vector_type="vector")
    fill(store)
    exact = found_by(store)
    assert store.create_index(BIG)
    on = "SELECT DISTINCT indrelid FROM pg_index WHERE indexrelid::regclass::text ~ 'memory_vectors_'"
    held = "SELECT DISTINCT tableoid FROM memgraph_plugin.memory WHERE namespace = 'acme.big'"
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        assert conn.execute(on).fetchall() == conn.execute(held).fetchall()
        assert overlap(found_by(store), exact) >= 0.97
        assert store.drop_index(BIG)
        assert store.create_index(("acme",), below=True)
        assert len(conn.execute(on).fetchall()) == 4
    assert store.drop_index(("acme",), below=True)
    assert indexes(empty_dsn) == []


def test_closing_ends_what_is_being_built(open_store: Callable[..., PostgresMemoryStore], dsn: str) -> None:
    store = open_store(index_threshold=500)
    fill(store)
    with psycopg.connect(dsn) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM memgraph_plugin.memory")
        store.search(BIG, query="tea")
        building = (
            "SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
        )

        def waits() -> bool:
            with psycopg.connect(dsn) as conn:
                return conn.execute(building).fetchone() is not None

        assert eventually(waits)
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < 5
        assert eventually(lambda: not waits())


async def test_the_async_store_makes_and_uses_them_too(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings(64), index_threshold=300) as store:
        await store.aapply(BIG, [Insert(key=f"k{n}", text=f"{WORDS[n % 30]} {n}") for n in range(300)])
        before = await store.asearch(BIG, query="okapi 27", limit=5)
        for _ in range(600):
            if ("acme.big", False) in store._indexes._known:
                break
            await asyncio.sleep(0.05)
        assert len(indexes(dsn)) == 3
        after = await store.asearch(BIG, query="okapi 27", limit=5)
        assert [item.key for item in after] == [item.key for item in before]
        assert len(await store.arecall(BIG, "okapi 27")) == 10
        assert await store.acreate_index(BIG)
        assert await store.adrop_index(BIG)


def test_an_index_is_made_and_dropped_by_a_command(
    open_store: Callable[..., PostgresMemoryStore], dsn: str
) -> None:
    fill(open_store(), rows=50)

    def run(*words: str) -> str:
        env = {"MEMGRAPH_PLUGIN_DSN": dsn, "MEMGRAPH_PLUGIN_EMBEDDINGS": "none"}
        result = CliRunner().invoke(app, ["index", *words], env=env)
        return result.stdout + result.stderr

    assert "either --user or --namespace" in run()
    assert run("--namespace", "acme.big") == "Ready.\n"
    assert len(indexes(dsn)) == 3
    assert run("--namespace", "acme.big", "--drop") == "Dropped.\n"
    assert run("--user", "ana", "--drop") == "There were none.\n"
    assert indexes(dsn) == []


def test_words_alone_and_vectors_too_long_cannot_be_indexed(dsn: str) -> None:
    with PostgresMemoryStore(dsn) as store, pytest.raises(ConfigurationError, match="words alone"):
        store.create_index(BIG)
    with pytest.raises(ConfigurationError, match="4,000"):
        indexing.indexable(4_001, "halfvec")
    with pytest.raises(ConfigurationError, match="index_threshold"):
        PostgresMemoryStore(dsn, index_threshold=0)


def test_what_a_count_leads_to() -> None:
    index = SearchIndex("a", False, False, 4, 1_000)
    assert after_count(None, 499, 500) is None
    assert after_count(None, 500, 500) == "create"
    assert after_count(None, 500, None) is None
    assert after_count(index, 1, None) == "note"
    assert after_count(index, 249, 500) == "drop"
    assert after_count(index, 2_000, 500) == "note"
    assert after_count(index, 1_100, 500) is None
    assert after_count(SearchIndex("a", False, True, 4, 40), 30, 500) is None


def test_which_searches_an_index_serves() -> None:
    alone, below = SearchIndex("a", False, False, 4, 1_000), SearchIndex("b", True, False, 4, 1_000)
    known = {("a", False): alone, ("b", True): below}

    def routed(name: str, scope: str, namespace: str = "a", limit: int = 10, offset: int = 0) -> object:
        asked = {"namespace": namespace, "limit": limit, "offset": offset, "vector": [1.0]}
        found = route(known, name, scope, asked)
        return found and (found[0], found[1].below, found[1].rest)

    assert routed("recall", "exactly") == ("recall_indexed", False, False)
    assert routed("nearest", "prefix") == ("nearest_indexed", False, True)
    assert routed("nearest", "prefix", "b") == ("nearest_indexed", True, False)
    assert routed("recall", "prefix", "b") == ("recall_indexed", True, False)
    assert routed("recall", "prefix") is None
    assert routed("recall", "exactly", "b") is None
    assert routed("nearest", "everywhere") is None
    assert routed("nearest", "prefix", limit=400, offset=101) is None
    assert routed("recall", "exactly", limit=200) is None
    known["a", False] = SearchIndex("a", False, True, 4, 10)
    assert routed("recall", "exactly") is None
