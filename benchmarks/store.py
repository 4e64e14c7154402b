"""The Postgres store beside a bare vector statement and LangGraph's PostgresStore: recall, ingest, size.

One process and one fresh private Postgres with the package's own settings, everybody's tables in it.
Contenders answer the same questions in blocks, in an order that moves on each round; vectors are given. It is
not the same work: the bare statement and LangGraph rank by vectors alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from corpus import Corpus, Given, Question, Turn, build
from langgraph.store.base import PutOp
from measure import WIDTH, Spread, fresh_server, machine, percentile, report, server_settings, table
from peers import Answer, bare, fill_langgraph, hnsw_scans, insert, langgraph, put
from rich.console import Console

from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.types import Insert

K = 10
OURS = "ours"
LANGGRAPH = "LangGraph"
BARE, RECALL, ARECALL, SEARCH = "bare statement", "recall", "arecall", "search"
HNSW, FLAT = "LangGraph search (HNSW, its default)", "LangGraph search (flat)"

# Recall.


def measure_recall(dsn: str, corpus: Corpus, rounds: int, show: Callable[[str], None]) -> dict[str, Any]:
    """p50 and p95 of every contender, its ratios round by round, how many of the nearest ten it found."""
    vectors: dict[str, Any] = {turn.text: turn.vector for turn in corpus.turns}
    vectors |= {question.text: question.vector for question in corpus.questions}
    embeddings = Given(vectors)
    with ExitStack() as opened:
        show("filling our tables")
        ours = opened.enter_context(PostgresMemoryStore(dsn, embeddings=embeddings))
        ours.setup()
        for turns in corpus.sessions():
            ours.apply(turns[0].namespace, [insert(turn) for turn in turns])
        show("filling LangGraph's tables")
        hnsw, flat = fill_langgraph(opened, dsn, corpus, embeddings)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")
            conn.execute("CHECKPOINT")
        runner = opened.enter_context(asyncio.Runner())
        opened.callback(lambda: runner.run(async_ours.aclose()))
        async_ours = AsyncPostgresMemoryStore(dsn, embeddings=embeddings)
        answers: dict[str, Answer] = {
            BARE: opened.enter_context(bare(dsn)),
            RECALL: lambda q: [hit.memory.key for hit in ours.recall(q.namespace, q.text, k=K)],
            SEARCH: lambda q: [item.key for item in ours.search(q.namespace, query=q.text, limit=K)],
            HNSW: lambda q: [item.key for item in hnsw.search(q.namespace, query=q.text, limit=K)],
            FLAT: lambda q: [item.key for item in flat.search(q.namespace, query=q.text, limit=K)],
        }

        def timed(name: str, questions: Sequence[Question]) -> tuple[list[float], list[list[str]]]:
            if name == ARECALL:
                return runner.run(_async_times(async_ours, questions))
            return _times(answers[name], questions)

        show("asking")
        return _rounds(timed, [BARE, RECALL, ARECALL, SEARCH, HNSW, FLAT], corpus, rounds, dsn)


def _rounds(
    timed: Callable[[str, Sequence[Question]], tuple[list[float], list[list[str]]]],
    names: list[str],
    corpus: Corpus,
    rounds: int,
    dsn: str,
) -> dict[str, Any]:
    found = {name: timed(name, corpus.questions)[1] for name in names}  # warms up as well
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            gc.collect()
            times[name].append(timed(name, corpus.questions)[0])
    medians = {name: [percentile(block, 50) for block in blocks] for name, blocks in times.items()}

    def ratio(above: str, below: str) -> dict[str, float]:
        return asdict(Spread.of([a / b for a, b in zip(medians[above], medians[below], strict=True)]))

    exact = _exact(corpus)
    return {
        "rounds": rounds,
        "questions": len(corpus.questions),
        "hnsw_scans_per_question": hnsw_scans(dsn) / (rounds + 1) / len(corpus.questions),
        "contenders": {
            name: {
                "p50_ms": asdict(Spread.of(medians[name])),
                "p95_ms": asdict(Spread.of([percentile(block, 95) for block in times[name]])),
                "times_bare": ratio(name, BARE),
                "times_recall": ratio(name, RECALL),
                "exact_top_10_found": float(
                    np.mean(
                        [
                            len(set(keys) & set(best)) / K
                            for keys, best in zip(found[name], exact, strict=True)
                        ]
                    )
                ),
                "short_answers": sum(len(keys) < K for keys in found[name]),
            }
            for name in names
        },
    }


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
    mine: dict[tuple[str, ...], list[Turn]] = {}
    for turn in corpus.turns:
        mine.setdefault(turn.namespace, []).append(turn)
    exact = []
    for question in corpus.questions:
        turns = mine[question.namespace]
        cosines = np.stack([turn.vector for turn in turns]) @ np.array(question.vector, dtype=np.float32)
        exact.append([turns[i].key for i in np.argsort(-cosines)[:K]])
    return exact


# Ingest.


def measure_ingest(
    dsn: str, corpus: Corpus, rows: int, singles: int, repeats: int, show: Callable[[str], None]
) -> dict[str, Any]:
    """Rows a second and bytes a row of each way to write, in fresh tables each time, taking turns."""
    turns = corpus.turns[:rows]
    # As lists from the start: turning arrays into lists is nobody's time either.
    vectors = {turn.text: turn.vector.tolist() for turn in turns}
    embeddings = Given(vectors)
    inserts = [insert(turn, vectors[turn.text]) for turn in turns]
    puts = [put(turn, ("memories", "user")) for turn in turns]
    shapes = {"one batch": rows, "batches of 1,000": 1_000, f"one by one ({singles:,})": 1}
    rates: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, dict[str, float]] = {}
    for repeat in range(repeats):
        for shape, batch in shapes.items():
            count = singles if batch == 1 else rows
            theirs = partial(_theirs_write, dsn, embeddings, puts[:count], batch)
            contenders = {
                OURS: partial(_ours_writes, dsn, embeddings, inserts[:count], batch),
                f"{LANGGRAPH} (HNSW, its default)": theirs,
                f"{LANGGRAPH} (flat)": partial(theirs, flat=True),
            }
            names = list(contenders)[repeat % 3 :] + list(contenders)[: repeat % 3]
            for name in names:
                show(f"writing: {name}, {shape}, {repeat + 1} of {repeats}")
                seconds, size = contenders[name]()
                rates.setdefault(shape, {}).setdefault(name, []).append(count / seconds)
                if batch == 1_000:
                    sizes[name] = {part: bytes_ / count for part, bytes_ in size.items()}
    return {
        "rows": rows,
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


def _ours_writes(
    dsn: str, embeddings: Given, inserts: Sequence[Insert], batch: int
) -> tuple[float, dict[str, int]]:
    schema = f"ours_{uuid.uuid4().hex[:8]}"
    with PostgresMemoryStore(dsn, embeddings=embeddings, db_schema=schema) as store:
        store.setup()
        seconds = _seconds(lambda some: store.apply(("memories", "user"), some), inserts, batch)
    return seconds, _size_then_drop(dsn, schema)


def _theirs_write(
    dsn: str, embeddings: Given, puts: Sequence[PutOp], batch: int, *, flat: bool = False
) -> tuple[float, dict[str, int]]:
    schema = f"theirs_{uuid.uuid4().hex[:8]}"
    with ExitStack() as opened:
        store, _ = langgraph(opened, dsn, embeddings, schema, flat=flat)
        seconds = _seconds(store.batch, puts, batch)
    return seconds, _size_then_drop(dsn, schema)


def _seconds(write: Callable[[Sequence[Any]], object], rows: Sequence[Any], batch: int) -> float:
    gc.collect()
    start = time.perf_counter()
    for first in range(0, len(rows), batch):
        write(rows[first : first + batch])
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
    console = Console(width=WIDTH)
    here = machine()
    namespaces = options.rows // options.size
    corpus = build(options.rows, namespaces, options.questions, options.seed, options.data)

    show = Console(stderr=True).log
    with fresh_server() as dsn:
        result: dict[str, Any] = {"benchmark": "store", "machine": here, "server": server_settings(dsn)}
        result["data"] = corpus.description
        if "recall" in options.only:
            result["recall"] = measure_recall(dsn, corpus, options.rounds, show)
        if "ingest" in options.only:
            ingest = (options.ingest, options.singles, options.repeats)
            result["ingest"] = measure_ingest(dsn, corpus, *ingest, show)
    report(console, result, list(_tables(result)), options.output)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000, help="memories in the table")
    parser.add_argument("--size", type=int, default=1_000, help="memories in each namespace")
    parser.add_argument("--questions", type=int, default=100, help="asked in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ingest", type=int, default=10_000, help="memories written in the ingest benchmark")
    parser.add_argument("--singles", type=int, default=500, help="memories written one by one")
    parser.add_argument("--repeats", type=int, default=3, help="of each way to write")
    parser.add_argument("--only", nargs="+", choices=["recall", "ingest"], default=["recall", "ingest"])
    parser.add_argument(
        "--data", type=Path, help="texts and questions of this LoCoMo JSON, not generated ones"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write everything as JSON")
    return parser.parse_args()


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    if recall := result.get("recall"):
        rows = [
            [
                name,
                *(
                    Spread(**each[column]).show()
                    for column in ("p50_ms", "p95_ms", "times_bare", "times_recall")
                ),
                f"{each['exact_top_10_found']:.3f}",
                f"{each['short_answers']}",
            ]
            for name, each in recall["contenders"].items()
        ]
        title = (
            f"One question, ten answers: median of {recall['rounds']} rounds of {recall['questions']} "
            f"(lowest-highest); {recall['hnsw_scans_per_question']:.2f} scans of the HNSW index a question.\n"
            "Ours ranks by words and sessions as well: its ten are not meant to be the nearest ten. "
            "Short: of these questions, how many got fewer than ten answers."
        )
        columns = [
            "",
            "p50 ms",
            "p95 ms",
            "times bare",
            "times recall",
            "nearest",
            "short",
        ]
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
            f"{ingest['rows']:,} memories with given vectors, median of {ingest['repeats']} (lowest-highest)"
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


if __name__ == "__main__":
    main()
