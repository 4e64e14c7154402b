"""The quarantine of the store without a database."""

from __future__ import annotations

import copy
import threading
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from memgraph_plugin.store.held import checked_id, not_held
from memgraph_plugin.store.journal import Batch, Step, texts_to_embed
from memgraph_plugin.store.past_in_memory import Vectors
from memgraph_plugin.store.quarantine_base import QuarantineStore
from memgraph_plugin.store.storable import check_batch, check_namespace
from memgraph_plugin.store.table import Table
from memgraph_plugin.types import Held, Namespace, Operation, Receipts


class InMemoryHolding(QuarantineStore):
    """What the in-memory store does of it."""

    _lock: threading.RLock
    _table: Table

    def quarantined(self, namespace: Namespace) -> list[Held]:
        check_namespace(namespace)
        with self._lock:
            return copy.deepcopy(self._table.quarantined(namespace))

    def release(
        self,
        namespace: Namespace,
        held_id: str,
        *,
        actor: str = "",
        idempotency_key: str | None = None,
    ) -> Receipts:
        if replayed := self._checked_release(namespace, actor, idempotency_key):
            return replayed
        operations = self._held(namespace, held_id)
        vectors = self._embed(texts_to_embed(operations, None), [])
        return self._released(namespace, held_id, operations, vectors, actor, idempotency_key)

    async def arelease(
        self,
        namespace: Namespace,
        held_id: str,
        *,
        actor: str = "",
        idempotency_key: str | None = None,
    ) -> Receipts:
        if replayed := self._checked_release(namespace, actor, idempotency_key):
            return replayed
        operations = self._held(namespace, held_id)
        vectors = await self._aembed(texts_to_embed(operations, None), [])
        return self._released(namespace, held_id, operations, vectors, actor, idempotency_key)

    def discard(self, namespace: Namespace, held_id: str) -> bool:
        check_namespace(namespace)
        with self._lock:
            return self._table.let_go(namespace, checked_id(held_id))

    def _checked_release(
        self, namespace: Namespace, actor: str, idempotency_key: str | None
    ) -> Receipts | None:
        check_namespace(namespace)
        check_batch(idempotency_key, actor, "release")
        return self._replayed(namespace, idempotency_key)

    def _held(self, namespace: Namespace, held_id: str) -> list[Operation]:
        with self._lock:
            found = self._table.held(namespace, checked_id(held_id))
        if found is None:
            raise not_held(held_id)
        return [found.operation]

    def _released(
        self,
        namespace: Namespace,
        held_id: str,
        operations: Sequence[Step],
        vectors: Vectors,
        actor: str,
        idempotency_key: str | None,
    ) -> Receipts:
        options = {"actor": actor, "idempotency_key": idempotency_key, "releases": checked_id(held_id)}
        return self._apply(self._batch(namespace, vectors, policy="release", **options), operations)

    def _let_go(self, namespace: Namespace, held_id: str) -> None:
        if not self._table.let_go(namespace, held_id):  # somebody else was quicker
            raise not_held(held_id)

    # What the other half does.

    @abstractmethod
    def _replayed(self, namespace: Namespace, idempotency_key: str | None) -> Receipts | None: ...

    @abstractmethod
    def _batch(self, namespace: Namespace, vectors: Vectors, **options: Any) -> Batch: ...

    @abstractmethod
    def _apply(self, batch: Batch, operations: Sequence[Step]) -> Receipts: ...

    @abstractmethod
    def _embed(self, texts: list[str], queries: list[str]) -> Vectors: ...

    @abstractmethod
    async def _aembed(self, texts: list[str], queries: list[str]) -> Vectors: ...
