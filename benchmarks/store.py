"""The Postgres store beside a bare vector statement and four peers: search, recall, ingest, size.

One process and one fresh private Postgres with the package's own settings, everybody's tables in it.
Contenders answer the same questions in blocks, in an order that moves on each round; vectors are given.
`recall` does more work than the others, which rank by vectors alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from corpus import SESSION, Corpus, Given, Question, Turn, build
from measure import WIDTH, Spread, fresh_server, machine, percentile, report, server_settings, table
from peers import FLAT, HNSW, INDEXED, MODULES, Answer, K, Peer, bare, insert, installed
from psycopg.conninfo import make_conninfo
from rich.console import Console

from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore

BARE, SEARCH, RECALL, ARECALL = "bare statement", "ours: search", "ours: recall", "ours: arecall"
OURS = "ours: apply"
BLOCK = 2.0
"""Seconds of one contender in one round, about: a slow one is asked fewer questions, ten at least."""

Show = Callable[[str], None]
Timed = Callable[[str, Sequence[Question]], tuple[list[float], list[list[str]]]]


@contextmanager
def fresh_database(dsn: str) -> Iterator[str]:
    name = f"measured_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield make_conninfo(dsn, dbname=name)
        finally:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            conn.execute("CHECKPOINT")


# Search.


def measure_search(
    dsn: str, corpus: Corpus, peers: Sequence[type[Peer]], settings: Sequence[str], rounds: int, show: Show
) -> dict[str, Any]:
    """p50 and p95 of every contender, its ratios round by round, how many of the nearest ten it found."""
    vectors: dict[str, Any] = {turn.text: turn.vector for turn in next(corpus.sessions())}
    embeddings = Given(vectors | {question.text: question.vector for question in corpus.questions})
    with ExitStack() as opened:
        show("filling our tables")
        start = time.perf_counter()
        ours = opened.enter_context(PostgresMemoryStore(dsn, embeddings=embeddings))
        ours.setup()
        for turns in corpus.sessions():
            ours.apply(turns[0].namespace, [insert(turn) for turn in turns])
        filled = time.perf_counter() - start
        theirs = _fill_peers(opened, dsn, corpus, embeddings, peers, settings, show)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")
            conn.execute("CHECKPOINT")
        runner = opened.enter_context(asyncio.Runner())
        opened.callback(lambda: runner.run(async_ours.aclose()))
        async_ours = AsyncPostgresMemoryStore(dsn, embeddings=embeddings)
        answers: dict[str, Answer] = {
            BARE: opened.enter_context(bare(dsn)),
            SEARCH: lambda q: [item.key for item in ours.search(q.namespace, query=q.text, limit=K)],
            RECALL: lambda q: [hit.memory.key for hit in ours.recall(q.namespace, q.text, k=K)],
            **{name: peer.search for name, peer in theirs.items()},
        }

        def timed(name: str, questions: Sequence[Question]) -> tuple[list[float], list[list[str]]]:
            if name == ARECALL:
                return runner.run(_async_times(async_ours, questions))
            return _times(answers[name], questions)

        show("asking")
        result = _rounds(timed, [*answers, ARECALL], corpus, rounds)
        scans = _hnsw_scans(dsn)
    for name, peer in theirs.items():
        asked = result["contenders"][name]["asked"]
        result["contenders"][name]["hnsw_scans"] = scans.get(peer.schema, 0) / asked
    return {**result, "filling_ours_seconds": filled}


def _fill_peers(
    opened: ExitStack,
    dsn: str,
    corpus: Corpus,
    embeddings: Given,
    peers: Sequence[type[Peer]],
    settings: Sequence[str],
    show: Show,
) -> dict[str, Peer]:
    """Every peer in every setting that was asked for, filled, by name."""
    made: dict[str, Peer] = {}
    for kind in peers:
        alike: Peer | None = None
        for setting in [setting for setting in kind.settings if setting in settings]:
            show(f"filling {kind.__name__}: {setting}")
            schema = f"peer_{len(made)}"
            peer = made[f"{kind.__name__}: {setting}"] = kind(dsn, schema, embeddings, setting)
            opened.callback(peer.close)
            own = len(next(corpus.sessions()))
            same = alike is not None and alike.copied == peer.copied
            peer.fill(corpus.turns, own, alike if same else None)
            alike = alike or peer
    return made


def _rounds(timed: Timed, names: list[str], corpus: Corpus, rounds: int) -> dict[str, Any]:
    found, blocks = {}, {}
    for name in names:  # warms up as well
        warm, found[name] = timed(name, corpus.questions)
        fitting = int(BLOCK * 1e3 / statistics.median(warm))
        blocks[name] = corpus.questions[: max(10, fitting)]
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            gc.collect()
            times[name].append(timed(name, blocks[name])[0])
    medians = {name: [percentile(block, 50) for block in blocks] for name, blocks in times.items()}

    def ratio(above: str, below: str) -> dict[str, float]:
        return asdict(Spread.of([a / b for a, b in zip(medians[above], medians[below], strict=True)]))

    exact = _exact(corpus)
    return {
        "rounds": rounds,
        "contenders": {
            name: {
                "p50_ms": asdict(Spread.of(medians[name])),
                "p95_ms": asdict(Spread.of([percentile(block, 95) for block in times[name]])),
                "times_bare": ratio(name, BARE),
                "times_search": ratio(name, SEARCH),
                "times_recall": ratio(name, RECALL),
                "nearest": _share(found[name], exact),
                "short": sum(len(keys) < K for keys in found[name]),
                "asked": len(corpus.questions) + rounds * len(blocks[name]),
            }
            for name in names
        },
    }


def _share(found: list[list[str]], exact: list[list[str]]) -> float:
    """The mean share of the nearest ten that was found."""
    return statistics.mean(
        len(set(keys) & set(best)) / len(best) for keys, best in zip(found, exact, strict=True)
    )


def _times(answer: Answer, questions: Sequence[Question]) -> tuple[list[float], list[list[str]]]:
    """Milliseconds and keys, question by question."""
    times, found = [], []
    for question in questions:
        start = time.perf_counter()
        keys = answer(question)
        times.append((time.perf_counter() - start) * 1e3)
        found.append(keys)
    return times, found


async def _async_times(
    store: AsyncPostgresMemoryStore, questions: Sequence[Question]
) -> tuple[list[float], list[list[str]]]:
    times, found = [], []
    for question in questions:
        start = time.perf_counter()
        hits = await store.arecall(question.namespace, question.text, k=K)
        times.append((time.perf_counter() - start) * 1e3)
        found.append([hit.memory.key for hit in hits])
    return times, found


def _exact(corpus: Corpus) -> list[list[str]]:
    """The ten nearest by the vectors as they were given, in single precision."""
    wanted = {question.namespace for question in corpus.questions}
    mine: dict[tuple[str, ...], list[Turn]] = {}
    for turn in corpus.turns:
        if turn.namespace in wanted:
            mine.setdefault(turn.namespace, []).append(turn)
    exact = []
    for question in corpus.questions:
        turns = mine[question.namespace]
        cosines = np.stack([turn.vector for turn in turns]) @ np.array(question.vector, dtype=np.float32)
        exact.append([turns[i].key for i in np.argsort(-cosines)[:K]])
    return exact


def _hnsw_scans(dsn: str) -> dict[str, int]:
    """Scans of HNSW indexes so far, by schema; an idle connection tells up to ten seconds late."""
    time.sleep(11)
    look = (
        "SELECT s.schemaname, sum(s.idx_scan)::int FROM pg_stat_user_indexes AS s "
        "JOIN pg_class AS c ON c.oid = s.indexrelid JOIN pg_am AS a ON a.oid = c.relam "
        "WHERE a.amname = 'hnsw' GROUP BY 1"
    )
    with psycopg.connect(dsn) as conn:
        return dict(conn.execute(look).fetchall())


# Ingest.


def measure_ingest(
    dsn: str,
    corpus: Corpus,
    peers: Sequence[type[Peer]],
    settings: Sequence[str],
    singles: int,
    repeats: int,
    show: Show,
) -> dict[str, Any]:
    """Rows a second and bytes a row of each way to write, in fresh tables each time, taking turns."""
    # As lists from the start: turning arrays into lists is nobody's time either.
    embeddings = Given({turn.text: turn.vector.tolist() for turn in corpus.turns})
    contenders: dict[str, Any] = {OURS: None}
    contenders |= {
        f"{peer.__name__}: {setting}": (peer, setting)
        for peer in peers
        for setting in peer.settings
        if setting in settings
    }
    shapes = {"one by one": (corpus.turns[:singles], 1), "batches of 1,000": (corpus.turns, 1_000)}
    rates: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, dict[str, float]] = {}
    for repeat in range(repeats):
        start = repeat % len(contenders)
        for shape, (turns, batch) in shapes.items():
            for name in [*contenders][start:] + [*contenders][:start]:
                show(f"writing: {name}, {shape}, {repeat + 1} of {repeats}")
                seconds, size = _write(dsn, embeddings, turns, batch, contenders[name])
                rates.setdefault(shape, {}).setdefault(name, []).append(len(turns) / seconds)
                if batch > 1:
                    sizes[name] = {part: bytes_ / len(turns) for part, bytes_ in size.items()}
    return {
        "rows": len(corpus.turns),
        "singles": singles,
        "repeats": repeats,
        "rows_per_second": {
            shape: {
                name: {
                    **asdict(Spread.of(found)),
                    "ours_times_this": asdict(
                        Spread.of([a / b for a, b in zip(by_name[OURS], found, strict=True)])
                    ),
                }
                for name, found in by_name.items()
            }
            for shape, by_name in rates.items()
        },
        "bytes_per_row": sizes,
    }


def _write(
    dsn: str,
    embeddings: Given,
    turns: Sequence[Turn],
    batch: int,
    peer: tuple[type[Peer], str] | None,
) -> tuple[float, dict[str, int]]:
    """Seconds that all of them take, and bytes on disk; the tables are dropped."""
    schema = f"writing_{uuid.uuid4().hex[:8]}"
    batches = [turns[first : first + batch] for first in range(0, len(turns), batch)]
    with ExitStack() as opened:
        if peer is None:
            store = opened.enter_context(PostgresMemoryStore(dsn, embeddings=embeddings, db_schema=schema))
            store.setup()
            namespace = turns[0].namespace
            inserts = [[insert(turn) for turn in some] for some in batches]
            seconds = _seconds(lambda some: store.apply(namespace, some), inserts)
        else:
            kind, setting = peer
            theirs = kind(dsn, schema, embeddings, setting)
            opened.callback(theirs.close)
            theirs.index()
            seconds = _seconds(theirs.write, [theirs.prepare(some) for some in batches])
    return seconds, _size_then_drop(dsn, schema)


def _seconds(write: Callable[[Any], object], batches: Sequence[Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    for batch in batches:
        write(batch)
    return time.perf_counter() - start


def _size_then_drop(dsn: str, schema: str) -> dict[str, int]:
    """Bytes on disk of each table with its indexes and what is kept beside it."""
    look = (
        "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = %s::regnamespace"
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        size: dict[str, int] = dict(conn.execute(look, [schema]).fetchall())
        conn.execute(f"DROP SCHEMA {schema} CASCADE".encode())
        conn.execute("CHECKPOINT")
    return size


# In and out.


def main() -> None:
    options = _options()
    show = Console(stderr=True).log
    peers = [peer for peer in installed(show) if peer.__name__ in (options.peers or [peer.__name__])]
    result: dict[str, Any] = {"benchmark": "store", "machine": machine([p.package for p in peers])}
    result |= {"data": [], "search": []}
    with fresh_server() as server:
        result["server"] = server_settings(server)
        cases = [(rows, size) for rows in options.rows for size in options.size]
        for rows, size in cases if "search" in options.only else []:
            show(f"{rows:,} memories of users who have {size:,} each")
            corpus = build(rows, rows // size, options.questions, options.seed, options.data, options.session)
            result["data"].append(corpus.description)
            with fresh_database(server) as dsn:
                found = measure_search(dsn, corpus, peers, options.settings, options.rounds, show)
            result["search"].append({"rows": rows, "size": size, **found})
        if "ingest" in options.only:
            corpus = build(options.ingest, 1, 1, options.seed, options.data)
            result["data"].append(corpus.description)
            with fresh_database(server) as dsn:
                ingest = (options.settings, options.singles, options.repeats)
                result["ingest"] = measure_ingest(dsn, corpus, peers, *ingest, show)
    report(Console(width=WIDTH), result, list(_tables(result)), options.output)
    if options.plot is not None:
        plot(result["search"], options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000], help="memories in the table, in turn"
    )
    parser.add_argument("--size", type=int, nargs="+", default=[100, 1_000], help="memories of each user")
    parser.add_argument("--questions", type=int, default=50, help="asked in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--session", type=int, default=SESSION, help="turns of a user written at once")
    parser.add_argument("--peers", nargs="*", choices=[peer.__name__ for peer in MODULES], help="only these")
    parser.add_argument("--settings", nargs="+", choices=[HNSW, FLAT, INDEXED], default=[HNSW, FLAT, INDEXED])
    parser.add_argument("--ingest", type=int, default=5_000, help="memories written in the ingest benchmark")
    parser.add_argument("--singles", type=int, default=200, help="memories written one by one")
    parser.add_argument("--repeats", type=int, default=3, help="of each way to write")
    parser.add_argument("--only", nargs="+", choices=["search", "ingest"], default=["search", "ingest"])
    parser.add_argument(
        "--data", type=Path, help="texts and questions of this LoCoMo JSON, not generated ones"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write everything as JSON")
    parser.add_argument("--plot", type=Path, help="draw the search times (SVG or PNG; needs matplotlib)")
    return parser.parse_args()


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    for case in result["search"]:
        rows = [
            [
                name,
                *(Spread(**each[column]).show() for column in ("p50_ms", "p95_ms")),
                *(
                    Spread(**each[column]).show(1)
                    for column in ("times_bare", "times_search", "times_recall")
                ),
                f"{each['nearest']:.3f}",
                f"{each['short']}",
                f"{each['hnsw_scans']:.1f}" if "hnsw_scans" in each else "",
            ]
            for name, each in case["contenders"].items()
        ]
        title = (
            f"{case['rows']:,} memories, {case['size']:,} of each user; one question, ten answers: "
            f"median of {case['rounds']} rounds (lowest-highest). "
            f"Filling ours took {case['filling_ours_seconds']:.0f} s.\n"
            "nearest: share of the true nearest ten that was found (recall also ranks by words and sessions, "
            "and means another ten);\nshort: questions with fewer than ten answers; "
            "scans: of an HNSW index, a question."
        )
        columns = ["", "p50 ms", "p95 ms", "x bare", "x search", "x recall", "nearest", "short", "scans"]
        yield table(title, columns, rows)
    if ingest := result.get("ingest"):
        rows = [
            [
                shape,
                name,
                Spread(each["median"], each["low"], each["high"]).show(0),
                Spread(**each["ours_times_this"]).show(),
            ]
            for shape, by_name in ingest["rows_per_second"].items()
            for name, each in by_name.items()
        ]
        title = (
            f"{ingest['rows']:,} memories with given vectors ({ingest['singles']:,} one by one), "
            f"median of {ingest['repeats']} (lowest-highest)"
        )
        yield table(title, ["", "", "rows/s", "ours / this"], rows)
        sizes = [
            [
                name,
                f"{sum(parts.values()):,.0f}",
                ", ".join(f"{part} {size:,.0f}" for part, size in parts.items() if size > 5),
            ]
            for name, parts in ingest["bytes_per_row"].items()
        ]
        yield table("Bytes a memory on disk, indexes included", ["", "total", "of which"], sizes)


def plot(cases: Sequence[dict[str, Any]], path: Path) -> None:
    """p50 of every contender over the size of the table, a panel for each size of a user."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = sorted({case["size"] for case in cases})
    figure, axes = pyplot.subplots(1, len(sizes), figsize=(6 * len(sizes), 5), sharey=True, squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        axis.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
        shown = sorted((case for case in cases if case["size"] == size), key=lambda case: int(case["rows"]))
        for name in shown[0]["contenders"] if shown else ():
            each = [case["contenders"][name] for case in shown]
            p50 = [one["p50_ms"] for one in each]
            middle = [one["median"] for one in p50]
            ends = [
                [m - one["low"] for m, one in zip(middle, p50, strict=True)],
                [one["high"] - m for m, one in zip(middle, p50, strict=True)],
            ]
            worst = min(one["nearest"] for one in each)
            label = name if name in (RECALL, ARECALL) or worst > 0.99 else f"{name} ({worst:.0%} found)"
            ours = name.startswith("ours") or name == BARE
            axis.errorbar(
                [case["rows"] for case in shown],
                middle,
                yerr=ends,
                label=label,
                marker="o",
                linewidth=2.5 if ours else 1,
                linestyle="-" if ours else "--",
            )
        axis.set(xscale="log", yscale="log", xlabel="memories in the table", title=f"{size:,} of each user")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("ms a question, p50 (lowest-highest round)")
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
