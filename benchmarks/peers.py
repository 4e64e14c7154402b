"""Who is measured beside whom: our rows and LangGraph's of the same turns, and a bare vector statement."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from corpus import DIMENSION, Corpus, Given, Question, Turn
from langgraph.store.base import PutOp
from langgraph.store.postgres import PostgresStore
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.conninfo import make_conninfo

from memgraph_plugin.types import Insert

LOADED = 2_000
"""Rows a batch while LangGraph's tables are filled; not timed."""

Answer = Callable[[Question], list[str]]
"""The keys that answer a question, best first."""


@contextmanager
def bare(dsn: str) -> Iterator[Answer]:
    """An exact vector search and nothing else: one prepared statement, binary both ways, no pool."""
    statement = (
        "SELECT key, text FROM memgraph_plugin.memory WHERE namespace = %s "
        "ORDER BY (embedding <=> %b) + 0 LIMIT 10"
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        register_vector(conn)

        def answer(question: Question) -> list[str]:
            parameters = [".".join(question.namespace), HalfVector(question.vector)]
            rows = conn.execute(statement, parameters, prepare=True, binary=True).fetchall()
            return [row[0] for row in rows]

        yield answer


def langgraph(
    opened: ExitStack, dsn: str, embeddings: Given, name: str, *, flat: bool
) -> tuple[PostgresStore, str]:
    """LangGraph's store, pooled and set up, in a schema of its own; and its DSN."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE SCHEMA {name}".encode())
    there = make_conninfo(dsn, options=f"-c search_path={name},public")
    index: Any = {"dims": DIMENSION, "embed": embeddings, "fields": ["text"]}
    if flat:
        index["ann_index_config"] = {"kind": "flat"}
    store = opened.enter_context(
        PostgresStore.from_conn_string(there, index=index, pool_config={"min_size": 1, "max_size": 10})
    )
    store.setup()
    return store, there


def fill_langgraph(
    opened: ExitStack, dsn: str, corpus: Corpus, embeddings: Given
) -> tuple[PostgresStore, PostgresStore]:
    """Both of LangGraph's stores with all rows. The HNSW index is made anew after the filling."""
    hnsw, there = langgraph(opened, dsn, embeddings, "langgraph_hnsw", flat=False)
    flat, _ = langgraph(opened, dsn, embeddings, "langgraph_flat", flat=True)
    with psycopg.connect(there, autocommit=True) as conn:
        look = "SELECT indexdef FROM pg_indexes WHERE indexname = 'store_vectors_embedding_idx'"
        (definition,) = conn.execute(look).fetchone() or ("",)
        conn.execute("DROP INDEX store_vectors_embedding_idx")
        for start in range(0, len(corpus.turns), LOADED):
            hnsw.batch([put(turn) for turn in corpus.turns[start : start + LOADED]])
        for name in ("store", "store_vectors"):
            copied = f"INSERT INTO langgraph_flat.{name} SELECT * FROM langgraph_hnsw.{name} ORDER BY ctid"
            conn.execute(copied.encode())
        conn.execute("SET maintenance_work_mem = '512MB'")
        conn.execute(definition.encode())
    return hnsw, flat


def hnsw_scans(dsn: str) -> int:
    """Scans of LangGraph's HNSW index so far; an idle connection tells up to ten seconds late."""
    time.sleep(11)
    with psycopg.connect(dsn) as conn:
        look = (
            "SELECT sum(idx_scan)::int FROM pg_stat_user_indexes "
            "WHERE indexrelname = 'store_vectors_embedding_idx'"
        )
        return (conn.execute(look).fetchone() or (0,))[0] or 0


def insert(turn: Turn, vector: list[float] | None = None) -> Insert:
    return Insert(
        text=turn.text,
        kind="turn",
        key=turn.key if vector is None else f"{turn.namespace[-1]}-{turn.key}",
        session=turn.session,
        position=turn.position,
        embedding=turn.vector.tolist() if vector is None else vector,
    )


def put(turn: Turn, namespace: tuple[str, ...] | None = None) -> PutOp:
    value = {"text": turn.text, "kind": "turn", "session": turn.session, "position": turn.position}
    key = turn.key if namespace is None else f"{turn.namespace[-1]}-{turn.key}"
    return PutOp(namespace or turn.namespace, key, value)
