"""Seal what a database holds: what was stored in the clear, and what an older key sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.sealing import Sealer, resealed
from memgraph_plugin.store.sql import query

PAGE = 500
"""Rows that are read, and written in one transaction."""

_FIRST = {
    "after": "",
    "after_key": "",
    "after_version": 0,
    "after_batch": "00000000-0000-0000-0000-000000000000",
}
_TABLES = (
    ("memories_to_seal", "seal_memory"),
    ("versions_to_seal", "seal_version"),
    ("batches_to_seal", "seal_batch"),
)


def reseal(
    conninfo: str, db_schema: str, sealer: Sealer, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Have every memory, version and reason sealed with the sealer's current key; how many rows were not.

    Other processes may go on; those that write have to have the same keys, lest there be more to seal. It may
    be stopped and run again. `progress` is told the rows looked at and how many there are. What was readable
    before stays in dead rows until the table is vacuumed, and in backups.

    Raises:
        SealBroken: something is sealed with a key that the sealer has not; what was done so far stays.
        DatabaseUnavailable, StoreError.
    """
    with (
        translated(),
        psycopg.connect(checked_conninfo(conninfo), autocommit=True, row_factory=dict_row) as conn,
    ):
        conn.execute("SELECT set_config('memgraph_plugin.scope', '.', false)")
        total = conn.execute(query("count_to_seal", db_schema)).fetchone()
        seen = written = 0
        for read, write in _TABLES:
            for page in _pages(conn, query(read, db_schema)):
                changed = [(record, resealed(sealer, record)) for record in page]
                rows = [_parameters(record, new) for record, new in changed if new is not None]
                with conn.transaction(), conn.cursor() as cursor:
                    cursor.executemany(query(write, db_schema), rows)
                seen, written = seen + len(page), written + len(rows)
                if progress and total:
                    progress(seen, total["rows"])
    return written


def _pages(conn: psycopg.Connection[dict[str, Any]], statement: Any) -> Iterator[list[dict[str, Any]]]:
    after: dict[str, Any] = _FIRST
    while page := conn.execute(statement, {**after, "limit": PAGE}).fetchall():
        yield page
        last = page[-1]
        after = {
            "after": last["namespace"],
            "after_key": last.get("key"),
            "after_version": last.get("version"),
            "after_batch": last.get("batch_id"),
        }


def _parameters(record: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    row = {**record, **new}
    return {
        name: Jsonb(content) if name in ("value", "receipts") and content is not None else content
        for name, content in row.items()
    }
