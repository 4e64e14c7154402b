"""Erasing a namespace from Postgres. This is the source; `forgetting.py` is generated from it.

Writers elsewhere are not held up. First those at work are waited for, so that nothing that began before is
left; then everything goes in one transaction, at one snapshot: a batch that comes meanwhile stays whole, or
goes whole.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from abc import abstractmethod

from psycopg.types.json import Jsonb

from memgraph_plugin.errors import StoreError
from memgraph_plugin.store import records
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase
from memgraph_plugin.store.indexes_async import AsyncIndexes
from memgraph_plugin.store.kv_files import KVFiles, left_behind, remove
from memgraph_plugin.store.sql import query
from memgraph_plugin.store.storable import check_forget
from memgraph_plugin.store.visibility import EVERYTHING
from memgraph_plugin.types import Erasure, Namespace, erasure_digest

PATIENCE = 60.0
"""Seconds that the writers at work have to come to an end."""


class AsyncForgetting(AsyncOnly):
    """What a store on Postgres does of it."""

    _database: AsyncDatabase
    _indexes: AsyncIndexes
    _kv_files: KVFiles | None

    @abstractmethod
    async def _open(self) -> None: ...

    async def aforget(self, namespace: Namespace, *, actor: str = "", vacuum: bool = False) -> Erasure:
        check_forget(namespace, actor)
        await self._open()
        erasure, files = await forget(self._database, namespace, actor)
        left = await asyncio.to_thread(remove, self._kv_files, files)
        await self._indexes.refresh()
        if vacuum:
            await rewrite(self._database)
        if left:
            raise left_behind(left)
        return erasure

    async def aerasures(self) -> list[Erasure]:
        await self._open()
        return [records.erasure_of(found) for found in await self._database.fetch("erasures", {})]


async def forget(database: AsyncDatabase, namespace: Namespace, actor: str) -> tuple[Erasure, list[str]]:
    """Erase a namespace and all below it, in every table that has a column `namespace`.

    Returns: its receipt, and the files of compressed memories that are to go with it.

    Raises:
        StoreError: a writer has been at work for a minute, or a right is missing; nothing was erased.
    """
    where = {"namespace": records.encode(namespace), "schema": database.db_schema}
    salt = os.urandom(16).hex()
    digest = await asyncio.to_thread(erasure_digest, namespace, salt)
    receipt = {"id": str(uuid.uuid4()), "salt": salt, "digest": digest, "actor": actor}
    await _writers_are_done(database)
    failed = False

    async def erase(conn: AsyncConn) -> tuple[Erasure, list[str]]:
        nonlocal failed
        await conn.execute(query("one_snapshot", database.db_schema))
        if failed:  # a writer changed what was being erased: the next one waits
            await database.fetch_in(conn, "no_writers", {})
        failed = True
        files = [record["file"] for record in await database.fetch_in(conn, "kv_files", where, "prefix")]
        found = await database.fetch_in(conn, "tables_with_namespaces", where, "prefix")
        tables, counts = [record["name"] for record in found], {}
        for table in tables:
            gone = await database.fetch_in(conn, "erase", where, "prefix", table)
            counts[table] = gone[0]["rows"]
        for index in await database.fetch_in(conn, "indexes_that_name", where, "prefix"):
            if not index["ours"]:
                raise StoreError(
                    "The namespace has an index, which only the tables' owner may drop: forget as the owner, "
                    "or let them drop the index first. Nothing was erased."
                )
            await database.fetch_in(conn, "drop_index", where, "prefix", index["name"])
        above = {"namespace": EVERYTHING, "erased": where["namespace"]}
        await database.fetch_in(conn, "forget_terms_above", above)
        await database.fetch_in(conn, "forget_samples_above", above)
        await database.fetch_in(conn, "renew_statistics", {"schema": database.db_schema, "tables": tables})
        noted = await database.fetch_in(conn, "insert_erasure", {**receipt, "counts": Jsonb(counts)})
        return records.erasure_of({**receipt, **noted[0], "counts": counts}), files

    return await database.transaction(erase)


async def _writers_are_done(database: AsyncDatabase) -> None:
    """Wait for the transactions that write now; those that begin meanwhile are not waited for."""
    until, waited_for = time.monotonic() + PATIENCE, None
    while waited_for != set():
        found = await database.fetch("writers", {"schema": database.db_schema})
        now = {record["writer"] for record in found}
        waited_for = now if waited_for is None else waited_for & now
        if waited_for and time.monotonic() > until:
            raise StoreError(
                f"A transaction has been writing for more than {PATIENCE:.0f} seconds; nothing was erased. "
                "Find it in pg_stat_activity, end it, and try again."
            )
        if waited_for:
            await asyncio.sleep(0.01)


async def rewrite(database: AsyncDatabase) -> None:
    """Write the tables into new files, so that the old ones, with what was erased, can go.

    Raises:
        StoreError: the role does not own the tables.
    """
    found = await database.fetch("tables_with_namespaces", {"schema": database.db_schema})
    if not all(record["ours"] for record in found):
        raise StoreError(
            "It was erased, but only who owns the tables may rewrite them: "
            f'ask for VACUUM FULL of schema "{database.db_schema}".'
        )
    for record in found:
        await database.fetch("rewrite", {}, relation=record["name"])
    await database.fetch("rewrite_statistics", {})
