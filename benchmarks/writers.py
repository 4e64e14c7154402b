"""Many writers of one memory, and of one namespace: that nothing is lost, and how many writes a second go.

Writers read a counter, add one, and write it with the version that they read, again until it still holds;
others put into one key without looking. Then the log must be whole: every version there, each the successor
of the one before, the last one the memory as it is. Keyed writers of one namespace take turns (an advisory
lock); what that costs shows beside writers of namespaces of their own. Exit status 1: something was lost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from langgraph.store.base import PutOp
from measure import fresh_server, machine, report, server_settings, table
from rich.console import Console

from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.types import Insert, Operation, Update

SPACE = ("counters",)
PROCESSES = 4


def increment(store: PostgresMemoryStore, writer: int, updates: int) -> None:
    """Count up by `updates`, one at a time, with everybody else."""
    dice = random.Random(writer)
    for _ in range(updates):
        pause = 0.002
        while True:
            [item] = [hit.memory for hit in store.recall(SPACE, "", k=1, filter={"counter": True})]
            now = item.value["n"] + 1
            step = Update(
                key="counter", text=str(now), value={"counter": True, "n": now}, version=item.version
            )
            if store.apply(SPACE, [step]).applied:
                break
            time.sleep(dice.uniform(0, pause))
            pause = min(pause * 2, 0.25)


def put(store: PostgresMemoryStore, writer: int, updates: int) -> None:
    """Write one key without looking."""
    for i in range(updates):
        store.put(SPACE, "put", {"writer": writer, "i": i})


def together(
    dsn: str, work: Callable[[PostgresMemoryStore, int, int], None], writers: int, updates: int
) -> float:
    """Seconds that so many writers take, in several processes where there are many."""
    processes = min(PROCESSES, writers)
    fork = multiprocessing.get_context("fork")
    mine = [range(first, writers, processes) for first in range(processes)]
    gate = fork.Barrier(processes + 1)
    started = [fork.Process(target=_threads, args=(dsn, work, each, updates, gate)) for each in mine]
    for process in started:
        process.start()
    gate.wait()
    began = time.perf_counter()
    for process in started:
        process.join()
        if process.exitcode:
            sys.exit("a writer failed")
    return time.perf_counter() - began


def _threads(
    dsn: str, work: Callable[[PostgresMemoryStore, int, int], None], writers: range, updates: int, gate: Any
) -> None:
    failed: list[BaseException] = []

    def one(store: PostgresMemoryStore, writer: int) -> None:
        try:
            work(store, writer, updates)
        except BaseException as error:
            failed.append(error)
            raise

    with PostgresMemoryStore(dsn, max_size=len(writers)) as store:
        store.get(SPACE, "open")
        gate.wait()
        threads = [Thread(target=one, args=(store, writer)) for writer in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.exit(1 if failed else 0)


def check(dsn: str, writers: int, updates: int) -> list[str]:
    """What is wrong with the two memories that all wrote."""
    wrong = []
    with PostgresMemoryStore(dsn) as store:
        for key, first in (("counter", 1), ("put", 0)):
            lines = store.history(SPACE, key)
            if [line.version for line in lines] != list(range(1, writers * updates + first + 1)):
                wrong.append(f"{key}: {len(lines)} versions, of {writers * updates + first}")
            replayed = InMemoryMemoryStore()
            for line in lines:
                assert line.memory is not None
                written = {"key": key, "text": line.memory.text, "value": line.memory.value}
                step: Operation = Insert(**written) if line.version == 1 else Update(**written)
                replayed.apply(SPACE, [step])
            then, now = replayed.get(SPACE, key), store.get(SPACE, key)
            if then is None or now is None or then.value != now.value:
                wrong.append(f"{key}: its history does not lead to what it is")
        counted = [line.memory.value["n"] for line in store.history(SPACE, "counter") if line.memory]
        if counted != list(range(writers * updates + 1)):
            wrong.append(f"counter: {counted[-1]} of {writers * updates} increments")
        said = {(line.memory.value["writer"], line.memory.value["i"]) for line in lines if line.memory}
        if len(said) != writers * updates:
            wrong.append(f"put: {len(said)} of {writers * updates} writes")
    return wrong


def throughput(dsn: str, writers: int, updates: int, *, apart: bool) -> float:
    """Writes a second of writers that each name keys of their own, in one namespace or each in their own."""

    def work(store: PostgresMemoryStore, writer: int, updates: int) -> None:
        space = ("pace", f"{writer}") if apart else ("pace", "one")
        for i in range(updates):
            store.batch([PutOp(space, f"{writer} {i % 10}", {"text": f"note {i}"})])

    return writers * updates / together(dsn, work, writers, updates)


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--updates", type=int, default=200, help="of each writer")
    parser.add_argument("--pace", type=int, default=600, help="writes for each figure of throughput")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    here = machine()
    with fresh_server() as dsn:
        with PostgresMemoryStore(dsn) as store:
            store.setup()
            store.apply(SPACE, [Insert(key="counter", text="0", value={"counter": True, "n": 0})])
        counting = together(dsn, increment, given.writers, given.updates)
        putting = together(dsn, put, given.writers, given.updates)
        wrong = check(dsn, given.writers, given.updates)
        pace = {
            f"{writers} writers, {'a namespace each' if apart else 'one namespace'}": throughput(
                dsn, writers, max(1, given.pace // writers), apart=apart
            )
            for apart in (False, True)
            for writers in (1, 8, 32)
        }
        settings = server_settings(dsn)
    total = given.writers * given.updates
    result = {
        "machine": here,
        "server": settings,
        "data": f"{given.writers} writers, {given.updates} updates each",
        "increments_per_s": total / counting,
        "puts_per_s": total / putting,
        "writes_per_s": pace,
        "wrong": wrong,
    }
    rows = [
        (f"increments of one memory, {given.writers} writers", f"{total / counting:,.0f}"),
        (f"puts of one key, {given.writers} writers", f"{total / putting:,.0f}"),
        *((name, f"{rate:,.0f}") for name, rate in pace.items()),
        *((f"WRONG: {line}", "") for line in wrong),
    ]
    report(Console(), result, [table("Writers", ["what", "a second"], rows)], given.output)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
