"""What becomes of a store's connections: when the server restarts, when a process forks, when a loop ends."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp

from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable, StoreError
from memgraph_plugin.store import database
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.embedded import EmbeddedPostgres
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Insert, Update
from tests.threads import at_once

ADA = ("memories", "ada")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop, with our tables."""
    own = EmbeddedPostgres(tmp_path_factory.mktemp("own"))
    with PostgresMemoryStore(own.ensure()) as store:
        store.setup()
    try:
        yield own
    finally:
        own.stop()


def ends_with(dsn: str, at_most: int) -> bool:
    """Whether others come to have so few connections; what nobody holds any more is given a moment to end."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(50):
            gc.collect()
            found = conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone()
            if found is not None and found[0] <= at_most:
                return True
            time.sleep(0.1)
    return False


# A server that goes and comes.


def test_after_a_restart_the_next_call_works_and_at_once(
    server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    with PostgresMemoryStore(server.ensure()) as store:
        store.put(ADA, "k", {"text": "tea"})
        assert at_once(lambda n: store.batch([PutOp(ADA, f"k{n}", {})] * 20), 10) == []
        server.stop()
        server.ensure()
        began = time.monotonic()
        assert store.get(ADA, "k")
        # Not once for each of the ten lost connections, with a pause that doubles.
        assert time.monotonic() - began < 3
        assert at_once(lambda n: store.put(ADA, f"k{n}", {"n": n}), 10) == []
    assert len(caplog.records) < 15


def test_a_database_that_is_down_is_named_at_once_without_noise_and_found_again(
    server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE", 1.0)
    with PostgresMemoryStore(server.ensure()) as store:
        assert at_once(lambda n: store.batch([PutOp(ADA, f"k{n}", {})] * 20), 10) == []
        server.stop()
        with pytest.raises(DatabaseUnavailable, match=r"does not answer \(host=.* port=5432 dbname="):
            store.get(ADA, "k1")
        began = time.monotonic()
        errors = []
        while time.monotonic() - began < 3:
            errors += at_once(lambda n: store.put(ADA, f"k{n}", {}), 4)
        assert len(errors) > 40  # each answers soon
        assert {type(error) for error in errors} == {DatabaseUnavailable}
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) <= 10 * 4  # of each lost connection, a few; of calls, none
        server.ensure()
        began = time.monotonic()
        assert store.get(ADA, "k1")
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_restart_during_calls_costs_no_write_and_doubles_none(
    server: EmbeddedPostgres, colour: str
) -> None:
    space, done = ("restart", colour), []
    over = threading.Event()

    def note(n: int, i: int) -> list[Insert]:
        return [Insert(text=f"{n} {i}"), Insert(key=f"{n}-{i}", text=f"{n} {i}")]

    def work(store: PostgresMemoryStore, n: int) -> None:
        for i in range(10_000):
            if over.is_set():
                return
            try:
                store.apply(space, note(n, i), idempotency_key=f"{n} {i}" if n % 2 else None)
                done.append((n, i))
            except DatabaseUnavailable:  # a server may be away for longer than a call waits
                time.sleep(0.05)

    async def awork(store: AsyncPostgresMemoryStore, n: int) -> None:
        for i in range(10_000):
            if over.is_set():
                return
            try:
                await store.aapply(space, note(n, i), idempotency_key=f"{n} {i}" if n % 2 else None)
                done.append((n, i))
            except DatabaseUnavailable:
                await asyncio.sleep(0.05)

    async def main() -> None:
        async with AsyncPostgresMemoryStore(server.dsn) as store:
            await asyncio.gather(*(awork(store, n) for n in range(4)))

    def restart() -> None:
        time.sleep(0.3)
        server.stop()
        server.ensure()
        time.sleep(0.3)
        over.set()

    server.ensure()
    restarting = threading.Thread(target=restart)
    restarting.start()
    if colour == "async":
        asyncio.run(main())
    else:
        with PostgresMemoryStore(server.dsn) as store:
            assert at_once(lambda n: work(store, n), 4) == []
    restarting.join()
    with psycopg.connect(server.dsn) as conn:
        found = conn.execute(
            "SELECT text, count(*) FROM memgraph_plugin.memory_version WHERE namespace = %s GROUP BY text",
            [".".join(space)],
        ).fetchall()
    assert {number for _, number in found} == {2}
    assert {f"{n} {i}" for n, i in done} <= {text for text, _ in found}


@pytest.mark.parametrize("table", ["memory", "memory_version"])
def test_a_backend_that_is_killed_under_a_call_is_not_the_caller_s_trouble(dsn: str, table: str) -> None:
    """Held up by a lock, then killed: reads, and writes that had not come to their COMMIT, are run again."""
    with PostgresMemoryStore(dsn) as store, psycopg.connect(dsn) as holding:
        store.apply(ADA, [Insert(key="k", text="likes tea")])
        holding.execute(f"LOCK TABLE memgraph_plugin.{table} IN ACCESS EXCLUSIVE MODE")
        results: list[Any] = []

        def work(n: int) -> None:
            if n == 0:
                results.append(store.history(ADA, "k") if table == "memory_version" else store.get(ADA, "k"))
            else:
                results.append(store.apply(ADA, [Update(key="k", text="likes milk")]))

        def kill() -> None:
            waiting = (
                "SELECT pid FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            with psycopg.connect(dsn, autocommit=True) as conn:
                while len(found := conn.execute(waiting).fetchall()) < 2:
                    time.sleep(0.02)
                for (pid,) in found:
                    conn.execute("SELECT pg_terminate_backend(%s)", [pid])
            holding.rollback()

        killing = threading.Thread(target=kill)
        killing.start()
        assert at_once(work, 2) == []
        killing.join()
        assert len(results) == 2
        assert [line.version for line in store.history(ADA, "k")] == [1, 2]


def test_a_store_may_wait_for_a_server_that_recovers(server: EmbeddedPostgres) -> None:
    """One crashed backend makes the server refuse everybody until it has recovered."""
    with PostgresMemoryStore(server.ensure()) as store:
        store.put(ADA, "k", {"text": "tea"})
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            pids = [
                pid
                for (pid,) in conn.execute(
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
                )
            ]
        subprocess.run(["kill", "-9", str(pids[0])], check=True)
        assert store.get(ADA, "k")


# Processes, loops, threads.


def test_forked_processes_have_connections_of_their_own(dsn: str) -> None:
    program = """
import asyncio, os, sys, threading
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.types import Insert

dsn = sys.argv[1]
store, astore = PostgresMemoryStore(dsn), AsyncPostgresMemoryStore(dsn)
busy = threading.Event()

def work(who):
    for i in range(15):
        busy.set()
        store.apply(("sync",), [Insert(key=f"{who}-{i}", text=f"{who} {i}")])
        assert store.get(("sync",), f"{who}-{i}").value["text"] == f"{who} {i}"

async def awork(who):
    for i in range(10):
        await astore.aapply(("async",), [Insert(key=f"{who}-{i}", text=f"{who} {i}")])
        assert (await astore.aget(("async",), f"{who}-{i}")).value["text"] == f"{who} {i}"

def child(who):
    work(who)
    threads = [threading.Thread(target=work, args=(f"{who}-{n}",)) for n in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    asyncio.run(awork(who))

async def main():
    await awork("parent before")
    meanwhile = threading.Thread(target=work, args=("parent meanwhile",))
    meanwhile.start()
    busy.wait()
    children = []
    for n in range(4):
        if (pid := os.fork()) == 0:
            try:
                child(f"child {n}")
                if n % 2:
                    store.close()
                else:
                    sys.exit(0)  # with all that an interpreter does at its end
            except SystemExit:
                raise
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(pid)
    await awork("parent after")
    meanwhile.join()
    while children:
        for pid in children[:]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                assert status == 0, status
                children.remove(pid)
        await asyncio.sleep(0.02)
    await awork("parent at last")

store.put(("sync",), "k", {})
asyncio.run(main())
work("parent")
assert len(store.search(("sync",), limit=1000)) == 1 + 4 * 45 + 30
assert len(store.search(("async",), limit=1000)) == 30 + 4 * 10
"""
    done = subprocess.run(
        [sys.executable, "-c", program, dsn], timeout=100, capture_output=True, text=True, check=False
    )
    # A pool that was still growing when a loop or a process ended may say so; nobody's work is lost by that.
    assert done.returncode == 0, done.stderr
    assert "memgraph_plugin/store" not in done.stderr


def test_a_store_of_a_module_serves_one_lifespan_after_another(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    # A connection that a loop's end cut off is held by the error, which pytest would keep with the log.
    caplog.set_level(logging.ERROR, "psycopg.pool")
    store = AsyncPostgresMemoryStore(dsn)

    async def lifespan(n: int) -> None:
        async with store:
            await store.aput(ADA, str(n), {})
            assert await asyncio.to_thread(store.get, ADA, str(n))

    for n in range(3):
        asyncio.run(lifespan(n))
    assert ends_with(dsn, 0)

    async def found() -> int:
        return len(await store.asearch(ADA))

    assert asyncio.run(found()) == 3
    asyncio.run(store.aclose())  # in another loop than the one that used it
    assert ends_with(dsn, 0)


def test_a_loop_that_ended_takes_its_connections_along(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "psycopg.pool")  # as above
    store = AsyncPostgresMemoryStore(dsn)

    async def work(n: int) -> None:
        await asyncio.gather(*(store.aput(ADA, f"{n} {i}", {}) for i in range(6)))

    for n in range(6):
        asyncio.run(work(n))
    assert ends_with(dsn, 6)


async def test_no_sync_method_of_the_async_store_waits_inside_its_loop(dsn: str) -> None:
    names = [
        name for name in dir(MemoryStore) if not name.startswith("_") and hasattr(MemoryStore, f"a{name}")
    ]
    assert {
        "get",
        "put",
        "delete",
        "search",
        "list_namespaces",
        "batch",
        "apply",
        "recall",
        "history",
    } <= set(names)
    given: dict[str, Any] = {"namespace": ADA, "operations": [], "ops": [PutOp(ADA, "k", {})], "value": {}}
    async with AsyncPostgresMemoryStore(dsn) as store:
        for name in names:
            method = getattr(store, name)
            required = [
                parameter
                for parameter in inspect.signature(method).parameters.values()
                if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
            ]
            positional = [given.get(p.name, "x") for p in required if p.kind is not p.KEYWORD_ONLY]
            named = {p.name: given.get(p.name, "x") for p in required if p.kind is p.KEYWORD_ONLY}
            if name == "search":
                positional = [ADA]
            with pytest.raises(ConfigurationError, match="the method with the `a` prefix"):
                list(method(*positional, **named))  # `export` begins when its lines are asked for


async def test_the_sync_store_works_inside_a_loop_and_its_async_methods_let_it_run(dsn: str) -> None:
    """As in a notebook. A sync call there stops the loop for as long as it takes; an awaited one does not."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    with PostgresMemoryStore(dsn) as store, psycopg.connect(dsn) as holding:
        store.put(ADA, "k", {"text": "tea"})
        ticking = asyncio.create_task(tick())
        holding.execute("LOCK TABLE memgraph_plugin.memory IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(store.aget(ADA, "k"))
        await asyncio.sleep(0.3)
        assert not reading.done()
        assert ticks > 5
        holding.rollback()
        assert await reading
        ticking.cancel()


# Models and connections.


class Asking(Embeddings):
    """A model that uses its store while it is at work: the store's only connection has to be free."""

    store: Any = None

    def __init__(self) -> None:
        self.asked = 0
        self._vectors = HashingEmbeddings(dimensions=16)

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.store is not None and texts != ["dimension"]:
            assert self.store.get(ADA, "k") is None
            self.asked += 1
        return self._vectors.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.store is not None and texts != ["dimension"]:
            assert await self.store.aget(ADA, "k") is None
            self.asked += 1
        return self._vectors.embed_documents(texts)


def test_no_connection_is_held_while_a_model_runs(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.5)
    model = Asking()
    with PostgresMemoryStore(dsn, embeddings=model, max_size=1) as store:
        model.store = store
        store.apply(ADA, [Insert(text="likes tea")])
        store.recall(ADA, "tea")
        store.search(ADA, query="tea")
        store.put(ADA, "other", {"text": "milk"})
        assert model.asked == 4


async def test_no_connection_is_held_while_a_model_runs_async(dsn: str) -> None:
    model = Asking()
    async with AsyncPostgresMemoryStore(dsn, embeddings=model, max_size=1) as store:
        model.store = store
        async with asyncio.timeout(20):
            await store.aapply(ADA, [Insert(text="likes tea")])
            await store.arecall(ADA, "tea")
            await store.asearch(ADA, query="tea")
            await store.aput(ADA, "other", {"text": "milk"})
        assert model.asked == 4


def test_a_store_that_was_never_opened_or_is_closed_says_so(dsn: str) -> None:
    store = PostgresMemoryStore(dsn)
    store.close()
    store.put(ADA, "k", {})
    store.close()
    with pytest.raises(StoreError, match="not open"):
        store.get(ADA, "k")
