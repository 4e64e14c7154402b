"""Upkeep of a database: rows of one namespace side by side, room of dead rows given back, indexes in order.

Exact search reads a namespace's pages; where many namespaces grow at once, each row is on a page of its own.
A scattered namespace is moved: its rows are deleted and inserted again in one statement, in order, which puts
them side by side (an update would leave most of them on the pages they are on). Readers go on; writers wait
for one namespace at a time. `CLUSTER` does all of it at once, and shuts out everybody meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from memgraph_plugin.errors import SchemaOutOfDate, StoreError
from memgraph_plugin.store import schema
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.kv_files import KVFiles
from memgraph_plugin.store.sql import query

ROWS = range(500, 10_001)
"""Sizes of namespaces that are moved: smaller ones gain nothing, larger ones are searched by an index."""

WORN = {"at_least": 1_000_000, "row_bytes": 300}
"""An index of ours is about 100 bytes a row; one above this size is made anew."""

LOCK_SECONDS = 5
"""How long a move waits for writers, who wait for it too."""

Record = dict[str, Any]
Step = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Scattered:
    """A namespace (dot-joined) on `pages` pages, where `fewest` would do."""

    namespace: str
    rows: int
    pages: int
    fewest: int


@dataclass(frozen=True, slots=True)
class Survey:
    """How the database lies. Sizes are in bytes."""

    heap_bytes: int
    index_bytes: int
    dead_rows: int
    scattered: tuple[Scattered, ...]
    worn_indexes: tuple[str, ...]


def survey(conninfo: str, db_schema: str) -> Survey:
    """Measure, reading the table once; changes nothing.

    Raises:
        DatabaseUnavailable, SchemaOutOfDate.
    """
    with translated(), closing(_connected(conninfo, db_schema)) as conn:
        return _survey(conn, db_schema)


def maintain(
    conninfo: str, db_schema: str, *, cluster: bool = False, progress: Step | None = None
) -> tuple[Survey, Survey]:
    """Put in order what `survey` finds, then vacuum; how it lay before and how it lies now.

    Args:
        cluster: write every table anew, in order. Nobody can read or write a table while that lasts, and it
            takes as much free room as the table. What was erased is then gone from the files.
        progress: is told how many steps of how many are done.

    Raises:
        DatabaseUnavailable, SchemaOutOfDate.
        StoreError: tables stayed in use, or are somebody else's; what was done so far stays.
    """
    with translated(), closing(_connected(conninfo, db_schema)) as conn:
        before = _survey(conn, db_schema)
        try:
            _run(conn, _steps(conn, db_schema, before, cluster=cluster), progress)
        except psycopg.errors.LockNotAvailable as error:
            raise StoreError(
                f"Not all is done: for {LOCK_SECONDS} s the tables were in use. See pg_stat_activity for "
                "long transactions; then run this again, which goes on."
            ) from error
        return before, _survey(conn, db_schema)


def unnamed(conninfo: str, db_schema: str, files: KVFiles) -> list[Path]:
    """Files of compressed memories that no row of this database names, and nobody has written for a day.

    A killed process leaves such files. So does another database that has the same directory: then they are
    its own, and not to be removed.

    Raises:
        DatabaseUnavailable, SchemaOutOfDate.
    """
    # Looked for first: what is written between the two is named then.
    found = files.settled()
    with translated(), closing(_connected(conninfo, db_schema)) as conn:
        named = {row["file"] for row in conn.execute(query("named_files", db_schema))}
    return [path for path in found if path.name not in named]


def _steps(
    conn: psycopg.Connection[Record], db_schema: str, found: Survey, *, cluster: bool
) -> list[Callable[[], Any]]:
    tables = conn.execute(query("table_sizes", db_schema), {"schema": db_schema}).fetchall()
    if cluster:
        statements = [
            sql.SQL("CLUSTER {} USING {}").format(
                sql.Identifier(db_schema, table["name"]), sql.SQL(table["primary_key"].split(".")[-1])
            )
            for table in tables
        ]
    else:
        statements = [_reindex(db_schema, name) for name in found.worn_indexes]
    names = dict.fromkeys(table["table"] for table in tables)
    statements += [sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(db_schema, name)) for name in names]
    moves = [] if cluster else [each.namespace for each in found.scattered]
    return [
        *(lambda namespace=namespace: _move(conn, db_schema, namespace) for namespace in moves),
        *(lambda statement=statement: conn.execute(statement) for statement in statements),
    ]


def _run(conn: psycopg.Connection[Record], steps: list[Callable[[], Any]], progress: Step | None) -> None:
    conn.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'".encode())
    for done, step in enumerate(steps):
        if progress is not None:
            progress(done, len(steps))
        step()
    if progress is not None:
        progress(len(steps), len(steps))


def _move(conn: psycopg.Connection[Record], db_schema: str, namespace: str) -> None:
    """Write the rows of a namespace anew, side by side."""
    with conn.transaction():
        conn.execute(query("hold_memory", db_schema))
        awaited = conn.execute(query("next_model", db_schema)).fetchone()
        if awaited and awaited["name"]:
            raise StoreError("Another model's vectors are being made: finish `migrate --reembed` first.")
        written = conn.execute(query("written_columns", db_schema), {"schema": db_schema}).fetchone()
        assert written is not None  # noqa: S101 - the table is there
        conn.execute(
            sql.SQL(
                "WITH gone AS (DELETE FROM {table} WHERE namespace = %s RETURNING {columns}) "
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM gone ORDER BY key"
            ).format(table=sql.Identifier(db_schema, "memory"), columns=sql.SQL(written["columns"])),
            [namespace],
        )


def _reindex(db_schema: str, name: str) -> sql.Composed:
    left_over = name.endswith(("_ccnew", "_ccold"))
    statement = "DROP INDEX CONCURRENTLY IF EXISTS {}" if left_over else "REINDEX INDEX CONCURRENTLY {}"
    return sql.SQL(statement).format(sql.Identifier(db_schema, name))


def _survey(conn: psycopg.Connection[Record], db_schema: str) -> Survey:
    where = {"schema": db_schema}
    sizes = conn.execute(query("table_sizes", db_schema), where).fetchall()
    limits = {"at_least": ROWS[0], "at_most": ROWS[-1]}
    scattered = conn.execute(query("scattered_namespaces", db_schema), limits).fetchall()
    worn = conn.execute(query("worn_indexes", db_schema), {**where, **WORN}).fetchall()
    return Survey(
        heap_bytes=sum(size["heap_bytes"] for size in sizes),
        index_bytes=sum(size["index_bytes"] for size in sizes),
        dead_rows=sum(size["dead_rows"] for size in sizes),
        scattered=tuple(Scattered(**record) for record in scattered),
        worn_indexes=tuple(index["name"] for index in worn),
    )


def _connected(conninfo: str, db_schema: str) -> psycopg.Connection[Record]:
    """A connection that sees every namespace, where row-level security binds its role."""
    conn = psycopg.connect(checked_conninfo(conninfo), autocommit=True, row_factory=dict_row)
    if schema.current_version(conn, db_schema) != schema.NEWEST:
        raise SchemaOutOfDate
    conn.execute("SELECT set_config('memgraph_plugin.scope', '.', false)")
    return conn
