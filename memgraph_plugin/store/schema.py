"""The database's schema: created, migrated and checked, one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, scalar_row

from memgraph_plugin.errors import ConfigurationError, SchemaOutOfDate, StoreError
from memgraph_plugin.store import roles
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.layout import Layout
from memgraph_plugin.store.sql import MIGRATIONS, SCHEMA, query

NEWEST = max(MIGRATIONS)
EXTENSION = "vector"

TURN_SECONDS = 60
"""How long a migration waits for another one."""

TABLE_SECONDS = 5
"""How long it waits for a table that somebody uses: whoever comes after it waits as long."""


def migrate(
    conninfo: str, schema: str, partitions: int | None = None, vector_type: str | None = None
) -> list[int]:
    """Bring the schema up to date; the numbers of the migrations that it took, none where it was.

    Everything happens in one transaction, under an advisory lock: two processes do not meet, and a failure
    leaves the database as it was. Stores that are open go on afterwards.

    Args:
        partitions: into how many the tables are divided by hash of the namespace; chosen when they are made.
        vector_type: "halfvec" (the default) or "vector"; chosen when they are made.

    Raises:
        ConfigurationError: the tables are there, and lie in another way.
        DatabaseUnavailable: there is no database.
        SchemaOutOfDate: the schema is newer than this package.
        StoreError: pgvector cannot be installed, a right is missing, or a table stayed in use.
    """
    with _connected(conninfo) as conn:
        # Whatever the database's default: behind the lock, what was done while waiting must be seen.
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        if not _pending(conn, schema, partitions, vector_type)[1]:
            return []
        with conn.transaction():
            conn.execute(_turn(schema))
            before, pending = _pending(conn, schema, partitions, vector_type)
            if not pending:
                return []
            _require_pgvector(conn)
            for text in _steps(conn, schema, before, Layout.chosen(partitions, vector_type)):
                conn.execute(text.encode())
            roles.grant_again(conn, schema)
            return pending


def pending(
    conninfo: str, schema: str, partitions: int | None = None, vector_type: str | None = None
) -> list[int]:
    """The numbers of the migrations that `migrate` would take. Changes nothing; raises as `migrate`."""
    with _connected(conninfo) as conn:
        return _pending(conn, schema, partitions, vector_type)[1]


def script(conninfo: str, schema: str, partitions: int | None = None, vector_type: str | None = None) -> str:
    """What `migrate` would do, as SQL that somebody else may run. Changes nothing; raises as `migrate`."""
    with _connected(conninfo) as conn:
        before, numbers = _pending(conn, schema, partitions, vector_type)
        if not numbers:
            return f"-- Schema {schema} is at {NEWEST}: nothing to do.\n"
        parts = [
            f"-- Schema {schema}, from {before} to {NEWEST}. To stop at an error: psql -v ON_ERROR_STOP=1 -f",
            "BEGIN;",
            f"{_turn(schema)};",
            _only_from(conn, schema, before),
            f"CREATE EXTENSION IF NOT EXISTS {EXTENSION};",
            *_steps(conn, schema, before, Layout.chosen(partitions, vector_type)),
            "COMMIT;",
        ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def current_version(conn: psycopg.Connection[Any], schema: str) -> int:
    """The number of the last migration that was applied; 0 where there is nothing yet."""
    # Read from the catalog, since `to_regclass` may remember that a table which now exists did not.
    found = conn.execute(
        "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = %s AND relname = 'migration'",
        [schema],
    ).fetchone()
    if found is None:
        return 0
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query("schema_version", schema)).fetchone() or 0


def current_layout(conn: psycopg.Connection[Any], schema: str) -> Layout:
    """How the tables of this schema lie."""
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query("layout", schema), {"schema": schema}).fetchone()
    return Layout.found(found) if found else Layout()


@contextmanager
def _connected(conninfo: str) -> Iterator[psycopg.Connection]:
    with translated():
        try:
            with psycopg.connect(checked_conninfo(conninfo), autocommit=True) as conn:
                yield conn
        except psycopg.errors.LockNotAvailable as error:
            raise StoreError(
                "Nothing was changed: the tables, or another migration, were in use for too long "
                f"({TABLE_SECONDS} and {TURN_SECONDS} s are waited). See pg_stat_activity for long "
                "transactions, a backup perhaps; then try again."
            ) from error


def _pending(
    conn: psycopg.Connection[Any], schema: str, partitions: int | None, vector_type: str | None
) -> tuple[int, list[int]]:
    """The version that there is, and the migrations that are missing."""
    version = current_version(conn, schema)
    if version > NEWEST:
        raise SchemaOutOfDate(
            f"Schema {schema!r} is at {version}, this package knows {NEWEST}: upgrade the package."
        )
    wanted = Layout.chosen(partitions, vector_type)
    there = current_layout(conn, schema) if version else wanted
    asked = (partitions or there.partitions, vector_type or there.vector_type)
    if asked != (there.partitions, there.vector_type):
        raise ConfigurationError(
            f"Schema {schema!r} was made with {there}, which stays. For another layout make another schema "
            "(MEMGRAPH_PLUGIN_DB_SCHEMA), and move the memories: `memgraph-plugin export`, then `import`."
        )
    return version, [number for number in sorted(MIGRATIONS) if number > version]


def _turn(schema: str) -> str:
    """Waits for other migrations of this schema, not for ever."""
    name = sql.Literal(f"memgraph_plugin {schema}").as_string()
    return (
        f"SET LOCAL lock_timeout = '{TURN_SECONDS}s'; "
        f"SELECT pg_advisory_xact_lock(hashtextextended({name}, 0))"
    )


def _steps(conn: psycopg.Connection[Any], schema: str, version: int, layout: Layout) -> Iterator[str]:
    """The SQL from one version to the newest, to be run in one transaction."""
    name = sql.Identifier(schema)
    yield f"SET LOCAL lock_timeout = '{TABLE_SECONDS}s';"
    yield sql.SQL("CREATE SCHEMA IF NOT EXISTS {};").format(name).as_string(conn)
    # In front of what is there: pgvector may be in a schema of its own.
    path = "concat_ws(', ', {}::text, nullif(current_setting('search_path'), ''))"
    in_front = sql.SQL("SELECT set_config('search_path', " + path + ", true);")
    yield in_front.format(name.as_string(conn)).as_string(conn)
    # Of every row, where row-level security binds whoever migrates.
    yield "SELECT set_config('memgraph_plugin.scope', '.', true);"
    numbers = [number for number in sorted(MIGRATIONS) if number > version]
    if version:
        there = current_layout(conn, schema)
        yield from (there.migration(MIGRATIONS[number]) for number in numbers)
    else:
        yield layout.schema(SCHEMA)
    yield f"INSERT INTO migration (number) SELECT unnest(ARRAY{numbers});"


def _only_from(conn: psycopg.Connection[Any], schema: str, version: int) -> str:
    """Fails where the schema is no longer at this version."""
    if not version:
        return "-- Where the tables are there already, this fails and changes nothing."
    held = sql.SQL("SELECT max(number) FROM {}.migration").format(sql.Identifier(schema)).as_string(conn)
    return (
        f"DO $$ BEGIN IF ({held}) <> {version} THEN "
        f"RAISE EXCEPTION 'This script begins at {version}; make it anew.'; END IF; END $$;"
    )


def _require_pgvector(conn: psycopg.Connection) -> None:
    available = conn.execute(
        "SELECT default_version FROM pg_available_extensions WHERE name = %s", [EXTENSION]
    ).fetchone()
    if available is None:
        raise StoreError(
            "This Postgres has no pgvector. Install it (https://github.com/pgvector/pgvector#installation), "
            "or unset MEMGRAPH_PLUGIN_DSN to use the private database."
        )
    try:
        with conn.transaction():
            conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError("Ask a superuser for: CREATE EXTENSION vector") from error
