"""Rounds of kill -9, of the server and of its clients, amid a mixed load: what is left must be whole.

Every client notes what it is about to write, and that the store said it was written, in a file that outlives
it. After each round the server is started again, and everything ever written is compared with those notes.
Exit status 1: something was lost, written twice, written in part, or left without what belongs to it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
from langgraph.store.base import PutOp
from measure import machine, report, server_settings, table
from rich.console import Console

from memgraph_plugin.errors import StoreError
from memgraph_plugin.store.embedded import EmbeddedPostgres
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, Operation, Update

SPACES = (("a",), ("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("c",))
SHARED = "shared"
"""A key that every client writes, in every namespace."""

LANES = 4
"""Threads, or tasks, of a client."""

KILLED = ("postmaster", "whole server", "one backend", "clients", "clients and postmaster")

BROKEN = {
    "version without its batch": """
        SELECT count(*) FROM memory_version LEFT JOIN operation_batch AS b USING (namespace, batch_id)
        WHERE b.batch_id IS NULL""",
    "memory that is not its newest version": """
        SELECT count(*) FROM memory AS m LEFT JOIN newest AS v USING (namespace, key)
        WHERE v.operation IS NULL OR v.operation = 'delete'
            OR (m.version, m.value, m.text, m.kind, m.updated_at)
                IS DISTINCT FROM (v.version, v.value, v.text, v.kind, v.recorded_at)""",
    "newest version without its memory": """
        SELECT count(*) FROM newest LEFT JOIN memory AS m USING (namespace, key)
        WHERE operation <> 'delete' AND m.key IS NULL""",
    "memory with a gap in its versions": """
        SELECT count(*) FROM (SELECT FROM memory_version GROUP BY namespace, key
            HAVING min(version) <> 1 OR max(version) <> count(*)) AS gap""",
    "receipt without its version": """
        SELECT count(*) FROM receipt LEFT JOIN memory_version AS v USING (namespace, batch_id, key, version)
        WHERE status = 'applied' AND v.key IS NULL""",
    "version without its receipt": """
        SELECT count(*) FROM memory_version LEFT JOIN receipt AS r USING (namespace, batch_id, key, version)
        WHERE r.status IS DISTINCT FROM 'applied'""",
    "batch without receipts": "SELECT count(*) FROM operation_batch WHERE receipts = '[]'",
}
"""What may not be, by name; each counts how often it is."""

VIEWS = """
CREATE TEMP VIEW newest AS
    SELECT DISTINCT ON (namespace, key) * FROM memory_version ORDER BY namespace, key, version DESC;
CREATE TEMP VIEW receipt AS
    SELECT namespace, batch_id, r.* FROM operation_batch,
        jsonb_to_recordset(receipts) AS r (key text, version integer, status text)"""


@dataclass(frozen=True, slots=True)
class Write:
    """One write: what it is called in the notes, and in every version that it makes."""

    name: str
    kind: str
    spaces: tuple[int, ...]
    size: int
    keyed: bool

    @property
    def versions(self) -> int:
        return len(self.spaces) * self.size

    def operations(self) -> list[Operation]:
        """Of `apply`."""
        value = {"token": self.name}
        keys = [None if self.kind == "keyless" else f"{self.name}-{i}" for i in range(self.size)]
        made: list[Operation] = [
            Insert(key=k, text=f"note of {k}", value=value, reason=self.name) for k in keys
        ]
        if self.kind == "delete":
            return [Delete(key=f"{self.name.removesuffix('-deleted')}-0", reason=self.name)]
        if self.kind == "mixed":
            made[-1] = Update(key=SHARED, text=f"said by {self.name}", value=value, reason=self.name)
        return made

    def puts(self) -> list[PutOp]:
        value = {"token": self.name, "text": f"note of {self.name}"}
        keys = [SHARED, *(f"{self.name}-{i}" for i in range(1, self.size))]
        return [PutOp(SPACES[space], key, value) for space in self.spaces for key in keys]


def draw(dice: random.Random, name: str) -> Write:
    """The next write of a client."""
    kind = dice.choice(("mixed", "mixed", "mixed", "put", "put", "put", "keyless", "bulk", "delete"))
    if kind == "put":
        spaces = tuple(dice.sample(range(len(SPACES)), dice.randint(1, 3)))  # in any order
        return Write(name, kind, spaces, dice.randint(1, 3), keyed=False)
    size = {"bulk": dice.randint(60, 150), "delete": 1}.get(kind, dice.randint(1, 5))
    keyed = kind == "mixed" or dice.random() < 0.5
    return Write(name, kind, (dice.randrange(len(SPACES)),), size, keyed)


# A client.


class Notes:
    """A file of one line for each thing that was begun, done, or failed; kept by the system, not by us."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, word: str, write: Write, error: BaseException | None = None) -> None:
        fields = [word, write.name, write.kind, write.spaces, write.size, write.keyed]
        os.write(self._file, (json.dumps([*fields, repr(error) if error else ""]) + "\n").encode())


def client(dsn: str, path: Path, name: str, begun: list[Write]) -> None:
    """Write until killed. `begun`: what earlier clients began with a key, and nobody said was done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    notes, embeddings = Notes(path), HashingEmbeddings(dimensions=32)
    if "async" in name:
        asyncio.run(_tasks(AsyncPostgresMemoryStore(dsn, embeddings=embeddings), notes, name, begun))
    else:
        store = PostgresMemoryStore(dsn, embeddings=embeddings)
        for lane in range(LANES):
            Thread(target=_thread, args=(store, notes, f"{name}-{lane}", begun)).start()


def _writes(name: str, begun: list[Write]) -> Iterator[Write]:
    dice = random.Random(name)
    yield from dice.sample(begun, min(len(begun), 3))
    for number in itertools.count():
        write = draw(dice, f"{name}-{number}")
        if write.kind == "delete":
            yield Write(write.name, "insert", write.spaces, 1, write.keyed)
            write = Write(f"{write.name}-deleted", "delete", write.spaces, 1, write.keyed)
        yield write


def _thread(store: PostgresMemoryStore, notes: Notes, name: str, begun: list[Write]) -> None:
    for write in _writes(name, begun):
        notes.write("begun", write)
        try:
            if write.kind == "put":
                store.batch(write.puts())
            else:
                key = write.name if write.keyed else None
                done = store.apply(SPACES[write.spaces[0]], write.operations(), idempotency_key=key)
                write = replace(write, size=len(done.applied))
                store.recall(SPACES[write.spaces[0]], "note", k=3)
        except StoreError as error:
            notes.write("failed", write, error)
            time.sleep(0.05)
        except BaseException as error:
            notes.write("foreign error", write, error)
            raise
        else:
            notes.write("done", write)


async def _tasks(store: AsyncPostgresMemoryStore, notes: Notes, name: str, begun: list[Write]) -> None:
    await asyncio.gather(*(_task(store, notes, f"{name}-{lane}", begun) for lane in range(LANES)))


async def _task(store: AsyncPostgresMemoryStore, notes: Notes, name: str, begun: list[Write]) -> None:
    for write in _writes(name, begun):
        notes.write("begun", write)
        try:
            if write.kind == "put":
                await store.abatch(write.puts())
            else:
                key = write.name if write.keyed else None
                done = await store.aapply(SPACES[write.spaces[0]], write.operations(), idempotency_key=key)
                write = replace(write, size=len(done.applied))
                await store.arecall(SPACES[write.spaces[0]], "note", k=3)
        except StoreError as error:
            notes.write("failed", write, error)
            await asyncio.sleep(0.05)
        except BaseException as error:
            notes.write("foreign error", write, error)
            raise
        else:
            notes.write("done", write)


# The rounds.


@dataclass
class Found:
    """What all rounds together came to."""

    rounds: Counter[str] = field(default_factory=Counter)
    recovered: list[float] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)


def run(rounds: int, clients: int, writes: int, seed: int, show: Callable[[str], None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="memgraph-plugin-crash-") as folder:
        server = EmbeddedPostgres(Path(folder) / "data")
        try:
            dsn = server.ensure()
            with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(dimensions=32)) as store:
                store.setup()
                store.batch([PutOp(space, SHARED, {"text": "nothing yet"}) for space in SPACES])
            found, notes = Found(), Path(folder) / "notes"
            dice = random.Random(seed)
            for number in range(rounds):
                killed = KILLED[number % len(KILLED)]
                started = _round(server, notes, f"{seed}-{number}", killed, clients, writes, dice)
                found.rounds[killed] += 1
                found.recovered.append(started)
                _check(dsn, notes, found)
                show(
                    f"round {number + 1}: {killed}, back after {started:.2f} s; {found.counts['done']} done, "
                    f"{found.counts['in doubt']} in doubt, violations: {dict(found.violations) or 'none'}"
                )
                if found.violations:
                    break
            settings = server_settings(dsn)
        finally:
            server.stop()
    return {
        "rounds": dict(found.rounds),
        "clients": clients,
        "lanes": LANES,
        "calls": dict(found.notes),
        "errors": dict(found.errors),
        "recovered_s": found.recovered,
        **found.counts,
        "violations": dict(found.violations),
        "server": settings,
    }


def _round(
    server: EmbeddedPostgres,
    notes: Path,
    name: str,
    killed: str,
    clients: int,
    writes: int,
    dice: random.Random,
) -> float:
    """Let clients write, kill, start the server again; the seconds until it answered."""
    made = [f"{name}-{'async' if n % 2 else 'sync'}-{n}" for n in range(clients)]
    begun = [write for write in _in_doubt(notes).values() if write.keyed][-20:]
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=client, args=(server.dsn, notes, each, begun)) for each in made]
    for process in running:
        process.start()
    _wait_for(notes, dice.randint(writes // 2, writes))
    if "clients" in killed:
        _kill(running)
    if killed != "clients":
        _kill_server(server, killed, dice)
    began = time.monotonic()
    server.ensure()
    back = time.monotonic() - began
    if "clients" not in killed:
        _wait_for(notes, dice.randint(writes // 2, writes))  # they go on, on a server that came back
    _kill(running)
    return back


def _wait_for(notes: Path, calls: int) -> None:
    """Until so many more calls are done; with an end, should they hang."""
    already, until = _done(notes), time.monotonic() + 30
    while _done(notes) < already + calls and time.monotonic() < until:
        time.sleep(0.01)


def _done(notes: Path) -> int:
    return notes.read_bytes().count(b'["done"') if notes.exists() else 0


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _kill_server(server: EmbeddedPostgres, killed: str, dice: random.Random) -> None:
    postmaster = server.status().pid
    assert postmaster is not None
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    if killed == "one backend":
        with psycopg.connect(server.dsn) as conn:
            mine = conn.info.backend_pid
            look = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> %s"
            victims = [pid for (pid,) in conn.execute(look, [mine])]
    else:
        victims = [postmaster, *(map(int, children) if killed == "whole server" else ())]
    for pid in [dice.choice(victims)] if killed == "one backend" and victims else victims:
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGKILL)


def _read(notes: Path) -> Iterator[tuple[str, Write, str]]:
    """The lines of the notes: a word, the write, and the error if there was one."""
    for line in notes.read_text().splitlines() if notes.exists() else ():
        word, name, kind, spaces, size, keyed, error = json.loads(line)
        yield word, Write(name, kind, tuple(spaces), size, keyed), error


def _in_doubt(notes: Path) -> dict[str, Write]:
    """The writes that were begun, and of which nobody said that they were done."""
    words: dict[str, set[str]] = {}
    begun: dict[str, Write] = {}
    for word, write, _ in _read(notes):
        words.setdefault(write.name, set()).add(word)
        begun.setdefault(write.name, write)
    return {name: write for name, write in begun.items() if "done" not in words[name]}


def _check(dsn: str, notes: Path, found: Found) -> None:
    """Compare the database with the notes, and with itself."""
    with psycopg.connect(dsn) as conn:
        conn.execute("SET search_path = memgraph_plugin, public")
        conn.execute(VIEWS)
        for name, count in BROKEN.items():
            number = conn.execute(count).fetchone()
            found.violations[name] += number[0] if number else 0
        look = "SELECT coalesce(value->>'token', reason), count(*) FROM memory_version GROUP BY 1"
        there: dict[str, int] = dict(conn.execute(look).fetchall())
        for name in ("memory", "memory_version", "operation_batch"):
            number = conn.execute(f"SELECT count(*) FROM {name}").fetchone()
            found.counts[name] = number[0] if number else 0
    found.notes, found.errors, done = Counter(), Counter(), set()
    for word, write, error in _read(notes):
        found.notes[word] += 1
        found.errors[error[:100]] += bool(error)
        found.violations["error that is not the store's"] += word == "foreign error"
        if word == "done":
            done.add(write.name)
            found.violations["done, but lost"] += there.get(write.name, 0) < write.versions
        if word == "begun":
            found.violations["written twice"] += there.get(write.name, 0) > write.versions
    doubtful = _in_doubt(notes)
    for name, write in doubtful.items():
        found.violations["written in part"] += there.get(name, 0) not in (0, write.versions)
    found.counts |= {
        "done": len(done),
        "in doubt": len(doubtful),
        "in doubt, and there": len(doubtful.keys() & there.keys()),
    }
    found.violations, found.errors = +found.violations, +found.errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clients", type=int, default=4, help=f"processes, of {LANES} threads or tasks each")
    parser.add_argument("--writes", type=int, default=200, help="before each kill, and after it, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    given = parser.parse_args()
    console = Console()
    here = machine()
    result = run(given.rounds, given.clients, given.writes, given.seed, lambda line: print(line, flush=True))
    result |= {"machine": here, "data": f"{given.clients} clients of {LANES} lanes, seed {given.seed}"}
    rows = [
        *((f"rounds: kill -9 {name}", str(count)) for name, count in result["rounds"].items()),
        *((f"calls {word}", str(count)) for word, count in result["calls"].items()),
        *((f"writes {name}", str(result[name])) for name in ("done", "in doubt", "in doubt, and there")),
        *((name, str(result[name])) for name in ("memory", "memory_version", "operation_batch")),
        ("slowest start of the server, s", f"{max(result['recovered_s']):.2f}"),
        *((f"error: {name}", str(count)) for name, count in Counter(result["errors"]).most_common(8)),
        *((f"VIOLATION: {name}", str(count)) for name, count in result["violations"].items()),
        ("violations", str(sum(result["violations"].values()))),
    ]
    report(console, result, [table("Crashes", ["what", "count"], rows)], given.output)
    sys.exit(1 if result["violations"] else 0)


if __name__ == "__main__":
    main()
