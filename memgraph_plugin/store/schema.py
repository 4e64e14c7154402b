"""The database's schema: created, migrated and checked, one process at a time."""

from __future__ import annotations

import psycopg
from psycopg import sql

from memgraph_plugin.errors import SchemaOutOfDate, StoreError
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.sql import MIGRATIONS, SCHEMA, query

NEWEST = max(MIGRATIONS)
EXTENSION = "vector"


def migrate(conninfo: str, schema: str) -> list[int]:
    """Bring the schema up to date; the numbers of the migrations that it took, none where it was.

    Everything happens in one transaction, under an advisory lock: two processes do not meet, and a failure
    leaves the database as it was.

    Raises:
        DatabaseUnavailable: there is no database.
        SchemaOutOfDate: the schema is newer than this package.
        StoreError: pgvector cannot be installed, or a right is missing.
    """
    with translated(), psycopg.connect(checked_conninfo(conninfo), autocommit=True) as conn:
        # Whatever the database's default: behind the lock, what was done while waiting must be seen.
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        if current_version(conn, schema) == NEWEST:
            return []
        with conn.transaction():
            conn.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"memgraph_plugin {schema}"]
            )
            return _migrate(conn, schema)


def _migrate(conn: psycopg.Connection, schema: str) -> list[int]:
    version = current_version(conn, schema)
    if version == NEWEST:
        return []
    if version > NEWEST:
        raise SchemaOutOfDate(
            f"Schema {schema!r} is at {version}, this package knows {NEWEST}: upgrade the package."
        )
    _require_pgvector(conn)
    conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    # In front of what is there: pgvector may be in a schema of its own.
    path = "concat_ws(', ', %s::text, nullif(current_setting('search_path'), ''))"
    name = sql.Identifier(schema).as_string()
    conn.execute(f"SELECT set_config('search_path', {path}, true)", [name])
    pending = [number for number in sorted(MIGRATIONS) if number > version]
    for text in [SCHEMA] if version == 0 else [MIGRATIONS[number] for number in pending]:
        conn.execute(text.encode())
    with conn.cursor() as cursor:
        cursor.executemany("INSERT INTO migration (number) VALUES (%s)", [(number,) for number in pending])
    return pending


def current_version(conn: psycopg.Connection, schema: str) -> int:
    """The number of the last migration that was applied; 0 where there is nothing yet."""
    # Read from the catalog, since `to_regclass` may remember that a table which now exists did not.
    found = conn.execute(
        "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = %s AND relname = 'migration'",
        [schema],
    ).fetchone()
    if found is None:
        return 0
    newest = conn.execute(query("schema_version", schema)).fetchone()
    return int(newest[0]) if newest and newest[0] else 0


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
