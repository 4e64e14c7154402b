"""The sync methods of a store whose native ones are async, for threads that are not its loop's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from langgraph.store.base import Op, Result

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.sweeper import SweptByTask
from memgraph_plugin.types import (
    Erasure,
    Held,
    Hit,
    Imported,
    KVRecord,
    LoggedBatch,
    Memory,
    MemoryKind,
    MemoryVersion,
    Namespace,
    Operation,
    Receipt,
    Receipts,
)

T = TypeVar("T")


class AsyncOnly(SweptByTask):
    """A store whose native methods are async. Its sync methods work from any other thread than its loop's."""

    _ready: bool
    _opening: asyncio.Lock

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def _bind(self) -> None:
        """Belong to the running loop, which owns the connections; another one has to have ended before.

        Raises:
            ConfigurationError: the store belongs to another loop, which still runs.
        """
        running = asyncio.get_running_loop()
        if running is self._loop:
            return
        if self._loop is not None and self._loop.is_running():
            name = type(self).__name__
            raise ConfigurationError(f"This {name} is used in another event loop: make one for each loop.")
        self._leave()
        self._loop = running

    def _leave(self) -> object:
        """Belong to no loop, and have no connections; see `AsyncDatabase.leave`."""
        raise NotImplementedError

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if self._loop is None or running is self._loop or not self._loop.is_running():
            work.close()
            name = type(self).__name__
            raise ConfigurationError(
                f"{name} was called synchronously "
                + ("inside its event loop" if running else "without an open event loop")
                + f": await the method with the `a` prefix, or use {name.removeprefix('Async')}."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> T | None:
            return await anext(items, None)

        while (item := self._wait(following())) is not None:
            yield item

    def apply(
        self,
        namespace: Namespace,
        operations: Sequence[Operation],
        *,
        idempotency_key: str | None = None,
        actor: str = "",
        policy: str = "",
        held: Sequence[Held] = (),
        rejected: Sequence[Receipt] = (),
        requires: Collection[str] = (),
    ) -> Receipts:
        options: dict[str, Any] = {"actor": actor, "policy": policy, "held": held}
        options |= {"rejected": rejected, "requires": requires}
        return self._wait(self.aapply(namespace, operations, idempotency_key=idempotency_key, **options))

    def recall(
        self,
        namespace: Namespace,
        query: str,
        *,
        k: int = 10,
        kinds: Sequence[MemoryKind] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        token_budget: int | None = None,
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        words_only: bool = False,
    ) -> list[Hit]:
        return self._wait(
            self.arecall(
                namespace,
                query,
                k=k,
                kinds=kinds,
                filter=filter,
                token_budget=token_budget,
                valid_at=valid_at,
                known_at=known_at,
                words_only=words_only,
            )
        )

    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        return self._wait(self.ahistory(namespace, key))

    def as_of(
        self,
        namespace: Namespace,
        *,
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        kinds: Sequence[MemoryKind] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> list[Memory]:
        return self._wait(
            self.aas_of(namespace, valid_at=valid_at, known_at=known_at, kinds=kinds, filter=filter)
        )

    def log(self, namespace: Namespace, *, limit: int = 20) -> list[LoggedBatch]:
        return self._wait(self.alog(namespace, limit=limit))

    def undo(
        self, namespace: Namespace, batch_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        return self._wait(self.aundo(namespace, batch_id, actor=actor, idempotency_key=idempotency_key))

    def quarantined(self, namespace: Namespace) -> list[Held]:
        return self._wait(self.aquarantined(namespace))

    def release(
        self,
        namespace: Namespace,
        held_id: str,
        *,
        actor: str = "",
        idempotency_key: str | None = None,
    ) -> Receipts:
        return self._wait(self.arelease(namespace, held_id, actor=actor, idempotency_key=idempotency_key))

    def discard(self, namespace: Namespace, held_id: str) -> bool:
        return self._wait(self.adiscard(namespace, held_id))

    def delete_namespace(self, prefix: Namespace, *, actor: str = "") -> int:
        return self._wait(self.adelete_namespace(prefix, actor=actor))

    def count(self, prefix: Namespace) -> int:
        return self._wait(self.acount(prefix))

    def forget(self, namespace: Namespace, *, actor: str = "", vacuum: bool = False) -> Erasure:
        return self._wait(self.aforget(namespace, actor=actor, vacuum=vacuum))

    def erasures(self) -> list[Erasure]:
        return self._wait(self.aerasures())

    def export(self, namespace: Namespace = (), *, vectors: bool = False) -> Iterator[str]:
        return self._each(self.aexport(namespace, vectors=vectors))

    def import_(self, lines: Iterable[str]) -> Imported:
        return self._wait(self.aimport(lines))

    def save_kv(
        self,
        namespace: Namespace,
        key: str,
        header: Mapping[str, Any],
        parts: Iterable[bytes],
        *,
        after: int = 0,
        version: int | None = None,
    ) -> KVRecord:
        return self._wait(self.asave_kv(namespace, key, header, parts, after=after, version=version))

    def load_kv(self, namespace: Namespace, key: str) -> KVRecord | None:
        return self._wait(self.aload_kv(namespace, key))

    def kv_parts(self, namespace: Namespace, key: str, *, version: int | None = None) -> Iterator[bytes]:
        return self._each(self.akv_parts(namespace, key, version=version))

    def list_kv(self, namespace: Namespace = ()) -> list[KVRecord]:
        return self._wait(self.alist_kv(namespace))

    def delete_kv(self, namespace: Namespace, key: str) -> bool:
        return self._wait(self.adelete_kv(namespace, key))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return self._wait(self.abatch(ops))
