"""Forgetting, exports and imports of the store without a database."""

from __future__ import annotations

import os
import threading
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime

from memgraph_plugin.models.embeddings import embedding_name
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.exported import Header, lines_of
from memgraph_plugin.store.past_in_memory import Vectors
from memgraph_plugin.store.spool import aspool, spool
from memgraph_plugin.store.storable import check_forget, check_prefix
from memgraph_plugin.store.table import Table
from memgraph_plugin.types import Erasure, Imported, Namespace, erasure_digest


class InMemoryPortability(MemoryStore):
    """What the in-memory store does of it."""

    _table: Table
    _lock: threading.RLock
    _dimension: int | None
    _erasures: list[Erasure]

    @abstractmethod
    def _embed(self, texts: list[str], queries: list[str]) -> Vectors: ...

    @abstractmethod
    async def _aembed(self, texts: list[str], queries: list[str]) -> Vectors: ...

    @abstractmethod
    def _probe(self) -> list[str]: ...

    @abstractmethod
    def _delete_kv_below(self, prefix: Namespace) -> dict[str, int]: ...

    def forget(self, namespace: Namespace, *, actor: str = "", vacuum: bool = False) -> Erasure:  # noqa: ARG002
        check_forget(namespace, actor)
        salt = os.urandom(16).hex()
        receipt = {"id": str(uuid.uuid4()), "salt": salt, "digest": erasure_digest(namespace, salt)}
        with self._lock:
            counts = self._table.forget(namespace) | self._delete_kv_below(namespace)
            now = datetime.now(UTC)
            self._erasures.append(Erasure(**receipt, counts=counts, erased_at=now, actor=actor))
            return self._erasures[-1]

    def erasures(self) -> list[Erasure]:
        with self._lock:
            return list(self._erasures)

    def export(self, namespace: Namespace = (), *, vectors: bool = False) -> Iterator[str]:
        check_prefix(namespace)
        self._embed([], self._probe())
        yield from self._exported(namespace, vectors)

    async def aexport(self, namespace: Namespace = (), *, vectors: bool = False) -> AsyncIterator[str]:
        check_prefix(namespace)
        await self._aembed([], self._probe())
        for line in self._exported(namespace, vectors):
            yield line

    def import_(self, lines: Iterable[str]) -> Imported:
        self._embed([], self._probe())
        with spool(lines) as spooled:
            for texts in spooled.texts_to_embed(self._model()):
                spooled.add_vectors(texts, self._embed(texts, []).texts)
            with self._lock:
                return self._table.restore(spooled)

    async def aimport(self, lines: Iterable[str] | AsyncIterable[str]) -> Imported:
        await self._aembed([], self._probe())
        with await aspool(lines) as spooled:
            for texts in spooled.texts_to_embed(self._model()):
                spooled.add_vectors(texts, (await self._aembed(texts, [])).texts)
            with self._lock:
                return self._table.restore(spooled)

    def _exported(self, namespace: Namespace, vectors: bool) -> Iterator[str]:
        with self._lock:
            entries = self._table.exported(namespace)
        return lines_of(entries, Header(namespace, self._model()), None, vectors=vectors)

    def _model(self) -> tuple[str, int] | None:
        if self.embeddings is None or self._dimension is None:
            return None
        return embedding_name(self.embeddings), self._dimension
