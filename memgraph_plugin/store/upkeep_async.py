"""What keeps the Postgres store in order: sweep, count, delete a namespace. This is
the source; `scripts/generate_sync.py` makes `upkeep.py` of it."""

from __future__ import annotations

from abc import abstractmethod
from itertools import groupby

from memgraph_plugin.store import records
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.compressed_async import delete
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase
from memgraph_plugin.store.kv_files import KVFiles
from memgraph_plugin.store.storable import check_namespace, check_prefix
from memgraph_plugin.types import Delete, Namespace

BATCH = 1_000
"""Memories that one transaction sweeps or deletes."""

EVERYTHING = "."
"""What a sweep is about, as row-level security is told: no namespace is called so."""


class AsyncUpkeep(AsyncOnly):
    """The part of the Postgres store that works in the background, or on many namespaces at once."""

    _database: AsyncDatabase
    _kv_files: KVFiles | None

    @abstractmethod
    async def _open(self) -> None:
        """Check what stands in the database and open the connections, the first time."""

    async def sweep_ttl(self) -> int:
        await self._open()
        swept, more = 0, True
        where = {"namespace": EVERYTHING, "limit": BATCH}

        async def sweep(conn: AsyncConn) -> tuple[int, bool]:
            found = (await self._database.fetch_in(conn, "sweep_ttl", where))[0]
            return found["swept"], found["most"] == BATCH

        while more:
            done, more = await self._database.transaction(sweep)
            swept += done
        return swept

    async def acount(self, prefix: Namespace) -> int:
        check_prefix(prefix)
        await self._open()
        where = {"namespace": records.encode(prefix)}
        return int((await self._database.fetch("count", where, records.scope_of(prefix)))[0]["count"])

    async def adelete_namespace(self, prefix: Namespace, *, actor: str = "") -> int:
        check_namespace(prefix)
        await self._open()
        compressed = {"namespace": records.encode(prefix)}
        await delete(self._database, self._kv_files, "delete_kv_below", compressed, "prefix")
        deleted, after = 0, ("", "")
        while True:
            where = {
                "namespace": records.encode(prefix),
                "after_namespace": after[0],
                "after_key": after[1],
                "limit": BATCH,
            }
            found = await self._database.fetch("keys_after", where, "prefix")
            for namespace, keys in groupby(found, lambda record: record["namespace"]):
                deletes = [Delete(key=record["key"]) for record in keys]
                receipts = await self.aapply(records.decode(namespace), deletes, actor=actor)
                deleted += len(receipts.applied)
            if len(found) < BATCH:
                return deleted
            after = (found[-1]["namespace"], found[-1]["key"])
