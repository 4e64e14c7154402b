"""The half of the in-memory store that reads the log: the past, and taking batches back."""

from __future__ import annotations

import copy
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from memgraph_plugin.errors import BatchNotFound, MemoryNotFound
from memgraph_plugin.store.entry import Entry, entry_of, unembedded
from memgraph_plugin.store.journal import Batch, Row, Step, texts_to_embed
from memgraph_plugin.store.storable import check_batch, check_key, check_kinds, check_moments, check_namespace
from memgraph_plugin.store.sweeper import SweptByThread
from memgraph_plugin.store.table import Table
from memgraph_plugin.store.timeline import Moment, believed, checked_batch_id, history_of, undoing
from memgraph_plugin.types import LoggedBatch, Memory, MemoryKind, MemoryVersion, Namespace, Receipts


@dataclass(frozen=True, slots=True)
class Vectors:
    """What the model said: vectors by the text, or (of length 1) by the query, that they stand for."""

    texts: Mapping[str, Sequence[float]]
    queries: Mapping[str, Sequence[float] | None]


class InMemoryPast(SweptByThread):
    """`history`, `as_of`, `log`, `undo`, and what of the past `recall` ranks."""

    _lock: threading.RLock
    _table: Table

    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        check_namespace(namespace)
        check_key(key, "key")
        with self._lock:
            versions = [line.version for line in self._table.lines(namespace, key)]
        if not versions:
            raise MemoryNotFound(f"There never was a memory {key!r} in this namespace.")
        return copy.deepcopy(history_of(versions))

    def as_of(
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
        rows = self._believed(namespace, kinds, filter, valid_at, known_at)
        return [copy.deepcopy(row.memory) for row in rows]

    def log(self, namespace: Namespace, *, limit: int = 20) -> list[LoggedBatch]:
        check_namespace(namespace)
        with self._lock:
            return list(reversed(self._table.logged(namespace)))[: max(limit, 0)]

    def undo(
        self, namespace: Namespace, batch_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        if replayed := self._checked_undo(namespace, idempotency_key, actor):
            return replayed
        steps = self._undoing(namespace, batch_id)
        vectors = self._embed(texts_to_embed(steps, None), [])
        options = {"idempotency_key": idempotency_key, "actor": actor, "policy": "undo"}
        return self._apply(self._batch(namespace, vectors, **options), steps)

    async def aundo(
        self, namespace: Namespace, batch_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        if replayed := self._checked_undo(namespace, idempotency_key, actor):
            return replayed
        steps = self._undoing(namespace, batch_id)
        vectors = await self._aembed(texts_to_embed(steps, None), [])
        options = {"idempotency_key": idempotency_key, "actor": actor, "policy": "undo"}
        return self._apply(self._batch(namespace, vectors, **options), steps)

    def _checked_undo(self, namespace: Namespace, idempotency_key: str | None, actor: str) -> Receipts | None:
        check_namespace(namespace)
        check_batch(idempotency_key, actor, "undo")
        return self._replayed(namespace, idempotency_key)

    def _undoing(self, namespace: Namespace, batch_id: str) -> list[Step]:
        wanted = checked_batch_id(batch_id)
        with self._lock:
            batch = next((b for b in self._table.logged(namespace) if b.batch_id == wanted), None)
            if batch is None:
                raise BatchNotFound(f"There is no batch {batch_id} in this namespace.")
            keys = [receipt.key for receipt in batch.applied if receipt.key is not None]
            return [*undoing(batch, {key: self._table.lines(namespace, key) for key in keys})]

    def _readable(
        self,
        namespace: Namespace,
        query: str,
        kinds: Sequence[MemoryKind] | None,
        filter: Mapping[str, Any] | None,  # noqa: A002
        valid_at: datetime | None,
        known_at: datetime | None,
    ) -> tuple[list[Entry], list[str]]:
        """What `recall` ranks, and the texts of it that are still to be embedded."""
        if valid_at is None and known_at is None:
            with self._lock:
                return self._table.newest([namespace], datetime.now(UTC), filter=filter, kinds=kinds), []
        with self._lock:
            rows = self._believed(namespace, kinds, filter, valid_at, known_at)
            if not query.strip():
                return [Entry(row, Counter(), None) for row in rows], []
            today = {row.memory.key: self._table.today(namespace, row.memory.key) for row in rows}
        entries = [
            Entry(row, now.terms, now.embedding)
            if (now := today[row.memory.key]) and now.memory.text == row.memory.text
            else entry_of(row, None)
            for row in rows
        ]
        return entries, unembedded(entries)

    def _believed(
        self,
        namespace: Namespace,
        kinds: Sequence[MemoryKind] | None,
        filter: Mapping[str, Any] | None,  # noqa: A002
        valid_at: datetime | None,
        known_at: datetime | None,
    ) -> list[Row]:
        check_moments(valid_at=valid_at, known_at=known_at)
        with self._lock:
            moment = Moment(datetime.now(UTC), valid_at, known_at)
            return believed(self._table.histories(namespace), moment, kinds=kinds, filter=filter)

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
