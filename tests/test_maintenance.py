"""Upkeep: what is scattered is put together, nothing is lost, and nobody is shut out who was not warned."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.errors import SchemaOutOfDate, StoreError
from memgraph_plugin.store import maintenance, reembedding, schema
from memgraph_plugin.store.maintenance import maintain, survey
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, Update

ADA, BOB = ("memories", "ada"), ("memories", "bob")
CONTENT = "SELECT * FROM memgraph_plugin.memory ORDER BY namespace, key"


@pytest.fixture(params=[None, 2], ids=["whole", "partitioned"])
def scattered(request: pytest.FixtureRequest, empty_dsn: str) -> str:
    """A database with two namespaces of 600 rows, and eight like them, which all grew at once."""
    schema.migrate(empty_dsn, "memgraph_plugin", request.param)
    vectors = HashingEmbeddings().embed_documents([f"note {i}" for i in range(25)])
    with PostgresMemoryStore(empty_dsn, embeddings=HashingEmbeddings()) as store:
        for turn in range(24):
            for namespace in (ADA, BOB):
                notes = [
                    Insert(key=f"{turn}-{i}", text=f"note {i}", embedding=vectors[i], session=f"{turn}")
                    for i in range(25)
                ]
                store.apply(namespace, notes)
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(
            "CREATE TEMP TABLE mixed AS SELECT * FROM memgraph_plugin.memory; ALTER TABLE mixed DROP terms;"
            "DELETE FROM memgraph_plugin.memory"
        )
        columns = conn.execute(
            "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'mixed'::regclass "
            "AND attnum > 0 AND NOT attisdropped"
        ).fetchall()[0][0]
        copied = columns.replace("namespace", "namespace || repeat('x', i)", 1)
        conn.execute(
            f"INSERT INTO memgraph_plugin.memory ({columns}) SELECT {copied} "
            "FROM mixed, generate_series(0, 4) AS i ORDER BY md5(namespace || key || i)".encode()
        )
        conn.execute("VACUUM ANALYZE memgraph_plugin.memory")
    return empty_dsn


def content(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(CONTENT).fetchall()


def test_scattered_namespaces_are_put_together_and_nothing_is_lost(scattered: str) -> None:
    before = content(scattered)
    found = survey(scattered, "memgraph_plugin")
    assert len(found.scattered) == 10
    told: list[tuple[int, int]] = []
    first, now = maintain(scattered, "memgraph_plugin", progress=lambda *step: told.append(step))
    assert first.scattered == found.scattered
    assert now.scattered == ()
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert content(scattered) == before
    with PostgresMemoryStore(scattered, embeddings=HashingEmbeddings()) as store:
        store.apply(ADA, [Update(key="1-1", text="likes tea"), Delete(key="1-2")])
        assert store.recall(ADA, "tea")[0].memory.version == 2
        assert len(store.history(ADA, "1-1")) == 2


def test_cluster_puts_everything_in_order(scattered: str) -> None:
    before = content(scattered)
    first, now = maintain(scattered, "memgraph_plugin", cluster=True)
    assert now.scattered == ()
    assert now.heap_bytes <= first.heap_bytes
    assert content(scattered) == before


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        store.apply(ADA, [Insert(key=f"{i:03}", text=f"note {i}") for i in range(100)])
        yield store


def test_nothing_is_done_where_all_is_in_order(store: PostgresMemoryStore, dsn: str) -> None:
    found = survey(dsn, "memgraph_plugin")
    assert (found.scattered, found.worn_indexes) == ((), ())
    maintain(dsn, "memgraph_plugin")


def test_a_forgetting_meanwhile_forgets_what_moves(
    store: PostgresMemoryStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delete that waits for a move finds the rows where they are now."""
    with psycopg.connect(dsn, autocommit=True) as mover, psycopg.connect(dsn, autocommit=True) as other:
        mover.execute("BEGIN")
        mover.execute("LOCK TABLE memgraph_plugin.memory IN SHARE ROW EXCLUSIVE MODE")
        forget = threading.Thread(
            target=lambda: other.execute(
                "DELETE FROM memgraph_plugin.memory WHERE namespace = 'memories.ada'"
            )
        )
        forget.start()
        mover.row_factory = psycopg.rows.dict_row  # type: ignore[assignment]
        maintenance._move(mover, "memgraph_plugin", "memories.ada")  # type: ignore[arg-type]
        mover.execute("COMMIT")
        forget.join()
    assert content(dsn) == []


def test_writers_that_do_not_end_are_not_waited_for(
    store: PostgresMemoryStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "LOCK_SECONDS", 1)
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE memgraph_plugin.memory SET source = 'x' WHERE key = '001'")
        with pytest.raises(StoreError, match="run this again"):
            maintain(dsn, "memgraph_plugin", cluster=True)
        assert store.recall(ADA, "note")


def test_vectors_that_are_being_made_are_not_lost_by_a_move(
    store: PostgresMemoryStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(HashingEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reembedding.reembed(dsn, "memgraph_plugin", Stopped(64))
    with (
        psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as conn,
        pytest.raises(StoreError, match="--reembed"),
    ):
        maintenance._move(conn, "memgraph_plugin", "memories.ada")


def test_an_index_whose_making_failed_is_made_anew(store: PostgresMemoryStore, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON memgraph_plugin.memory (kind)")
        conn.execute("DELETE FROM memgraph_plugin.memory WHERE key > '000'")
        assert survey(dsn, "memgraph_plugin").worn_indexes == ("broken",)
        assert maintain(dsn, "memgraph_plugin")[1].worn_indexes == ()


def test_the_command_measures_asks_and_says(store: PostgresMemoryStore, dsn: str, empty_dsn: str) -> None:
    run = CliRunner()
    env = {"MEMGRAPH_PLUGIN_DSN": dsn}
    assert "would be vacuumed" in run.invoke(app, ["maintain", "--dry-run"], env=env).stdout
    refused = run.invoke(app, ["maintain", "--cluster"], input="n\n", env=env)
    assert refused.exit_code == 1
    assert "Nobody can read or write" in refused.stdout
    for words in (["--cluster", "--yes"], []):
        assert "Now: Tables" in run.invoke(app, ["maintain", *words], env=env).stdout
    with pytest.raises(SchemaOutOfDate):
        survey(empty_dsn, "memgraph_plugin")
