"""Sweeping, in the database itself: what is left, what waits for whom, and how a sweeper ends."""

from __future__ import annotations

import asyncio
import gc
import inspect
import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from langgraph.store.base import PutOp
from langgraph.store.postgres import AsyncPostgresStore, PostgresStore

from memgraph_plugin.errors import ConfigurationError, MemoryNotFound
from memgraph_plugin.store import upkeep
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.types import Insert

ADA = ("memories", "ada")
SOON = 0.05 / 60
TTL = {"sweep_interval_minutes": 0.02 / 60}


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(dsn, ttl=TTL) as store:  # type: ignore[arg-type]
        yield store


def expire(dsn: str) -> None:
    """Let the time go by that everything with an end has left."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for table in ("memory", "memory_version"):
            conn.execute(
                f"UPDATE memgraph_plugin.{table} SET expires_at = now() - interval '1 s' "
                "WHERE expires_at IS NOT NULL".encode()
            )


def rows(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as conn:
        found = conn.execute(f"SELECT count(*) FROM memgraph_plugin.{table}".encode()).fetchone()
        assert found is not None
        return int(found[0])


def everything(dsn: str) -> str:
    """All that the tables hold, as text."""
    tables = ("memory", "memory_version", "operation_batch")
    with psycopg.connect(dsn) as conn:
        return "".join(
            str(conn.execute(f"SELECT t::text FROM memgraph_plugin.{table} t".encode()).fetchall())
            for table in tables
        )


def test_a_swept_memory_leaves_no_word_behind(store: PostgresMemoryStore, dsn: str) -> None:
    store.put(ADA, "kept", {"text": "stays"})
    store.put(ADA, "k", {"text": "the zebra is here"}, ttl=10)
    store.put(ADA, "k", {"text": "the zebra moved"}, ttl=10)
    soon = Insert(
        key="i", text="zebra", reason="said zebra", expires_at=datetime.now(UTC) + timedelta(hours=1)
    )
    store.apply(ADA, [soon, Insert(text="other", reason="stays, too")], idempotency_key="once")
    expire(dsn)
    assert "zebra" in everything(dsn)
    assert store.sweep_ttl() == 2
    assert store.sweep_ttl() == 0
    assert "zebra" not in everything(dsn)
    assert "stays, too" in everything(dsn)
    again = store.apply(ADA, [soon], idempotency_key="once")
    assert again.replayed
    assert [receipt.reason for receipt in again.receipts] == ["", "stays, too"]
    assert store.get(ADA, "i") is None


def test_many_are_swept_in_batches(
    store: PostgresMemoryStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 7)
    store.batch([PutOp((*ADA, str(n % 3)), str(n), {"n": n}, ttl=10) for n in range(30)])
    store.batch([PutOp(ADA, str(n), {"n": n}, ttl=10) for n in range(20)])
    store.batch([PutOp(ADA, str(n), None) for n in range(20)])
    expire(dsn)
    assert store.sweep_ttl() == 30
    with pytest.raises(MemoryNotFound):
        store.history(ADA, "3")


def test_a_sweep_waits_for_nobody(store: PostgresMemoryStore, dsn: str) -> None:
    store.batch([PutOp(ADA, key, {"text": key}, ttl=10) for key in ("free", "held")])
    expire(dsn)
    with psycopg.connect(dsn) as conn:
        conn.execute("SELECT FROM memgraph_plugin.memory WHERE key = 'held' FOR UPDATE")
        assert store.sweep_ttl() == 1
    assert store.sweep_ttl() == 1


async def test_sweepers_of_several_processes_share_the_work(dsn: str) -> None:
    stores = [AsyncPostgresMemoryStore(dsn) for _ in range(4)]
    await stores[0].abatch([PutOp((*ADA, str(n % 5)), str(n), {"n": n}, ttl=10) for n in range(2_500)])
    expire(dsn)
    swept = await asyncio.gather(*(store.sweep_ttl() for store in stores))
    assert sum(swept) == 2_500
    assert rows(dsn, "memory_version") == 0
    for store in stores:
        await store.aclose()


def test_what_is_written_again_while_it_expires_is_not_swept(store: PostgresMemoryStore, dsn: str) -> None:
    store.put(ADA, "k", {"n": 1}, ttl=10)
    expire(dsn)
    store.put(ADA, "k", {"n": 2})
    store.put(ADA, "deleted", {"n": 1}, ttl=10)
    store.delete(ADA, "deleted")
    expire(dsn)
    store.put(ADA, "deleted", {"n": 2})
    assert store.sweep_ttl() == 0
    assert len(store.history(ADA, "deleted")) == 3


def until(met: object) -> None:
    for _ in range(200):
        if met():  # type: ignore[operator]
            return
        time.sleep(0.02)
    raise AssertionError("it never came about")


@pytest.mark.parametrize("kind", ["postgres", "in memory"])
def test_a_thread_sweeps_until_it_is_stopped(dsn: str, kind: str) -> None:
    store = PostgresMemoryStore(dsn, ttl=TTL) if kind == "postgres" else InMemoryMemoryStore(ttl=TTL)  # type: ignore[arg-type]
    work = store.start_ttl_sweeper()
    assert isinstance(work, Future)
    assert store.start_ttl_sweeper() is work
    store.put(ADA, "k", {"text": "short"}, ttl=SOON)

    def swept() -> bool:
        try:
            return not store.history(ADA, "k")
        except MemoryNotFound:
            return True

    until(swept)
    assert store.stop_ttl_sweeper(timeout=5) is True
    assert work.done()
    assert store.stop_ttl_sweeper() is True
    assert store.start_ttl_sweeper(10).cancel()
    assert store.stop_ttl_sweeper(timeout=5) is True
    if isinstance(store, PostgresMemoryStore):
        store.close()


async def test_a_task_sweeps_until_it_is_stopped(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn, ttl=TTL) as store:  # type: ignore[arg-type]
        work = await store.start_ttl_sweeper()
        assert isinstance(work, asyncio.Task)
        assert await store.start_ttl_sweeper() is work
        await store.aput(ADA, "k", {"text": "short"}, ttl=SOON)
        await asyncio.to_thread(until, lambda: rows(dsn, "memory_version") == 0)
        assert await store.stop_ttl_sweeper(timeout=5) is True
        assert work.done()
        assert await store.stop_ttl_sweeper() is True
        last = await store.start_ttl_sweeper()
    assert last.done()


async def test_without_times_to_live_nothing_is_swept(dsn: str) -> None:
    assert InMemoryMemoryStore().start_ttl_sweeper().done()
    async with AsyncPostgresMemoryStore(dsn) as store:
        await (await store.start_ttl_sweeper())
        assert await store.stop_ttl_sweeper() is True


def test_a_sweep_that_fails_is_logged_and_the_next_one_is_tried(
    store: PostgresMemoryStore, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(ADA, "k", {}, ttl=SOON)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE memgraph_plugin.memory_version RENAME TO elsewhere")
        store.start_ttl_sweeper()
        until(lambda: "next one is in" in caplog.text)
        conn.execute("ALTER TABLE memgraph_plugin.elsewhere RENAME TO memory_version")
    until(lambda: rows(dsn, "memory_version") == 0)


def test_a_store_that_nobody_holds_sweeps_no_more() -> None:
    store = InMemoryMemoryStore(ttl=TTL)  # type: ignore[arg-type]
    work = store.start_ttl_sweeper()
    del store
    gc.collect()
    work.result(timeout=5)


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf"), "soon"])
def test_an_interval_that_is_none_is_refused(minutes: float) -> None:
    with pytest.raises(ConfigurationError, match="sweep_interval_minutes"):
        InMemoryMemoryStore(ttl=TTL).start_ttl_sweeper(minutes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sweep_ttl", "start_ttl_sweeper", "stop_ttl_sweeper"])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(PostgresMemoryStore, PostgresStore), (AsyncPostgresMemoryStore, AsyncPostgresStore)]
)
def test_the_methods_are_langgraph_s(ours: type, theirs: type, name: str) -> None:
    mine, its = getattr(ours, name), getattr(theirs, name)
    assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(its)
    parameters = [
        [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
        for method in (mine, its)
    ]
    assert parameters[0] == parameters[1]
    returns = [
        str(inspect.signature(method).return_annotation).removeprefix("concurrent.futures.")
        for method in (mine, its)
    ]
    assert returns[0] == returns[1]
