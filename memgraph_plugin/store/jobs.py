"""The queue's tables, as far as they can be read and emptied without procrastinate, which owns them.

They are in a schema beside the store's. A job carries the name of its namespace, and no text.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.records import encode
from memgraph_plugin.types import Namespace

_FORGET = """
DELETE FROM procrastinate_jobs WHERE lock = %(lock)s
    OR (lock COLLATE "C" > %(lock)s || '.' AND lock COLLATE "C" < %(lock)s || '/')"""


def queue_schema(db_schema: str) -> str:
    """The Postgres schema of the queue that belongs to this one."""
    return f"{db_schema}_queue"


def queue_version(conn: psycopg.Connection[Any], db_schema: str) -> str | None:
    """The newest of procrastinate's migrations that the queue has; None where there is no queue."""
    found = conn.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s",
        [queue_schema(db_schema)],
    ).fetchone()
    return found[0] if found else None


def jobs_by_status(conn: psycopg.Connection[Any], db_schema: str) -> dict[str, int] | None:
    """How many jobs are "todo", "doing" and "failed"; None where there is no queue."""
    if queue_version(conn, db_schema) is None:
        return None
    table = sql.Identifier(queue_schema(db_schema), "procrastinate_jobs")
    found = conn.execute(sql.SQL("SELECT status::text, count(*) FROM {} GROUP BY 1").format(table))
    return dict(found.fetchall())


def forget_jobs(conninfo: str, db_schema: str, namespace: Namespace) -> int:
    """Delete the jobs of a namespace and of all below it; how many there were.

    Raises:
        StoreError: the database failed.
    """
    with translated(), psycopg.connect(checked_conninfo(conninfo), autocommit=True) as conn:
        if queue_version(conn, db_schema) is None:
            return 0
        path = sql.Identifier(queue_schema(db_schema))  # procrastinate's triggers name their tables so
        conn.execute(sql.SQL("SET search_path = {}").format(path))
        return conn.execute(_FORGET, {"lock": encode(namespace)}).rowcount
