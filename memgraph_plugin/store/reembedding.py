"""Vectors of another embedding model for all memories, or those that are missing, while the store is in use.

The new vectors are made beside the old ones (table `embedding_next`), in batches that stay made: a run that
was stopped goes on where it was. A memory that changes meanwhile is embedded again. In the end, one
transaction puts them in place; readers go on during it, writers wait. Then the old model is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from langchain_core.embeddings import Embeddings
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.rows import dict_row

from memgraph_plugin.errors import SchemaOutOfDate, StoreError
from memgraph_plugin.models.embeddings import embedding_name
from memgraph_plugin.store import schema
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.layout import Layout
from memgraph_plugin.store.ranking import unit
from memgraph_plugin.store.sealing import Sealer, opened
from memgraph_plugin.store.sql import query
from memgraph_plugin.store.vectors import Model, model_of

Record = dict[str, Any]

BATCH = 256
"""Texts embedded at once; a run that is killed loses so many at most."""

LOCK_SECONDS = 5
"""How long the cut-over waits for writers, who wait for it too."""


@dataclass(frozen=True, slots=True)
class Reembedded:
    """What a run did. `before` is None where the database held no vectors yet."""

    before: Model | None
    model: Model
    embedded: int
    dropped_indexes: tuple[str, ...] = ()
    held_seconds: float = 0.0


def reembed(
    conninfo: str,
    db_schema: str,
    embeddings: Embeddings,
    *,
    sealer: Sealer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reembedded:
    """Give every memory that has a text a vector of `embeddings`; where the model is the same, those without.

    Stop it at any time, and call it again to go on. Another model than that of a stopped run begins anew.

    Args:
        progress: is called with the number of texts that have their vector, and of all.

    Raises:
        DatabaseUnavailable, SchemaOutOfDate: as a store's first call.
        StoreError: another run is at work, or writers did not let the cut-over in; what was made stays made.
    """
    with translated(), closing(_connected(conninfo)) as conn, _alone(conn, db_schema):
        return _work(conn, db_schema, embeddings, sealer, progress).run()


def missing(conninfo: str, db_schema: str, embeddings: Embeddings) -> tuple[Model | None, int]:
    """Whose vectors there are, and how many `reembed` would make. Changes nothing; raises as `reembed`."""
    with translated(), closing(_connected(conninfo)) as conn:
        work = _work(conn, db_schema, embeddings)
        (counted,) = work.execute("count_vectors")
        before = work.noted()
        if before not in (None, work.model):
            awaited = work.execute("next_model") == [work.named()]
            (counted,) = work.execute("count_next") if awaited else [{**counted, "done": 0}]
        return before, counted["total"] - counted["done"]


@dataclass(slots=True)
class _Work:
    conn: psycopg.Connection[Record]
    db_schema: str
    layout: Layout
    embeddings: Embeddings
    sealer: Sealer | None
    progress: Callable[[int, int], None] | None
    embedded: int = 0
    model: Model = field(init=False)

    def __post_init__(self) -> None:
        # Measured, as a store does.
        self.model = embedding_name(self.embeddings), len(self.embeddings.embed_query("dimension"))

    def run(self) -> Reembedded:
        before = self.noted()
        if before is None:
            self.execute("record_embedding_model", **self.named())
        elif before != self.model:
            return self._change(before)
        self.execute("await_model", name=None, dimension=None)
        self._fill()
        return Reembedded(before, self.model, self.embedded)

    def _change(self, before: Model) -> Reembedded:
        self.execute("await_model", **self.named())
        left = float("inf")
        # Those that changed meanwhile, until they are few, or no longer fewer.
        while BATCH < (made := self._pass("texts_without_next", "keep_next", "count_next")) < left:
            left = made
        dropped = self._drop_indexes()
        began = time.monotonic()
        self._cut_over()
        held = time.monotonic() - began
        self._fill()
        self.conn.execute(_vacuum(self.db_schema))
        return Reembedded(before, self.model, self.embedded, dropped, held)

    def _fill(self) -> None:
        self._pass("texts_without_vector", "fill_vector", "count_vectors")

    def _pass(self, missing: str, keep: str, count: str) -> int:
        """Embed what is missing, once through; how many texts that were."""
        (counted,) = self.execute(count)
        done, total = counted["done"], counted["total"]
        after = {"namespace": "", "key": ""}
        made = 0
        self._tell(done, total)
        while page := self.execute(missing, **after, limit=BATCH):
            # No transaction is open while the model runs.
            rows = self._embedded(page)
            with self.conn.transaction(), self.conn.cursor() as cursor:
                cursor.executemany(query(keep, self.db_schema, layout=self.layout), rows)
            after = {name: page[-1][name] for name in after}
            made += len(page)
            self._tell(min(done + made, total), total)
        self.embedded += made
        return made

    def _embedded(self, page: list[Record]) -> list[Record]:
        """The records with their vectors, as the column takes them; None for one that points nowhere."""
        said = [opened(self.sealer, record, None)["text"] for record in page]
        texts = [text for text in dict.fromkeys(said) if text.strip()]
        vectors = map(unit, self.embeddings.embed_documents(texts) if texts else [])
        by_text = dict(zip(texts, vectors, strict=True))
        return [
            {
                **self.named(),
                **{name: record[name] for name in ("namespace", "key", "version")},
                "vector": None if (vector := by_text.get(text)) is None else self.layout.vector(vector),
            }
            for record, text in zip(page, said, strict=True)
        ]

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def _drop_indexes(self) -> tuple[str, ...]:
        """Drop the indexes of vectors; who reads and writes goes on, and searches exactly."""
        found = self.execute("vector_indexes", schema=self.db_schema)
        for index in found:
            drop = "DROP INDEX {}.{}" if self.layout.partitions else "DROP INDEX CONCURRENTLY IF EXISTS {}.{}"
            self.conn.execute(
                sql.SQL(drop).format(sql.Identifier(self.db_schema), sql.Identifier(index["name"]))
            )
        self.execute("forget_indexes")
        return tuple(index["definition"] for index in found)

    def _cut_over(self) -> None:
        try:
            with self.conn.transaction():
                self.conn.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'".encode())
                self.execute("hold_writers")
                self.execute("drop_other_vectors")
                self.execute("take_next_vectors")
                self.execute("take_next_model")
                self.execute("forget_next_vectors")
        except psycopg.errors.LockNotAvailable as error:
            raise StoreError(
                f"The vectors are made, and not yet in use: for {LOCK_SECONDS} s, transactions that write "
                "did not end. See pg_stat_activity; then run this again, which will take a moment."
            ) from error

    def noted(self) -> Model | None:
        found = self.execute("embedding_model")
        return model_of(found[0]) if found else None

    def named(self) -> dict[str, Any]:
        return {"name": self.model[0], "dimension": self.model[1]}

    def execute(self, statement: str, /, **parameters: Any) -> list[Record]:
        cursor = self.conn.execute(query(statement, self.db_schema, layout=self.layout), parameters)
        return cursor.fetchall() if cursor.description else []


def _work(
    conn: psycopg.Connection[Record],
    db_schema: str,
    embeddings: Embeddings,
    sealer: Sealer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> _Work:
    if schema.current_version(conn, db_schema) != schema.NEWEST:
        raise SchemaOutOfDate
    register_vector(conn)
    return _Work(conn, db_schema, schema.current_layout(conn, db_schema), embeddings, sealer, progress)


def _connected(conninfo: str) -> psycopg.Connection[Record]:
    """A connection that sees every namespace, where row-level security binds its role."""
    conn = psycopg.connect(checked_conninfo(conninfo), autocommit=True, row_factory=dict_row)
    conn.execute("SELECT set_config('memgraph_plugin.scope', '.', false)")
    return conn


@contextmanager
def _alone(conn: psycopg.Connection[Any], db_schema: str) -> Iterator[None]:
    """While no other run is at work."""
    name = f"memgraph_plugin reembed {db_schema}"
    free = conn.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0)) AS free", [name]).fetchone()
    if not (free and free["free"]):
        raise StoreError("Vectors are being made already, by another process: let it end, or stop it.")
    yield


def _vacuum(db_schema: str) -> sql.Composed:
    return sql.SQL("VACUUM (ANALYZE) {}.memory").format(sql.Identifier(db_schema))
