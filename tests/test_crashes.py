"""Calls that are cut off in the middle: by a kill, by a lost connection, by Ctrl-C, by a cancelled task."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from langgraph.store.base import PutOp
from psycopg import conninfo

from memgraph_plugin.errors import DatabaseUnavailable, StoreError
from memgraph_plugin.store.connection import ATTEMPTS
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.types import Insert, Receipts, Update

ADA = ("memories", "ada")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def versions(dsn: str) -> dict[str, int]:
    """How many versions there are of each key."""
    with psycopg.connect(dsn) as conn:
        return dict(
            conn.execute("SELECT key, count(*) FROM memgraph_plugin.memory_version GROUP BY key").fetchall()
        )


def test_two_rounds_of_kill_9_leave_everything_whole() -> None:
    command = [sys.executable, BENCHMARKS / "crash.py", "--rounds", "2", "--clients", "2", "--writes", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"violations +│ +0", done.stdout)


# A connection that is lost while it commits.


class Cut:
    """A socket before the server's that goes down with the next COMMIT: before it, or before its answer."""

    def __init__(self, dsn: str, folder: Path) -> None:
        given = conninfo.conninfo_to_dict(dsn)
        self._name = f".s.PGSQL.{given.get('port', 5432)}"
        self._behind = Path(str(given.get("host"))) / self._name
        if not self._behind.exists():
            pytest.skip("the server is not reached by a socket")
        self.dsn = conninfo.make_conninfo(dsn, host=str(folder))
        self.next: list[str] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / self._name))
        self._listening.listen(20)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._behind))
                answered = threading.Event()  # by now the next answer is that to a COMMIT
                threading.Thread(target=self._ask, args=(client, server, answered), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, answered), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        made = False
        with suppress(OSError):
            while data := client.recv(65_536):
                made = made or b"plan_cache_mode" in data  # the last thing asked as a connection is made
                if made and b"COMMIT\0" in data and self.next:  # not READ COMMITTED
                    if self.next.pop(0) == "before":
                        break
                    answered.set()
                server.sendall(data)
        _shut(client, server)

    def _answer(self, server: socket.socket, client: socket.socket, answered: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(65_536)) and not answered.is_set():
                client.sendall(data)
        _shut(client, server)


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cut(dsn: str, tmp_path: Path) -> Iterator[Cut]:
    made = Cut(dsn, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("key", [None, "turn-1"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_whose_commit_is_cut_off_is_applied_once(
    dsn: str, cut: Cut, when: str, key: str | None
) -> None:
    with PostgresMemoryStore(cut.dsn) as store:
        store.apply(ADA, [Insert(key="k", text="likes tea")])
        cut.next = [when]
        done = store.apply(
            ADA, [Update(key="k", text="likes milk"), Insert(text="no key")], idempotency_key=key
        )
        assert [receipt.status for receipt in done.receipts] == ["applied"] * 2
        assert not done.replayed
        assert [line.batch_id for line in store.history(ADA, "k")][1:] == [done.batch_id]
        cut.next = [when]
        spaces = [("a",), ("b",), ("c",)]
        store.batch([PutOp(space, "put", {"text": "milk"}) for space in spaces])
        cut.next = [when]
        store.apply(ADA, [Insert(key=f"bulk {i}", text="note") for i in range(60)])
    assert sorted(versions(dsn).values()) == [1] * 61 + [2, 3]


async def test_a_write_whose_commit_is_cut_off_is_applied_once_async(dsn: str, cut: Cut) -> None:
    async with AsyncPostgresMemoryStore(cut.dsn) as store:
        await store.aput(ADA, "k", {})
        for when in ("before", "after"):
            cut.next = [when]
            await store.aput(ADA, "k", {"text": when})
    assert versions(dsn) == {"k": 3}


def test_where_nobody_can_know_the_caller_is_told(dsn: str, cut: Cut) -> None:
    with PostgresMemoryStore(cut.dsn) as store:
        store.put(ADA, "k", {})
        cut.next = ["after", "after"]
        with pytest.raises(DatabaseUnavailable):
            store.apply(ADA, [Insert(key="new", text="tea")], idempotency_key="turn-1")
        assert store.apply(ADA, [Insert(key="new", text="tea")], idempotency_key="turn-1").replayed

        # A transaction that does not recognise what it wrote is not run again.
        runs: list[int] = []
        cut.next = ["after"]
        with pytest.raises(DatabaseUnavailable):
            store._database.transaction(lambda conn: runs.append(1))
        assert runs == [1]
    assert versions(dsn) == {"k": 1, "new": 1}


# Transactions that others make fail.


@contextmanager
def failing(dsn: str, times: int, code: str) -> Iterator[Callable[[], int]]:
    """The next `times` writes of a version fail as if another writer came first; how often one was tried."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE SEQUENCE tries")
        conn.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('public.tries') <= {times} THEN RAISE SQLSTATE '{code}'; END IF; RETURN NEW; END $$"
        )
        conn.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON memgraph_plugin.memory_version "
            "FOR EACH STATEMENT EXECUTE FUNCTION fail()"
        )

        def tried() -> int:
            found = conn.execute("SELECT last_value FROM tries").fetchone()
            assert found is not None
            return int(found[0])

        yield tried


@pytest.mark.parametrize("code", ["40001", "40P01", "23505"])
def test_a_transaction_that_others_make_fail_is_tried_again_and_not_forever(dsn: str, code: str) -> None:
    with PostgresMemoryStore(dsn) as store, failing(dsn, ATTEMPTS - 1, code) as tried:
        assert store.apply(ADA, [Insert(key="k", text="tea")], idempotency_key="turn-1").applied
        assert tried() == ATTEMPTS
        assert store.apply(ADA, [Insert(key="k", text="tea")], idempotency_key="turn-1").replayed
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT setval('tries', 1, false)")
        conn.execute("ALTER SEQUENCE tries MINVALUE -1000000")
        conn.execute("SELECT setval('tries', -1000)")
    with PostgresMemoryStore(dsn) as store, pytest.raises(StoreError):
        store.apply(ADA, [Insert(key="other", text="tea")])
    assert versions(dsn) == {"k": 1}


# Ctrl-C and cancellation.


def test_ctrl_c_leaves_whole_batches_and_a_store_that_works(dsn: str) -> None:
    """SIGALRM raises what SIGINT does, at a moment that nobody chose."""
    program = """
import random, signal, sys, time
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.types import Insert

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
dice, met = random.Random(0), 0
with PostgresMemoryStore(sys.argv[1], max_size=2) as store:
    store.put(("a",), "k", {})
    for n in range(60):
        batch = [Insert(key=f"{n} {i}", text="note") for i in range(30 if n % 2 else 60)]
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0005, 0.03))
                store.apply(("a",), batch)
                store.recall(("a",), "note", k=3)
            finally:  # it may be interrupted as well
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            met += 1
    store.put(("a",), "k", {})
    until = time.monotonic() + 30  # a connection that is still being made counts as well
    stats = store._database._pool.get_stats()
    while stats["pool_available"] != stats["pool_size"] and time.monotonic() < until:
        time.sleep(0.05)
        stats = store._database._pool.get_stats()
    assert stats["pool_available"] == stats["pool_size"] >= 1, stats
    assert met > 10, met
"""
    done = subprocess.run(
        [sys.executable, "-c", program, dsn], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    sizes = Counter(key.split()[0] for key in versions(dsn) if key != "k")
    assert {(int(n) % 2, size) for n, size in sizes.items()} <= {(0, 60), (1, 30)}


async def test_cancelled_tasks_leave_whole_batches_and_no_connection_behind(dsn: str) -> None:
    """Cancelled once, or again while they put away what they had begun."""
    dice = random.Random(0)
    async with AsyncPostgresMemoryStore(dsn, max_size=3) as store:
        await store.aput(ADA, "k", {})

        async def one(n: int) -> None:
            batch = [Insert(key=f"{n} {i}", text="note") for i in range(30 if n % 2 else 60)]

            async def work() -> Receipts:
                await store.arecall(ADA, "note", k=3)
                return await store.aapply(ADA, batch)

            task = asyncio.create_task(work())
            for _ in range(dice.randint(1, 3)):
                await asyncio.sleep(dice.uniform(0, 0.02))
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for start in range(0, 96, 8):
            await asyncio.gather(*(one(n) for n in range(start, start + 8)))
        await store.aput(ADA, "k", {})
        assert store._database._pool is not None
        for _ in range(400):  # some are still being replaced
            if store._database._pool.get_stats()["pool_available"] == store._database._pool.max_size:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail(f"not all connections came back: {store._database._pool.get_stats()}")
    sizes = Counter(key.split()[0] for key in versions(dsn) if key != "k")
    assert {(int(n) % 2, size) for n, size in sizes.items()} <= {(0, 60), (1, 30)}
