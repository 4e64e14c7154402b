"""Seal what a database holds: what was stored in the clear, and what an older key sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from memgraph_plugin.store import records
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.kv_files import KVFiles, read_part
from memgraph_plugin.store.parts import Part
from memgraph_plugin.store.sealing import Sealer, is_current_header, resealed
from memgraph_plugin.store.sql import query
from memgraph_plugin.types import Namespace

PAGE = 500
"""Rows that are read, and written in one transaction."""

_FIRST = {
    "after": "",
    "after_key": "",
    "after_version": 0,
    "after_batch": "00000000-0000-0000-0000-000000000000",
    "after_id": "00000000-0000-0000-0000-000000000000",
}
_TABLES = (
    ("memories_to_seal", "seal_memory"),
    ("versions_to_seal", "seal_version"),
    ("batches_to_seal", "seal_batch"),
    ("held_to_seal", "seal_held"),
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


def reseal_compressed(
    store: MemoryStore,
    conninfo: str,
    db_schema: str,
    sealer: Sealer,
    files: KVFiles | None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Have every compressed memory sealed with the sealer's current key, all of it; how many were not.

    Each is written anew as a whole, so it has another version; it may be stopped and run again.

    Args:
        store: of this database, with this sealer and these files.

    Raises:
        SealBroken: something is sealed with a key that the sealer has not.
        VersionConflict: somebody added to one meanwhile: run it again.
        DatabaseUnavailable, StoreError.
    """
    with (
        translated(),
        psycopg.connect(checked_conninfo(conninfo), autocommit=True, row_factory=dict_row) as conn,
    ):
        conn.execute("SELECT set_config('memgraph_plugin.scope', '.', false)")
        found = conn.execute(query("compressed_to_seal", db_schema)).fetchall()
        written = 0
        for seen, row in enumerate(found, 1):
            rows = conn.execute(query("parts_to_seal", db_schema), row).fetchall()
            if not _all_current(sealer, files, row["header"], rows):
                written += _saved_anew(store, records.decode(row["namespace"]), row["key"])
            if progress:
                progress(seen, len(found))
    return written


def _all_current(
    sealer: Sealer, files: KVFiles | None, header: Mapping[str, Any], rows: Sequence[dict[str, Any]]
) -> bool:
    def begins(row: dict[str, Any]) -> str:
        part = Part.of(row)
        if part.file is None:
            return str(row["begins"])
        return read_part(files, replace(part, size=min(part.size, 256))).decode("ascii", "replace")

    return is_current_header(sealer, header) and all(
        row["sealed"] and sealer.is_current(begins(row)) for row in rows
    )


def _saved_anew(store: MemoryStore, namespace: Namespace, key: str) -> bool:
    record = store.load_kv(namespace, key)
    if record is None:
        return False
    parts = store.kv_parts(namespace, key, version=record.version)
    store.save_kv(namespace, key, record.header, parts, version=record.version)
    return True


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
            "after_id": last.get("id"),
        }


def _parameters(record: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    row = {**record, **new}
    return {
        name: Jsonb(content) if isinstance(content, dict) or name == "receipts" else content
        for name, content in row.items()
    }
