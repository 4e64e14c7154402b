"""What every memory store promises of its quarantine: operations that were refused for safety, and wait.

They come there by `apply(..., held=...)`, in the transaction of what was applied beside them.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from langgraph.store.base import BaseStore

from memgraph_plugin.types import Held, Namespace, Receipts


class QuarantineStore(BaseStore):
    """The part of a `MemoryStore` that holds refused operations; async twins have the prefix `a`.

    Nothing of it is recalled, listed, or seen in a history, until it is released. It is forgotten, sealed,
    exported and imported with the rest of its namespace; `delete_namespace` leaves it.
    """

    @abstractmethod
    def quarantined(self, namespace: Namespace) -> list[Held]:
        """What is held in exactly this namespace, the newest first.

        Raises:
            InvalidNamespaceError: the namespace is empty, or a label is empty or has a dot.
            SealBroken: it is sealed, and does not open.
        """

    @abstractmethod
    def release(
        self, namespace: Namespace, held_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        """Apply what is held as an ordinary operation, in a batch of policy "release"; it is held no more.

        One transaction. Where the memory that it would change is not as it was when this was proposed
        (`version_conflict`, `not_found`), or its key is taken (`key_exists`), it is rejected and stays held.
        It is not looked at again for safety: whoever releases it has.

        Raises:
            MemoryNotFound: nothing is held under this id; it may have been released or discarded.
            InvalidNamespaceError, InvalidValue, StoreError: as `apply`.
        """

    @abstractmethod
    def discard(self, namespace: Namespace, held_id: str) -> bool:
        """Let go of what is held, for good; False where nothing is held under this id.

        Raises:
            MemoryNotFound: nothing can have such an id.
        """

    async def aquarantined(self, namespace: Namespace) -> list[Held]:
        """Async twin of `quarantined`."""
        return await asyncio.to_thread(self.quarantined, namespace)

    async def arelease(
        self, namespace: Namespace, held_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        """Async twin of `release`."""
        return await asyncio.to_thread(
            self.release, namespace, held_id, actor=actor, idempotency_key=idempotency_key
        )

    async def adiscard(self, namespace: Namespace, held_id: str) -> bool:
        """Async twin of `discard`."""
        return await asyncio.to_thread(self.discard, namespace, held_id)
