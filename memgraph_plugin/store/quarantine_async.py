"""The quarantine on Postgres. This is the source; `quarantine.py` is generated from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from memgraph_plugin.store import records
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase
from memgraph_plugin.store.held import checked_id, not_held
from memgraph_plugin.store.journal import Batch, Plan, Step
from memgraph_plugin.store.sealing import Sealer
from memgraph_plugin.store.storable import check_batch, check_namespace
from memgraph_plugin.types import Held, Namespace, Receipts


class AsyncHolding(AsyncOnly):
    """What a store on Postgres does of it."""

    _database: AsyncDatabase
    _sealer: Sealer | None

    async def aquarantined(self, namespace: Namespace) -> list[Held]:
        check_namespace(namespace)
        await self._open()
        found = await self._database.fetch("quarantined", {"namespace": records.encode(namespace)})
        return [records.quarantined_of(record).held for record in found]

    async def arelease(
        self,
        namespace: Namespace,
        held_id: str,
        *,
        actor: str = "",
        idempotency_key: str | None = None,
    ) -> Receipts:
        check_namespace(namespace)
        check_batch(idempotency_key, actor, "release")
        await self._open()
        if idempotency_key is not None and (replayed := await self._replayed(namespace, idempotency_key)):
            return replayed
        where = {"namespace": records.encode(namespace), "id": checked_id(held_id)}
        found = await self._database.fetch("held", where)
        if not found:
            raise not_held(held_id)
        operation = records.quarantined_of(found[0]).held.operation
        return await self._commit(
            namespace,
            [operation],
            idempotency_key=idempotency_key,
            actor=actor,
            policy="release",
            releases=where["id"],
        )

    async def adiscard(self, namespace: Namespace, held_id: str) -> bool:
        check_namespace(namespace)
        where = {"namespace": records.encode(namespace), "id": checked_id(held_id)}
        await self._open()
        return bool(await self._database.fetch("discard", where))

    async def _hold(self, conn: AsyncConn, batch: Batch, made: Plan) -> None:
        """What a batch adds to the quarantine, and what it takes out, in its transaction.

        Raises:
            MemoryNotFound: somebody else has released or discarded it meanwhile; nothing is applied.
        """
        if made.held:
            rows = [records.quarantine_row(self._sealer, batch.namespace, each) for each in made.held]
            await self._database.write_in(conn, "hold", rows)
        if batch.releases is not None and made.changes:
            where = {"namespace": records.encode(batch.namespace), "id": batch.releases}
            if not await self._database.fetch_in(conn, "discard", where):
                raise not_held(batch.releases)

    # What the other half does.

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _replayed(self, namespace: Namespace, idempotency_key: str) -> Receipts | None: ...

    @abstractmethod
    async def _commit(self, namespace: Namespace, operations: Sequence[Step], **options: Any) -> Receipts: ...
