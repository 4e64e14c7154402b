"""Many writers at once: nothing is lost, nothing is applied twice, nobody waits for nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from langgraph.store.base import PutOp

from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, Update
from tests.threads import at_once

ADA = ("memories", "ada")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def gaps(dsn: str) -> list[tuple[str, str]]:
    """Memories of which a version is missing, or that are not their newest version."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT namespace, key FROM memgraph_plugin.memory_version LEFT JOIN memgraph_plugin.memory AS m "
            "USING (namespace, key) GROUP BY namespace, key, m.version "
            "HAVING max(memory_version.version) <> count(*) OR m.version <> count(*)"
        ).fetchall()


def test_writers_of_one_memory_lose_nothing() -> None:
    """8 writers of 12 updates; `python benchmarks/writers.py` is 32 of 200."""
    command = [sys.executable, BENCHMARKS / "writers.py", "--writers", "8", "--updates", "12", "--pace", "32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_step_that_many_processes_repeat_is_done_once(dsn: str) -> None:
    """As LangGraph does with a node after a crash: the same operations under the same key."""
    program = """
import os, sys
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.types import Insert, Update

def work():
    with PostgresMemoryStore(sys.argv[1]) as store:
        for turn in range(10):
            first = [Insert(text=f"turn {turn}"), Insert(key=f"k{turn}", text="0")]
            done = store.apply(("a",), first, idempotency_key=f"{turn}")
            again = store.apply(("a",), [Insert(text="another reading")], idempotency_key=f"{turn}")
            assert again.replayed and again.batch_id == done.batch_id and again.receipts == done.receipts

children = []
for _ in range(6):
    if (pid := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
"""
    done = subprocess.run(
        [sys.executable, "-c", program, dsn], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with PostgresMemoryStore(dsn) as store:
        found = Counter(item.value["text"] for item in store.search(("a",), limit=100))
    assert found == {**{f"turn {turn}": 1 for turn in range(10)}, "0": 10}


async def test_32_writers_of_one_namespace_all_get_their_turn(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn, max_size=8) as store:

        async def work(n: int) -> None:
            for i in range(3):
                done = await store.aapply(ADA, [Insert(key=f"{n} {i}", text="own"), Insert(text="no key")])
                assert len(done.applied) == 2
                await store.aput(ADA, "shared", {"text": f"{n} {i}"})

        await asyncio.gather(*(work(n) for n in range(32)))
        assert [line.version for line in await store.ahistory(ADA, "shared")] == list(range(1, 97))
        assert len(await store.arecall(ADA, "", k=1_000)) == 32 * 3 * 2 + 1
    assert gaps(dsn) == []


def test_puts_into_namespaces_in_opposite_orders_do_not_wait_for_each_other(dsn: str) -> None:
    spaces = [("a",), ("b",), ("a", "1"), ("c",), ("b", "2")]

    def deadlocks() -> int:
        with psycopg.connect(dsn) as conn:
            conn.execute("SELECT pg_stat_clear_snapshot()")
            found = conn.execute(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            ).fetchone()
            assert found is not None
            return int(found[0])

    with PostgresMemoryStore(dsn) as store:

        def work(n: int) -> None:
            turned = spaces[n % 5 :] + spaces[: n % 5]
            for i in range(6):
                order = turned[:: 1 if n % 2 else -1]
                store.batch([PutOp(space, f"k{(n + i) % 3}", {"text": f"{n} {i}"}) for space in order])
                store.batch([PutOp(space, f"k{(n + i + 1) % 3}", None) for space in order[::2]])

        assert at_once(work, 12) == []
    assert gaps(dsn) == []
    assert deadlocks() == 0


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
def test_a_database_may_isolate_its_transactions_more_by_default(empty_dsn: str, isolation: str) -> None:
    dsn = empty_dsn
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L', "
            f"current_database(), '{isolation}'); END $$"
        )
    assert at_once(lambda _: PostgresMemoryStore(dsn).setup(), 4) == []  # at once, as workers begin
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(), max_size=12) as store:
        store.apply(ADA, [Insert(key="counter", text="0")])

        def work(n: int) -> None:
            for i in range(4):
                store.apply(ADA, [Update(key="counter", text=f"{n} {i}")], idempotency_key=f"{n // 2} {i}")
                store.batch(
                    [PutOp((space,), "k", {"text": f"{n}"}, ttl=5) for space in ("a", "b")[:: 1 - n % 2 * 2]]
                )
                assert store.get(("a",), "k", refresh_ttl=True)
                assert store.recall(ADA, f"{n}", k=3)
                store.apply(ADA, [Insert(key=f"{n} {i}", text="note")])
                store.apply(ADA, [Delete(key=f"{n} {i}")])

        assert at_once(work, 12) == []
        assert [line.version for line in store.history(ADA, "counter")] == list(range(1, 6 * 4 + 2))
    assert gaps(dsn) == []
