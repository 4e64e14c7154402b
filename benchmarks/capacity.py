"""How many memories a machine holds and answers for: constants measured here, computed up to 1,000 million.

Measured: bytes a memory of each table and index, on texts of a conversation's length; the milliseconds of
processor that one recall, one search and one write take in the server and in the client. Computed, hence
extrapolated: everything in the table of sizes. The assumptions are printed with it.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from corpus import Corpus, Given, build
from measure import WIDTH, fresh_server, machine, report, server_settings, table
from peers import insert
from rich.console import Console

from memgraph_plugin.store.postgres import PostgresMemoryStore

SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
SCHEMA = "memgraph_plugin"
ROWS = ("memory: rows", "memory: values kept beside")

ASSUMPTIONS = """\
Assumed: every user has {user:,} memories, written in sessions of {session} and never changed, so one line of
history for each. Disk is what was measured a memory, times {slack:.1f} for dead rows and free space, without
WAL, replicas and backups. {active:.0%} of the users come in a day; the working set is every page that has a
row of theirs ({pages:.1f} of a user's rows lie on a page; it holds {on_a_page:.1f}), and as much of the
indexes. Cores are for {rate:,} recalls a second at {load:.0%} load, from the processor milliseconds above,
with all that is read in memory; clients may run on other machines.
Nothing was run beyond {rows:,} memories: the rest is extrapolated. What a recall costs depends on how many
memories its user has and not on how many there are, as long as they are in memory; the key's index grows from
{levels} levels to about five. Past one machine, divide by the shards (docs/scale.md)."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Bytes a memory by part, processor milliseconds by call and side, memories one writer wrote a second."""

    dimension: int
    bytes_: dict[str, float]
    processor: dict[str, dict[str, float]]
    written: float
    pages: float
    levels: int

    @property
    def whole(self) -> float:
        return sum(self.bytes_.values())

    @property
    def rows(self) -> float:
        return sum(size for part, size in self.bytes_.items() if part in ROWS)

    @property
    def searched(self) -> float:
        """What recall reads: the rows, and the indexes beside them."""
        return sum(size for part, size in self.bytes_.items() if part.startswith("memory: "))


def measure(dsn: str, corpus: Corpus, dimension: int, questions: int) -> Constants:
    vectors: dict[str, Any] = {question.text: question.vector for question in corpus.questions}
    with PostgresMemoryStore(dsn, embeddings=Given(vectors, dimension)) as store:
        store.setup()
        start = time.perf_counter()
        for turns in corpus.sessions():
            store.apply(turns[0].namespace, [insert(turn) for turn in turns])
        written = len(corpus.turns) / (time.perf_counter() - start)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")
            bytes_ = {part: size / len(corpus.turns) for part, size in _sizes(conn)}
            pages = _pages(conn, ".".join(corpus.questions[0].namespace))
            levels = _levels(conn)
        sessions = list(corpus.sessions())
        asked = corpus.questions * (questions // len(corpus.questions) + 1)
        processor = {
            "recall": _processor(dsn, lambda i: store.recall(asked[i].namespace, asked[i].text), questions),
            "search": _processor(
                dsn, lambda i: store.search(asked[i].namespace, query=asked[i].text), questions
            ),
            "apply of one": _processor(
                dsn,
                lambda i: store.apply(("written", str(i)), [insert(corpus.turns[i])]),
                min(questions, len(corpus.turns)),
            ),
            f"apply of {corpus.session}": _processor(
                dsn,
                lambda i: store.apply(("written", "whole", str(i)), [insert(turn) for turn in sessions[i]]),
                min(questions, len(sessions)),
            ),
        }
    return Constants(dimension, bytes_, processor, written, pages, levels)


def _sizes(conn: psycopg.Connection) -> Iterator[tuple[str, float]]:
    """Bytes of each table, of what is kept beside it (TOAST) and of each index."""
    look = """
        WITH mine AS (
            SELECT oid, relname, coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) AS beside
            FROM pg_class WHERE relkind = 'r' AND relnamespace = %s::regnamespace
        )
        SELECT relname || ': rows', pg_table_size(oid) - beside FROM mine
        UNION ALL SELECT relname || ': values kept beside', beside FROM mine
        UNION ALL SELECT relname || ': ' || indexrelid::regclass::text, pg_relation_size(indexrelid)
        FROM mine JOIN pg_index ON indrelid = oid
    """
    for part, size in conn.execute(look, [SCHEMA]).fetchall():
        if size > 100_000:  # not the tables of a row or two
            yield part, float(size)


def _pages(conn: psycopg.Connection, namespace: str) -> float:
    """Rows of one user on each page that has any."""
    look = (
        f"SELECT count(*)::float8 / count(DISTINCT (ctid::text::point)[0]) FROM {SCHEMA}.memory "
        "WHERE namespace = %s"
    )
    return float((conn.execute(look.encode(), [namespace]).fetchone() or (1,))[0])


def _levels(conn: psycopg.Connection) -> int:
    """Pages from the root of the key's index to a row's entry."""
    conn.execute("CREATE EXTENSION IF NOT EXISTS pageinspect")
    found = conn.execute(f"SELECT level + 1 FROM bt_metap('{SCHEMA}.memory_pkey')".encode()).fetchone()
    return int(found[0]) if found else 0


def _processor(dsn: str, call: Callable[[int], object], times: int) -> dict[str, float]:
    """Milliseconds of processor that one call takes on either side, and that it lasts."""
    for i in range(min(20, times)):
        call(i)
    with psycopg.connect(dsn) as conn:
        before, own = _server_seconds(conn), resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        for i in range(times):
            call(i)
        lasted = time.perf_counter() - start
        after, later = _server_seconds(conn), resource.getrusage(resource.RUSAGE_SELF)
    client = later.ru_utime + later.ru_stime - own.ru_utime - own.ru_stime
    return {
        "server": (after - before) / times * 1e3,
        "client": client / times * 1e3,
        "lasts": lasted / times * 1e3,
    }


def _server_seconds(conn: psycopg.Connection) -> float:
    """Processor seconds so far of this server's backends, which run on this machine."""
    look = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    total = 0
    for (pid,) in conn.execute(look).fetchall():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def extrapolate(
    measured: Constants, user: int, active: float, rate: int, load: float, slack: float
) -> list[dict[str, float]]:
    """What SIZES of memories take: see ASSUMPTIONS."""
    seconds = sum(measured.processor["recall"][side] for side in ("server", "client")) / 1e3
    index = measured.searched - measured.rows
    read = min(1.0, active * 8192 / measured.rows / measured.pages)
    return [
        {
            "memories": size,
            "users": size / user,
            "disk_gb": size * measured.whole * slack / 1e9,
            "searched_gb": size * measured.searched * slack / 1e9,
            "working_set_gb": size * (measured.rows * read + index * active) * slack / 1e9,
            "cores": rate * seconds / load,
            "client_cores": rate * measured.processor["recall"]["client"] / 1e3 / load,
        }
        for size in SIZES
    ]


def main() -> None:
    options = _options()
    console, show = Console(width=WIDTH), Console(stderr=True).log
    result: dict[str, Any] = {"benchmark": "capacity", "machine": machine(), "data": [], "capacity": []}
    with fresh_server() as dsn:
        result["server"] = server_settings(dsn)
        for dimension in options.dimensions:
            show(f"{options.rows:,} memories of {dimension} dimensions")
            users = options.rows // options.user
            corpus = build(options.rows, users, 100, 1, options.data, dimension=dimension)
            result["data"].append(corpus.description)
            name = f"capacity_{dimension}"
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(f"CREATE DATABASE {name}".encode())
            there = psycopg.conninfo.make_conninfo(dsn, dbname=name)
            measured = measure(there, corpus, dimension, options.questions)
            how = (options.user, options.active, options.rate, options.load, options.slack)
            result["capacity"].append({"measured": asdict(measured), "computed": extrapolate(measured, *how)})
            result["assumptions"] = ASSUMPTIONS.format(
                user=options.user,
                session=corpus.session,
                slack=options.slack,
                active=options.active,
                pages=measured.pages,
                on_a_page=8192 / measured.rows,
                rate=options.rate,
                load=options.load,
                rows=options.rows,
                levels=measured.levels,
            )
    report(console, result, list(_tables(result, options.rate)), options.output)
    console.print(result["assumptions"], highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000, help="memories to measure on")
    parser.add_argument("--user", type=int, default=100, help="memories of each user")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--active", type=float, default=0.1, help="share of the users active in a day")
    parser.add_argument("--rate", type=int, default=1_000, help="recalls a second")
    parser.add_argument("--load", type=float, default=0.6, help="of the cores, to plan with")
    parser.add_argument("--slack", type=float, default=1.3, help="of disk, over what was measured")
    parser.add_argument(
        "--data", type=Path, help="texts and questions of this LoCoMo JSON, not generated ones"
    )
    parser.add_argument("--output", type=Path, help="write everything as JSON")
    return parser.parse_args()


def _tables(result: dict[str, Any], rate: int) -> Iterator[Any]:
    for each in result["capacity"]:
        measured, computed = each["measured"], each["computed"]
        named = f"{measured['dimension']:,} dimensions"
        parts = sorted(measured["bytes_"].items(), key=lambda part: -part[1])
        total = sum(size for _, size in parts)
        rows = [[part, f"{size:,.0f}", f"{size / total:.0%}"] for part, size in [*parts, ("all", total)]]
        yield table(f"Measured, {named}: bytes a memory", ["", "bytes", ""], rows)
        rows = [
            [call, *(f"{times[side]:.2f}" for side in ("server", "client", "lasts"))]
            for call, times in measured["processor"].items()
        ]
        title = (
            f"Measured, {named}: processor milliseconds a call, one caller\n"
            f"(who wrote {measured['written']:,.0f} memories a second, session by session)"
        )
        yield table(title, ["", "server", "client", "lasts (ms)"], rows)
        rows = [
            [
                f"{row['memories']:,.0f}",
                f"{row['users']:,.0f}",
                *(_gigabytes(row[column]) for column in ("disk_gb", "searched_gb", "working_set_gb")),
                f"{row['cores']:,.1f}",
                f"{row['client_cores']:,.1f}",
            ]
            for row in computed
        ]
        columns = ["memories", "users", "disk", "of it searched", "working set"]
        columns += [f"cores for {rate:,}/s", "of them clients'"]
        yield table(f"Extrapolated, {named}", columns, rows)


def _gigabytes(size: float) -> str:
    return f"{size:,.1f} GB" if size < 1_000 else f"{size / 1e3:,.1f} TB"


if __name__ == "__main__":
    main()
