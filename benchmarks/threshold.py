"""From how many rows on an index answers sooner than reading them all, and what it misses.

    python -m benchmarks.threshold --data locomo10.json --embeddings local:minilm --sizes 1000 5000 20000

For each size, one namespace of that size among small ones is asked the same questions with every row read and
with its indexes; a small one, before and beside them. With `--data`, texts are LoCoMo's turns, then
sentences of them put together anew with some words changed; with `--embeddings`, vectors are the model's for
the first `--embedded` texts, and later texts are near copies of those with vectors near theirs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg.conninfo import make_conninfo
from rich.console import Console

from benchmarks.corpus import DIMENSION, Given, build
from benchmarks.measure import WIDTH, fresh_server, machine, percentile, report, server_settings, table
from memgraph_plugin.models.embeddings import load_embeddings
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.types import Insert

K = 10
BIG = ("memories", "big")
SMALL, SMALL_ROWS = 100, 100
BATCH = 10_000
WARMING = 3
Texts = list[str]
Answers = list[list[str]]
Vectors = dict[str, Any]


def main() -> None:
    asked = _arguments()
    texts, questions, vectors = _corpus(asked)
    result: dict[str, Any] = {
        "machine": machine(),
        "data": f"{len(texts):,} texts, {len(questions)} questions",
    }
    rows = []
    with fresh_server() as dsn:
        result["server"] = server_settings(dsn)
        for size in asked.sizes:
            measured = _measure(dsn, size, texts, questions, vectors)
            result[f"{size}"] = measured
            rows.append([f"{size:,}", *measured.values()])
    columns = [
        "rows", "search", "indexed", f"recall@{K}", "recall()", "indexed", f"top {K} kept", "scans", "small",
        "beside", "build",
    ]  # fmt: skip
    made = table("p50 / p95 in ms of one call at a time; the build in s", columns, rows)
    report(Console(width=WIDTH), result, [made], asked.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 5_000, 20_000])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--data", type=Path, help="LoCoMo's JSON; without it, sentences are generated")
    parser.add_argument("--embeddings", help='a model, as "local:minilm"; without it, vectors are made up')
    parser.add_argument("--embedded", type=int, default=5_000, help="texts that the model is given")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def _corpus(asked: argparse.Namespace) -> tuple[Texts, Texts, Vectors]:
    """Texts enough for the largest size, questions, and the vectors of both."""
    rows = -(-max(*asked.sizes, SMALL * SMALL_ROWS) // 20) * 20
    if asked.data is None:
        corpus = build(rows, 1, asked.questions, 7, None)
        texts, questions = [turn.text for turn in corpus.turns], [each.text for each in corpus.questions]
        made: Vectors = {turn.text: turn.vector for turn in corpus.turns}
        return texts, questions, made | {each.text: each.vector for each in corpus.questions}
    draw = random.Random(7)
    said, about = _locomo(asked.data)
    texts = _recombined(said, min(rows, asked.embedded if asked.embeddings else rows), draw)
    questions = draw.sample(about, asked.questions)
    if asked.embeddings is None:
        raise SystemExit("--data goes with --embeddings: made up vectors say nothing of real texts")
    model = load_embeddings(asked.embeddings)
    vectors = np.array(model.embed_documents(texts), dtype=np.float32)
    copies = [draw.randrange(len(texts)) for _ in range(rows - len(texts))]
    near = vectors[copies] + 0.45 * _unit(np.random.default_rng(7).normal(size=(len(copies), DIMENSION)))
    words = [word for text in said for word in text.split()[1:] if len(word) > 3]
    texts += [_changed(texts[i], words, 0.25, draw) for i in copies]
    vectors = np.concatenate([vectors, _unit(near)]).astype(np.float32)
    known = dict(zip(texts, vectors, strict=True))
    return texts, questions, known | {text: model.embed_query(text) for text in questions}


def _locomo(path: Path) -> tuple[Texts, Texts]:
    said, about = [], []
    for sample in json.loads(path.read_text()):
        talk = sample["conversation"]
        numbers = sorted(int(name.split("_")[1]) for name in talk if name.split("_")[-1].isdigit())
        said += [f"{turn['speaker']}: {turn['text']}" for n in numbers for turn in talk[f"session_{n}"]]
        about += [each["question"] for each in sample["qa"]]
    return said, about


def _recombined(said: Texts, rows: int, draw: random.Random) -> Texts:
    words = [word for text in said for word in text.split()[1:] if len(word) > 3]
    speakers = sorted({text.partition(":")[0] for text in said})
    sentences = [
        each
        for text in said
        for each in re.split(r"(?<=[.!?])\s+", text.partition(": ")[2])
        if len(each) > 20
    ]
    made = said[:rows]
    while len(made) < rows:
        body = " ".join(draw.sample(sentences, draw.choice([1, 2, 2, 3])))
        made.append(f"{draw.choice(speakers)}: {_changed(body, words, 0.12, draw)}")
    return made


def _changed(text: str, words: Texts, share: float, draw: random.Random) -> str:
    return " ".join(draw.choice(words) if draw.random() < share else word for word in text.split())


def _unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    unit: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _measure(dsn: str, size: int, texts: Texts, questions: Texts, vectors: Vectors) -> dict[str, str]:
    name = f"rows_{size}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    dsn = make_conninfo(dsn, dbname=name)
    with PostgresMemoryStore(dsn, embeddings=Given(vectors), index_threshold=None) as store:
        store.setup()
        _fill(store, BIG, texts[:size], vectors)
        for user in range(SMALL):
            _fill(store, ("memories", f"u{user}"), texts[user * SMALL_ROWS :][:SMALL_ROWS], vectors)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE memgraph_plugin.memory")

        def search(text: str) -> list[str]:
            return [item.key for item in store.search(BIG, query=text, limit=K)]

        def recall(text: str) -> list[str]:
            return [hit.memory.key for hit in store.recall(BIG, text, k=K)]

        def small(text: str) -> list[str]:
            return [item.key for item in store.search(("memories", "u7"), query=text, limit=K)]

        ways = (search, recall, small)
        before = [_asked(way, questions) for way in ways]
        began = time.perf_counter()
        store.create_index(BIG)
        built = time.perf_counter() - began
        after = [_asked(way, questions) for way in ways]
    return {
        "search": before[0][1], "search indexed": after[0][1],
        "search kept": _kept(before[0][0], after[0][0]),
        "recall": before[1][1], "recall indexed": after[1][1],
        "recall kept": _kept(before[1][0], after[1][0]),
        "scans a call": f"{_scans(dsn) / (2 * (len(questions) + WARMING)):.2f}",
        "small": before[2][1], "small beside an index": after[2][1], "build": f"{built:.1f}",
    }  # fmt: skip


def _fill(
    store: PostgresMemoryStore, namespace: tuple[str, ...], texts: Texts, vectors: dict[str, Any]
) -> None:
    for start in range(0, len(texts), BATCH):
        part = enumerate(texts[start : start + BATCH], start)
        store.apply(
            namespace,
            [
                Insert(
                    key=f"k{n:06d}",
                    text=text,
                    kind="turn",
                    session=f"s{n // 20}",
                    position=n % 20,
                    embedding=list(map(float, vectors[text])),
                )
                for n, text in part
            ],
        )


def _asked(way: Callable[[str], list[str]], questions: Texts) -> tuple[Answers, str]:
    for text in questions[:WARMING]:
        way(text)
    answers, taken = [], []
    for text in questions:
        began = time.perf_counter()
        answers.append(way(text))
        taken.append((time.perf_counter() - began) * 1e3)
    return answers, f"{percentile(taken, 50):.1f} / {percentile(taken, 95):.1f}"


def _kept(exact: Sequence[Sequence[str]], indexed: Sequence[Sequence[str]]) -> str:
    shares = [len(set(a) & set(b)) / len(a) for a, b in zip(exact, indexed, strict=True)]
    return f"{sum(shares) / len(shares):.4f}"


def _scans(dsn: str) -> int:
    """Scans of the index of vectors, so that no figure is of a plan that went without it."""
    look = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'memory_vectors_%'"
    with psycopg.connect(dsn) as conn:
        found = conn.execute(look.encode()).fetchone()
    return int(found[0]) if found else 0


if __name__ == "__main__":
    main()
