"""How stores come to their connections: at once, in which event loop, in what time, and back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from langgraph.store.base import PutOp, SearchOp
from psycopg import conninfo

from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable, EmbeddingMismatch, StoreError
from memgraph_plugin.models.embeddings import LocalEmbeddings
from memgraph_plugin.store import database
from memgraph_plugin.store.base import embedder
from memgraph_plugin.store.connection import checked_conninfo
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, Update

ADA = ("memories", "ada")

TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_many_tasks_may_be_the_first(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        await asyncio.gather(*(store.aapply(ADA, [Insert(text=f"note {n}")]) for n in range(80)))
        assert len(await store.arecall(ADA, "", k=100)) == 80


def test_a_store_goes_with_its_program_from_loop_to_loop(dsn: str) -> None:
    store = AsyncPostgresMemoryStore(dsn)

    async def work() -> int:
        await asyncio.gather(*(store.aapply(ADA, [Insert(text="note")]) for _ in range(5)))
        return len(await store.arecall(ADA, "", k=100))

    assert [asyncio.run(work()) for _ in range(3)] == [5, 10, 15]


async def test_a_store_is_not_shared_by_loops_that_run_at_once(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        await store.aput(ADA, "k", {})
        with pytest.raises(ConfigurationError, match="each loop"):
            await asyncio.to_thread(asyncio.run, store.aget(ADA, "k"))
        assert await store.aget(ADA, "k")


def test_a_program_that_closes_nothing_ends(dsn: str) -> None:
    program = """
import asyncio, sys
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore

async def main(store):
    await asyncio.gather(*(store.aput(("a",), str(n), {}) for n in range(8)))

for _ in range(8):  # a pool that is growing when the loop ends is a matter of luck
    asyncio.run(main(AsyncPostgresMemoryStore(sys.argv[1])))
"""
    subprocess.run([sys.executable, "-c", program, dsn], check=True, timeout=60)


def test_a_task_that_is_cancelled_leaves_whole_batches(dsn: str) -> None:
    async def work() -> int:
        async with AsyncPostgresMemoryStore(dsn, max_size=2) as store:
            for n in range(20):
                batch = [Insert(key=f"{n}-{i}", text="note") for i in range(30)]
                task = asyncio.create_task(store.aapply(ADA, batch))
                await asyncio.sleep(0.001 * n)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return len(await store.arecall(ADA, "", k=1_000))

    assert asyncio.run(work()) % 30 == 0


def test_waiting_for_a_host_has_an_end() -> None:
    assert "connect_timeout=5" in checked_conninfo("postgresql://ada@db/memories")
    assert "connect_timeout=60" in checked_conninfo("host=db connect_timeout=60")
    for bad in ("tr0ub4dor", object()):
        with pytest.raises(ConfigurationError) as caught:
            PostgresMemoryStore(bad)  # type: ignore[arg-type]
        assert "tr0ub4dor" not in str(caught.value)


def test_a_database_that_is_gone_is_soon_known(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = conninfo.conninfo_to_dict(dsn)
    name = f".s.PGSQL.{given.get('port', 5432)}"
    if not (socket := Path(str(given.get("host"))) / name).exists():
        pytest.skip("the server is not reached by a socket")
    monkeypatch.setattr(database, "PATIENCE", 0.3)
    (tmp_path / name).symlink_to(socket)
    with PostgresMemoryStore(conninfo.make_conninfo(dsn, host=str(tmp_path))) as store:
        store.put(ADA, "k", {})
        (tmp_path / name).unlink()
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(TERMINATE)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            store.get(ADA, "k")
        assert time.monotonic() - began < 3
        (tmp_path / name).symlink_to(socket)
        assert store.get(ADA, "k")


async def test_connections_that_died_while_idle_are_nobody_s_error(dsn: str) -> None:
    """After a restart or a fail-over: reads are sent again, writes begin again, nothing is written twice."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        async with AsyncPostgresMemoryStore(dsn) as store:
            await asyncio.gather(*(store.aput(ADA, f"{n}", {"text": "tea"}) for n in range(10)))
            conn.execute(TERMINATE)
            assert len(await store.arecall(ADA, "tea", k=20)) == 10
            conn.execute(TERMINATE)
            await asyncio.gather(*(store.aput(ADA, f"{n}", {"text": "cake"}) for n in range(10)))
            conn.execute(TERMINATE)
            assert await asyncio.gather(*(store.aget(ADA, f"{n}") for n in range(10)))
            assert [len(await store.ahistory(ADA, f"{n}")) for n in range(10)] == [2] * 10
        with PostgresMemoryStore(dsn) as sync:
            assert sync.get(ADA, "1")
            conn.execute(TERMINATE)
            sync.apply(ADA, [Update(key="1", text="coffee")])
            conn.execute(TERMINATE)
            assert len(sync.history(ADA, "1")) == 3


def test_langgraph_s_arguments_open_a_store(dsn: str) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0, float(len(text)), 0.5] for text in texts]

    with (
        PostgresMemoryStore.from_conn_string(dsn, index={"dims": 4, "embed": embed}) as store,
        pytest.raises(EmbeddingMismatch, match="3 dimensions, not 4"),
    ):
        store.put(ADA, "k", {"text": "tea"})
    with PostgresMemoryStore.from_conn_string(
        dsn,
        pipeline=True,
        pool_config={"min_size": 1, "max_size": 3},
        index={"dims": 3, "embed": embed, "fields": ["$"]},
        ttl={"default_ttl": 10, "refresh_on_read": True},
    ) as store:
        store.setup()
        store.put(ADA, "k", {"text": "tea"})
        assert store.search(ADA, query="tea")[0].key == "k"


def test_a_model_may_be_given_by_its_name() -> None:
    model = embedder({"dims": 384, "embed": "local:minilm"}, None)
    assert isinstance(model, LocalEmbeddings)
    assert isinstance(embedder(None, "local:minilm"), LocalEmbeddings)
    with pytest.raises(ConfigurationError):
        embedder(None, "nonsense")


def test_writers_and_readers_of_the_same_keys_meet_no_error(dsn: str) -> None:
    """Inserts, updates, deletes and puts of the same few keys, in two namespaces, with times to live."""
    spaces, errors = (("a", "1"), ("a", "2")), []

    def work(store: PostgresMemoryStore, n: int) -> None:
        keys = [f"k{(n + i) % 5}" for i in range(4)][:: 1 if n % 2 else -1]
        try:
            for i in range(6):
                store.batch(
                    [PutOp(space, key, {"text": f"{n} {i}"}, ttl=10) for space in spaces for key in keys]
                )
                store.batch([SearchOp(("a",), query="1 2", limit=50)])
                store.apply(
                    spaces[n % 2], [Update(key=key, text="x") for key in keys], idempotency_key=f"{i}"
                )
                store.batch([PutOp(spaces[0], key, None) for key in keys[:2]])
                store.apply(spaces[0], [Insert(key=keys[0], text="y"), Delete(key=keys[3])])
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    with PostgresMemoryStore(dsn) as one, PostgresMemoryStore(dsn) as two:
        threads = [threading.Thread(target=work, args=((one, two)[n % 2], n)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with psycopg.connect(dsn) as conn:
            versions = conn.execute(
                "SELECT namespace, key, count(*), max(version), count(DISTINCT recorded_at) "
                "FROM memgraph_plugin.memory_version GROUP BY 1, 2"
            ).fetchall()
        assert all(count == newest == times for _, _, count, newest, times in versions)
        assert Counter(space for space, *_ in versions) == {"a.1": 5, "a.2": 5}


def test_no_error_quotes_the_row_it_is_about(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE memgraph_plugin.memory ADD CONSTRAINT refused CHECK (text !~ 'Lisbon')")
    said = Insert(text="I live in Lisbon.")
    with PostgresMemoryStore(dsn) as store, pytest.raises(StoreError, match="refused") as raised:
        store.apply(ADA, [said])
    assert "Lisbon" not in "".join(traceback.format_exception(raised.value))
