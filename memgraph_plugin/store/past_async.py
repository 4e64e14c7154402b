"""The past on Postgres, and taking batches back. This is the source; `past.py` is generated from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from memgraph_plugin.errors import BatchNotFound, MemoryNotFound
from memgraph_plugin.store import records, timeline
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.base import MAX_RESULTS
from memgraph_plugin.store.database_async import AsyncDatabase, Record
from memgraph_plugin.store.entry import cosine, embedded, entry_of, ranked, unembedded
from memgraph_plugin.store.journal import Row, Step
from memgraph_plugin.store.storable import check_batch, check_key, check_kinds, check_moments, check_namespace
from memgraph_plugin.types import Hit, LoggedBatch, Memory, MemoryKind, MemoryVersion, Namespace, Receipts


class AsyncPast(AsyncOnly):
    """The half of the Postgres store that reads the log."""

    language: str
    _database: AsyncDatabase

    async def ahistory(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        check_namespace(namespace)
        check_key(key, "key")
        await self._open()
        where = {"namespace": records.encode(namespace), "keys": [key]}
        found = await self._database.fetch("history", where)
        if not found:
            raise MemoryNotFound(f"There never was a memory {key!r} in this namespace.")
        return timeline.history_of([line.version for line in records.histories_of(found)[key]])

    async def aas_of(
        self,
        namespace: Namespace,
        *,
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        kinds: Sequence[MemoryKind] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> list[Memory]:
        check_namespace(namespace)
        check_kinds(kinds)
        check_moments(valid_at=valid_at, known_at=known_at)
        await self._open()
        rows, _ = await self._believed(namespace, valid_at, known_at, kinds, filter)
        return [row.memory for row in rows]

    async def alog(self, namespace: Namespace, *, limit: int = 20) -> list[LoggedBatch]:
        check_namespace(namespace)
        await self._open()
        where = {"namespace": records.encode(namespace), "limit": min(max(limit, 0), MAX_RESULTS)}
        return [records.logged_of(found) for found in await self._database.fetch("log", where)]

    async def aundo(
        self, namespace: Namespace, batch_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        check_namespace(namespace)
        check_batch(idempotency_key, actor, "undo")
        await self._open()
        if idempotency_key is not None and (replayed := await self._replayed(namespace, idempotency_key)):
            return replayed
        encoded = records.encode(namespace)
        where = {"namespace": encoded, "batch_id": timeline.checked_batch_id(batch_id)}
        found = await self._database.fetch("logged_batch", where)
        if not found:
            raise BatchNotFound(f"There is no batch {batch_id} in this namespace.")
        logged = records.logged_of(found[0])
        keys = [receipt.key for receipt in logged.applied]
        lines = await self._database.fetch("history", {"namespace": encoded, "keys": keys})
        steps = timeline.undoing(logged, records.histories_of(lines))
        return await self._commit(
            namespace, steps, idempotency_key=idempotency_key, actor=actor, policy="undo"
        )

    async def _recall_past(
        self,
        namespace: Namespace,
        query: str,
        kinds: Sequence[MemoryKind] | None,
        filter: Mapping[str, Any] | None,  # noqa: A002
        valid_at: datetime | None,
        known_at: datetime | None,
        words_only: bool,
    ) -> list[Hit]:
        """What answers a query, of all that was so then, best first; ranked here, not in the database."""
        check_moments(valid_at=valid_at, known_at=known_at)
        await self._open()
        towards = await self._towards(query) if query.strip() and not words_only else None
        rows, found = await self._believed(namespace, valid_at, known_at, kinds, filter, towards)
        if not query.strip():
            return [Hit(row.memory, 0.0) for row in rows]
        known = {(record["key"], record["version"]): record["cosine"] for record in found}
        cosines = [known[row.memory.key, row.memory.version] for row in rows]
        entries = [entry_of(row, None) for row in rows]
        if towards is not None:
            new = [entry for entry, near in zip(entries, cosines, strict=True) if near is None]
            made = iter(embedded(new, await self._embed(unembedded(new))))
            cosines = [cosine(towards, next(made)) if near is None else near for near in cosines]
        return [hit for _, hit in ranked(entries, cosines, query, self.language)]

    async def _believed(
        self,
        namespace: Namespace,
        valid_at: datetime | None,
        known_at: datetime | None,
        kinds: Sequence[MemoryKind] | None,
        filter: Mapping[str, Any] | None,  # noqa: A002
        towards: Sequence[float] | None = None,
    ) -> tuple[list[Row], list[Record]]:
        """What was so, and the records that say so."""
        where = {
            "namespace": records.encode(namespace),
            "known_at": known_at,
            **self._question(towards),
        }
        found = await self._database.fetch("past", where)
        now = found[0]["asked_at"] if found else timeline.ALWAYS
        rows = timeline.believed(
            records.histories_of(found).values(),
            timeline.Moment(now, valid_at, known_at),
            kinds=kinds,
            filter=filter,
            language=self.language,
        )
        return rows, found

    # What the other half does.

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _replayed(self, namespace: Namespace, idempotency_key: str) -> Receipts | None: ...

    @abstractmethod
    async def _commit(self, namespace: Namespace, operations: Sequence[Step], **options: Any) -> Receipts: ...

    @abstractmethod
    async def _embed(self, texts: list[str]) -> dict[str, Sequence[float]]: ...

    @abstractmethod
    async def _towards(self, query: str) -> Sequence[float] | None: ...

    @abstractmethod
    def _question(self, towards: Sequence[float] | None) -> dict[str, Any]: ...
