"""Compressed memories in Postgres. This is the source; `compressed.py` is generated from it.

Windows are spooled first, then written in one transaction, which begins with the memory's row in `kv_memory`:
of two writers, one waits there, and finds that it came too late.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from memgraph_plugin.errors import VersionConflict
from memgraph_plugin.store import records
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase, Record
from memgraph_plugin.store.kv_files import KVFiles, Spool, discard, left_behind, read_part, remove, spool
from memgraph_plugin.store.parts import (
    Cutter,
    Joiner,
    Part,
    check_fits,
    check_place,
    check_save,
    present,
    record_of,
    sealed_header,
)
from memgraph_plugin.store.sealing import Sealer
from memgraph_plugin.store.storable import check_prefix
from memgraph_plugin.types import KVRecord, Namespace

_log = logging.getLogger(__name__)


class AsyncCompressed(AsyncOnly):
    """What a store on Postgres does of it."""

    _database: AsyncDatabase
    _sealer: Sealer | None
    _kv_files: KVFiles | None

    @abstractmethod
    async def _open(self) -> None: ...

    async def asave_kv(
        self,
        namespace: Namespace,
        key: str,
        header: Mapping[str, Any],
        parts: Iterable[bytes],
        *,
        after: int = 0,
        version: int | None = None,
    ) -> KVRecord:
        header = check_save(namespace, key, header, after, version)
        found = await self.aload_kv(namespace, key)
        check_fits(found, key, after, version)
        files, name = self._kv_files, records.encode(namespace)
        cutter = Cutter(name, key, after, self._sealer)
        with await asyncio.to_thread(spool, parts, cutter, files) as spooled:
            whole = spooled.size + (found.bytes if found and after else 0)
            path = files.new() if files and spooled.parts and whole > files.past else None
            row = {
                "namespace": name,
                "key": key,
                "header": Jsonb(sealed_header(self._sealer, name, key, header)),
                "windows": spooled.windows,
                "bytes": spooled.size,
                "after": after,
                "version": version,
            }
            record, gone = await _write(self._database, row, spooled, path)
        if left := await asyncio.to_thread(remove, files, gone):
            _log.warning("%s", left_behind(left))
        return record_of(record, self._sealer)

    async def aload_kv(self, namespace: Namespace, key: str) -> KVRecord | None:
        check_place(namespace, key)
        await self._open()
        where = {"namespace": records.encode(namespace), "key": key}
        found = await self._database.fetch("kv_memory", where)
        return record_of(found[0], self._sealer) if found else None

    async def akv_parts(
        self, namespace: Namespace, key: str, *, version: int | None = None
    ) -> AsyncIterator[bytes]:
        check_place(namespace, key)
        await self._open()
        where = {"namespace": records.encode(namespace), "key": key}
        async with self._database.snapshot() as conn:
            found = await self._database.fetch_in(conn, "kv_memory", where)
            record = record_of(found[0], self._sealer) if found else None
            joiner = Joiner(present(record, key, version), self._sealer)
            # One at a time: each may be of 8 MB, which as text would be 16.
            stream = self._database.stream_in(conn, "kv_parts", where, page=1, binary=True)
            async with aclosing(stream) as rows:
                async for row in rows:
                    part, stored = Part.of(row), row["data"]
                    if part.file is not None:
                        stored = await asyncio.to_thread(read_part, self._kv_files, part)
                    window = await asyncio.to_thread(joiner.add, part, stored)
                    if window is not None:
                        yield window
            joiner.finish()

    async def alist_kv(self, namespace: Namespace = ()) -> list[KVRecord]:
        check_prefix(namespace)
        await self._open()
        where = {"namespace": records.encode(namespace)}
        found = await self._database.fetch("kv_memories", where, records.scope_of(namespace))
        return [record_of(record, self._sealer) for record in found]

    async def adelete_kv(self, namespace: Namespace, key: str) -> bool:
        check_place(namespace, key)
        await self._open()
        where = {"namespace": records.encode(namespace), "key": key}
        return await delete(self._database, self._kv_files, "delete_kv", where)


async def delete(
    database: AsyncDatabase,
    files: KVFiles | None,
    statement: str,
    where: Mapping[str, Any],
    scope: str = "exactly",
) -> bool:
    """Delete the compressed memories that a statement deletes the rows of; whether there were any.

    Raises:
        StoreError: files are left; the database holds nothing of them.
    """

    async def write(conn: AsyncConn) -> tuple[bool, set[str]]:
        found = await database.fetch_in(conn, statement, where, scope)
        return bool(found), await _delete_parts(database, conn, found)

    deleted, gone = await database.transaction(write)
    if left := await asyncio.to_thread(remove, files, gone):
        raise left_behind(left)
    return deleted


async def _write(
    database: AsyncDatabase, row: Mapping[str, Any], spooled: Spool, path: Path | None
) -> tuple[Record, set[str]]:
    """Save what is spooled, in the file `path` where there is one.

    Returns: its row, and the files of what it replaces, which are needed no more.
    """
    ended = False

    async def write(conn: AsyncConn) -> tuple[Record, set[str]]:
        nonlocal ended
        ended = False
        new = row["version"] is None
        found = await database.fetch_in(conn, "create_kv" if new else "change_kv", row)
        if not found:
            raise VersionConflict(f"Somebody else saved the compressed memory {row['key']!r}: load it again.")
        gone = await _delete_parts(database, conn, found) if not new and row["after"] == 0 else set()
        for part in spooled.parts:
            data = None if path else await asyncio.to_thread(spooled.read, part)
            values = {**asdict(part), "file": path and path.name, "data": data}
            where = {"namespace": row["namespace"], "key": row["key"]}
            await database.fetch_in(conn, "insert_kv_part", {**where, **values})
        ended = True
        return found[0], gone

    try:
        if path is not None:
            await asyncio.to_thread(spooled.keep, path)
        return await database.transaction(write)
    except BaseException as error:
        if path is not None and not ended:
            await asyncio.to_thread(discard, path)
        elif path is not None:  # nobody knows whether it was committed
            error.add_note(f"If it was not saved after all, the file {path} is left: remove it.")
        raise


async def _delete_parts(database: AsyncDatabase, conn: AsyncConn, found: list[Record]) -> set[str]:
    """Delete the parts of these memories, whose rows this transaction holds; the files that they were in."""
    if not found:
        return set()
    of = {"namespaces": [each["namespace"] for each in found], "keys": [each["key"] for each in found]}
    gone = await database.fetch_in(conn, "delete_kv_parts", of)
    return {each["file"] for each in gone if each["file"] is not None}
