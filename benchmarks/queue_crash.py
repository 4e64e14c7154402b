"""kill -9 of workers and of the database, amid jobs that decide on what was said: none lost, none done twice.

Conversations of several users are submitted, and the server is killed once amid that. Then workers begin, and
every so many jobs one of them, or the whole server, is killed while jobs are at work, and started again. In
the end each sentence must have made its one memory, by one version, in the order in which it was said, and no
job may be left. Exit status 1: something is missing, or there twice.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg
from langchain_core.messages import AnyMessage, HumanMessage
from measure import machine, report, server_settings, table
from rich.console import Console

from memgraph_plugin.durable import QueueWriter, setup
from memgraph_plugin.errors import StoreError
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.nodes.decide import DECIDING
from memgraph_plugin.nodes.scope import Scope
from memgraph_plugin.nodes.submit import hand_over
from memgraph_plugin.store.embedded import EmbeddedPostgres
from memgraph_plugin.store.jobs import jobs_by_status
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Memory, Operation, Turn
from memgraph_plugin.working import work

SCHEMA = "memgraph_plugin"
USERS = 8
WORKERS = 2
STALLED = 2.0
"""Seconds, here; the default is 30."""


class Slow(RulePolicy):
    """Rules that take as long as a quick model."""

    async def apropose(self, turns: list[Turn], memories: list[Memory]) -> list[Operation]:  # type: ignore[override]
        await asyncio.sleep(0.05)
        return await super().apropose(turns, memories)


def worker(dsn: str) -> None:
    """Work until killed."""
    logging.disable(logging.CRITICAL)

    async def run() -> None:
        async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings(dimensions=32)) as store:
            await work(dsn, SCHEMA, store, Slow, stalled=STALLED, attempts=50)

    while True:  # as whatever starts services would
        with suppress(StoreError):
            asyncio.run(run())
            return
        time.sleep(0.2)


def sentence(number: int) -> str:
    return f"My cat is called Tom{number}x."


def run(jobs: int, kills: int, seed: int) -> dict[str, Any]:
    dice = random.Random(seed)
    workers: list[BaseProcess] = []
    with tempfile.TemporaryDirectory(prefix="memgraph-plugin-queue-") as folder:
        server = EmbeddedPostgres(Path(folder) / "data")
        try:
            dsn = server.ensure()
            with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(dimensions=32)) as store:
                store.setup()
            setup(dsn, SCHEMA)
            began = time.monotonic()
            repeated = _submit(dsn, server, jobs)
            submitted = time.monotonic() - began
            for _ in range(WORKERS):
                workers.append(_started(dsn))
            cut = _disturb(dsn, server, workers, jobs, kills, dice)
            left = _left(dsn, 0, 120 + jobs)
            settled = time.monotonic() - began - submitted
            found, settings = _found(dsn, jobs), server_settings(dsn)
        finally:
            for process in workers:
                process.kill()
                process.join()
            server.stop()
    figures = {"jobs": jobs, "submitted_s": submitted, "settled_s": settled, "left": left}
    figures |= {"killed_workers": kills, "killed_databases": kills + 1, "repeated": repeated, "cut_off": cut}
    return figures | found | {"server": settings}


def _started(dsn: str) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=worker, args=(dsn,))
    process.start()
    return process


def _submit(dsn: str, server: EmbeddedPostgres, jobs: int) -> int:
    """Say everything, a conversation a sentence; how many submissions failed and were repeated."""
    repeated = 0
    with (
        PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(dimensions=32)) as store,
        QueueWriter(dsn, 0.1) as writer,
    ):
        for number in range(jobs):
            if number == jobs // 2:
                _kill(server)
                server.ensure()
            scope = Scope(store, ("user", str(number % USERS)), str(number), None, datetime.now(UTC), _silent)
            said: list[AnyMessage] = [HumanMessage(sentence(number), id=str(number))]
            while True:
                try:
                    hand_over(writer, scope, said, RulePolicy, DECIDING)
                    break
                except StoreError:
                    repeated += 1
                    time.sleep(0.05)
    return repeated


def _disturb(
    dsn: str, server: EmbeddedPostgres, workers: list[BaseProcess], jobs: int, kills: int, dice: random.Random
) -> int:
    """Kill workers and the server in turn as the jobs get fewer; how many jobs were at work just before."""
    cut = 0
    for number in range(2 * kills):
        _left(dsn, jobs - jobs * (number + 1) // (2 * kills + 1), 60 + jobs)
        cut += _count(dsn, "doing")
        if number % 2:
            _kill(server)
            server.ensure()
        else:
            victim = dice.randrange(WORKERS)
            workers[victim].kill()
            workers[victim].join()
            workers[victim] = _started(dsn)
    return cut


def _silent(_: Any) -> None:
    pass


def _kill(server: EmbeddedPostgres) -> None:
    """The postmaster and all of its processes, at once."""
    postmaster = server.status().pid
    assert postmaster is not None
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _left(dsn: str, most: int, seconds: float) -> int:
    """Until no more jobs than that are left; how many are, then or at the end of patience."""
    until = time.monotonic() + seconds
    while (left := _count(dsn, "todo", "doing", "failed")) > most and time.monotonic() < until:
        time.sleep(0.02)
    return left


def _count(dsn: str, *statuses: str) -> int:
    with psycopg.connect(dsn) as conn:
        by_status = jobs_by_status(conn, SCHEMA) or {}
    return sum(by_status.get(status, 0) for status in statuses)


def _found(dsn: str, jobs: int) -> dict[str, int]:
    """What became of each sentence: it has one fact, of one version, decided on after those before it."""
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "SELECT namespace, text, key, version, operation FROM memgraph_plugin.memory_version "
            "WHERE kind = 'semantic' ORDER BY recorded_at, namespace"
        ).fetchall()
        turns = conn.execute(
            "SELECT count(*), count(DISTINCT key) FROM memgraph_plugin.memory_version WHERE kind = 'turn'"
        ).fetchone()
    made = {number: [row for row in rows if f"Tom{number}x" in row[1]] for number in range(jobs)}
    lost = sum(not each for each in made.values())
    twice = sum(len(each) > 1 for each in made.values())
    order = 0
    for user in range(USERS):
        said = [row[1] for row in rows if row[0] == f"user.{user}"]
        wanted = [number for number in range(user, jobs, USERS) if made[number]]
        decided = [next(n for n in wanted if f"Tom{n}x" in text) for text in said]
        order += decided != wanted
    assert turns is not None
    return {
        "lost": lost,
        "twice": twice,
        "order": order,
        "turns": turns[0],
        "turns_twice": turns[0] - turns[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=4, help="of a worker, and as many of the database")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    console, here = Console(), machine()
    result = run(given.jobs, given.kills, given.seed)
    result |= {"machine": here, "data": f"{USERS} users, {WORKERS} workers, seed {given.seed}"}
    rows = [
        ("jobs", str(result["jobs"])),
        ("kill -9 of a worker", str(result["killed_workers"])),
        ("kill -9 of the database", str(result["killed_databases"])),
        ("jobs at work when something was killed", str(result["cut_off"])),
        ("submissions repeated", str(result["repeated"])),
        ("turns stored", str(result["turns"])),
        ("all submitted after, s", f"{result['submitted_s']:.1f}"),
        ("all decided on after another, s", f"{result['settled_s']:.1f}"),
        ("jobs left", str(result["left"])),
        ("turns lost", str(result["jobs"] - result["turns"])),
        ("lost", str(result["lost"])),
        ("applied twice", str(result["twice"] + result["turns_twice"])),
        ("namespaces out of order", str(result["order"])),
    ]
    report(console, result, [table("The queue", ["what", "count"], rows)], given.output)
    bad = ("left", "lost", "twice", "turns_twice", "order")
    sys.exit(1 if any(result[each] for each in bad) else 0)


if __name__ == "__main__":
    main()
