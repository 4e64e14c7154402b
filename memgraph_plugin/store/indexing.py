"""When a namespace has indexes of its own, which they are, and what a search is sent as. Pure; no I/O.

A namespace is read whole by every search until it has `threshold` rows. From then on it has three partial
indexes: HNSW over the vectors, GIN over the words, and one of the places in the sessions.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.layout import VectorType
from memgraph_plugin.store.sql import Indexed, predicate

THRESHOLD = 10_000
"""Rows from which on an index is made: see CONTRIBUTING, Decisions."""

LOOK_EVERY = 16
"""Of so many exact searches, one has its namespace counted afterwards."""

REFRESHED = 30.0
"""Seconds that a store relies on what it knows of the indexes: others make and drop them too."""

CANDIDATES = 400
"""Nearest rows that hybrid ranking begins with; the words bring in more."""

ENOUGH = 300
"""Rows that frequent words together may be expected to bring in; a word in no more rows than that is rare."""

HNSW_MAX_DIMENSION: Mapping[VectorType, int] = {"halfvec": 4_000, "vector": 2_000}
"""pgvector's limits."""

NEAREST = (200, 1_000)
"""Nearest rows that a search takes, to give no more than half of them; pgvector takes no more at once."""

MOST = 100
"""Namespaces that get indexes by themselves, at most: each row written is held against every condition."""

WORST_FIT = 1.5
"""So many times the rows that were counted, or as many times fewer: what was noted is noted anew."""


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """A namespace with indexes of its own.

    `below`: they are also of the namespaces below it. `asked`: somebody asked for them, so they stay whatever
    the size. `rows` is how many there were when that was last noted.
    """

    namespace: str
    below: bool
    asked: bool
    dimension: int
    rows: int

    @property
    def scope(self) -> Indexed:
        return Indexed(self.namespace, self.below, rest=False, dimension=self.dimension)


Known = Mapping[tuple[str, bool], SearchIndex]
"""The indexes, by namespace and `below`."""


def known(records: Iterable[Mapping[str, Any]]) -> Known:
    found = [SearchIndex(**record) for record in records]
    return {(index.namespace, index.below): index for index in found}


def check_threshold(threshold: int | None) -> int | None:
    """
    Raises:
        ConfigurationError: it is not positive.
    """
    if threshold is not None and threshold < 1:
        raise ConfigurationError(
            f"index_threshold is a number of rows, or None for never; not {threshold!r}."
        )
    return threshold


def indexable(dimension: int | None, vector_type: VectorType) -> int:
    """
    Raises:
        ConfigurationError: there are no vectors, or no index holds them.
    """
    if dimension is None:
        raise ConfigurationError("A store that ranks by words alone has no vectors to index.")
    if dimension > (most := HNSW_MAX_DIMENSION[vector_type]):
        raise ConfigurationError(
            f"pgvector indexes at most {most:,} dimensions of a {vector_type}; these have {dimension:,}."
        )
    return dimension


# Reading.


def route(
    indexes: Known, name: str, scope: str, parameters: Mapping[str, Any]
) -> tuple[str, Indexed, dict[str, Any]] | None:
    """What "nearest" or "recall" is sent as, its scope, and what that needs more; None: read every row."""
    if not indexes or parameters["vector"] is None or scope == "everywhere":
        return None
    namespace, wanted = parameters["namespace"], parameters["limit"] + parameters["offset"]
    index = indexes.get((namespace, scope == "prefix"))
    rest = index is None and scope == "prefix" and name == "nearest"
    if rest:
        index = indexes.get((namespace, False))
    if index is None or (name == "recall" and index.rows < 2 * CANDIDATES):
        return None
    breadths = NEAREST if name == "nearest" else (CANDIDATES,)
    breadth = next((breadth for breadth in breadths if 2 * wanted <= breadth), None)
    if breadth is None:
        return None
    found = Indexed(namespace, index.below, rest, index.dimension)
    return f"{name}_indexed", found, {"breadth": breadth, "enough": ENOUGH}


def suffices(found: Sequence[Mapping[str, Any]], name: str, parameters: Mapping[str, Any]) -> bool:
    """Whether the index brought as many rows as it was asked for; a filter may leave it too few."""
    wanted = parameters["limit"] + parameters["offset"] if name == "nearest" else CANDIDATES
    return wanted == 0 or (bool(found) and found[0]["reached"] >= wanted)


# Making and dropping.


def after_count(index: SearchIndex | None, rows: int, threshold: int | None) -> str | None:
    """What a namespace of so many rows needs: "create" an index, "drop" it, "note" it anew, or None."""
    if index is None:
        return "create" if threshold is not None and rows >= threshold else None
    if threshold is not None and not index.asked and rows < threshold / 2:
        return "drop"
    if not index.rows / WORST_FIT <= rows <= index.rows * WORST_FIT:
        return "note"
    return None


def index_names(table: str, namespace: str, *, below: bool) -> dict[str, str]:
    """The names of the indexes on one table, by what they are of."""
    digest = hashlib.sha256(f"{table}\0{namespace}\0{below}".encode()).hexdigest()[:16]
    return {what: f"memory_{what}_{digest}" for what in ("words", "places", "vectors")}


def create_statements(
    table: LiteralString, index: SearchIndex, vector_type: VectorType
) -> dict[str, LiteralString]:
    """CREATE INDEX CONCURRENTLY by name. `table` is as the database names it, quoted where it has to be."""
    names = index_names(table, index.namespace, below=index.below)
    methods: dict[str, LiteralString] = {
        "words": "gin (terms)",
        "places": "btree (namespace, session, position)",
        "vectors": "hnsw ((embedding::{type}({dimension})) {type}_cosine_ops)"
        " WITH (m = 16, ef_construction = 64)",
    }
    condition = predicate(index.namespace, below=index.below)
    return {
        names[what]: sql.SQL("CREATE INDEX CONCURRENTLY {name} ON {table} USING {method} WHERE {condition}")
        .format(
            name=sql.Identifier(names[what]),
            table=sql.SQL(table),
            method=sql.SQL(method).format(dimension=sql.Literal(index.dimension), type=sql.SQL(vector_type)),
            condition=sql.SQL(condition),
        )
        .as_string()
        for what, method in methods.items()
    }


def drop_statement(schema: str, name: str) -> LiteralString:
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name)).as_string()


def quoted(schema: str, table: str) -> str:
    return sql.Identifier(schema, table).as_string()


def memory_needed(rows: int, dimension: int) -> str:
    """`maintenance_work_mem` that holds the graph: without it, building takes several times as long."""
    needed = rows * (4 * dimension + 500) * 1.2 / 2**20
    return f"{min(max(round(needed), 64), 2_048)}MB"


def owner_needed(namespace: str, *, below: bool) -> str:
    """What to tell who may not make indexes."""
    option = " --below" if below else ""
    return (
        "Only the owner of the tables may make an index, or drop it: as the owner, run "
        f"`memgraph-plugin index --namespace {shlex.quote(namespace)}{option}`. Until then every row is read."
    )
