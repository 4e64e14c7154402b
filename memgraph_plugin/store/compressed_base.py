"""What every memory store promises of compressed memories: a model's keys and values of a text.

The store knows nothing of models. It keeps a header, which is the caller's JSON, and the bytes of each
window; a window that was saved never changes.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from langgraph.store.base import BaseStore

from memgraph_plugin.types import KVRecord, Namespace


class CompressedStore(BaseStore):
    """The part of a `MemoryStore` that keeps compressed memories; async twins have the prefix `a`.

    They have keys of their own: a memory and a compressed one may have the same. They have no history, and
    are not in exports, since they can be made again from the text; `delete_namespace` deletes them for good.
    """

    @abstractmethod
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
        """Write a header, and windows (`parts`) of any size, numbered from `after` on; all of it, or nothing.

        Without `version`, the memory is new. To replace one, give the version that was read; to add to one,
        also `after`, which is how many windows it has. Adding none writes the header alone. The parts are
        taken one by one, and set down on disk, before a transaction opens.

        Raises:
            InvalidNamespaceError, InvalidValue: an argument cannot work, a part is no bytes, or the header no
                JSON.
            VersionConflict: what is there is not what was read; also where somebody else was quicker.
            DatabaseUnavailable: there is no database, or the connection was lost. If that was at the very
                end, it may have been saved: load it and look at its version.
            StoreError: the database or the disk failed.
                In all other cases nothing was written. What `parts` raises comes through.
        """

    @abstractmethod
    def load_kv(self, namespace: Namespace, key: str) -> KVRecord | None:
        """The header of a compressed memory and what is known of it; None where there is none."""

    @abstractmethod
    def kv_parts(self, namespace: Namespace, key: str, *, version: int | None = None) -> Iterator[bytes]:
        """The windows of a compressed memory, in order, one at a time, as they are at the first one.

        With `version`, that of exactly this one: it fits the header that was loaded.

        Raises:
            MemoryNotFound: there is none.
            VersionConflict: it has another version.
            FingerprintMismatch: bytes are missing, or not those that were saved (by sha256).
            SealBroken: they are sealed, and do not open.
        """

    @abstractmethod
    def list_kv(self, namespace: Namespace = ()) -> list[KVRecord]:
        """The compressed memories of a namespace and of all below it, in order; `()` lists all there are."""

    @abstractmethod
    def delete_kv(self, namespace: Namespace, key: str) -> bool:
        """Delete a compressed memory for good; False where there was none.

        Raises:
            StoreError: a file of it could not be removed, and is named; the database holds nothing of it.
        """

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
        """Async twin of `save_kv`; the parts are taken in a thread."""
        return await asyncio.to_thread(
            self.save_kv, namespace, key, header, parts, after=after, version=version
        )

    async def aload_kv(self, namespace: Namespace, key: str) -> KVRecord | None:
        """Async twin of `load_kv`."""
        return await asyncio.to_thread(self.load_kv, namespace, key)

    async def akv_parts(
        self, namespace: Namespace, key: str, *, version: int | None = None
    ) -> AsyncIterator[bytes]:
        """Async twin of `kv_parts`."""
        parts = self.kv_parts(namespace, key, version=version)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            yield part

    async def alist_kv(self, namespace: Namespace = ()) -> list[KVRecord]:
        """Async twin of `list_kv`."""
        return await asyncio.to_thread(self.list_kv, namespace)

    async def adelete_kv(self, namespace: Namespace, key: str) -> bool:
        """Async twin of `delete_kv`."""
        return await asyncio.to_thread(self.delete_kv, namespace, key)
