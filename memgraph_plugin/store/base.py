"""What every memory store promises, and the pure parts that all of them share.

A `MemoryStore` is a LangGraph `BaseStore` (get, put, search, delete, list_namespaces, batch) with the memory
operations beside it: `apply`, `recall`, `history`. Each has an async twin with LangGraph's `a` prefix.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

from langchain_core.embeddings import Embeddings
from langgraph.store.base import BaseStore, IndexConfig, Op, Result, ensure_embeddings

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.models.embeddings import load_embeddings
from memgraph_plugin.types import Hit, MemoryKind, MemoryVersion, Namespace, Operation, Receipts

MAX_RESULTS = 1_000_000_000
"""Results that one call returns at most, and skips at most."""

MAX_OPERATIONS = 20_000
"""Operations in one batch, at most."""


Ranking = Literal["vector", "hybrid"]


class SearchConfig(IndexConfig, total=False):
    """LangGraph's index configuration, and how `search` ranks what answers a query.

    "vector", LangGraph's own way, is by cosine alone; "hybrid" is as `recall` does.
    """

    search: Ranking


def search_ranking(index: IndexConfig | SearchConfig | None) -> Ranking:
    """How `search` ranks: "vector" unless the index configuration says otherwise.

    Raises:
        ConfigurationError: it says neither.
    """
    ranking = index.get("search", "vector") if index else "vector"
    if ranking not in get_args(Ranking):
        raise ConfigurationError(f'index["search"] is "vector" or "hybrid", not {ranking!r}.')
    return cast(Ranking, ranking)


def embedder(index: IndexConfig | None, embeddings: str | Embeddings | None) -> Embeddings | None:
    """The model that a store was given, in LangGraph's index configuration or beside it, by name or itself.

    Raises:
        ConfigurationError, MissingExtraError: as `load_embeddings` does.
    """
    given = embeddings if embeddings is not None else index.get("embed") if index else None
    if isinstance(given, str):
        return load_embeddings(given)
    return None if given is None else ensure_embeddings(given)


class MemoryStore(BaseStore):
    """A LangGraph store that decides nothing and forgets nothing: versions, a log, and search that finds.

    `embeddings` is None for a store that ranks by words alone. `search` with a query ranks as LangGraph's
    stores do: by cosine alone, which is the score; by words where there are no embeddings.
    """

    embeddings: Embeddings | None

    @abstractmethod
    def apply(
        self,
        namespace: Namespace,
        operations: Sequence[Operation],
        *,
        idempotency_key: str | None = None,
        actor: str = "",
        policy: str = "",
    ) -> Receipts:
        """Apply operations to one namespace in one transaction, and log them.

        An operation that cannot be applied (`not_found`, `version_conflict`, `key_exists`, `duplicate_key`)
        is listed as rejected and the others are applied. A batch whose `idempotency_key` was seen before in
        this namespace is not applied again: its first receipts come back with `replayed=True`.

        Raises:
            InvalidNamespaceError: the namespace is empty, or a label is empty or has a dot.
            InvalidValue: a value or text is not storable; nothing was applied.
            EmbeddingMismatch: a given embedding has another dimension than the store's; nothing was applied.
            StoreError: the database failed; nothing was applied.
        """

    @abstractmethod
    def recall(
        self,
        namespace: Namespace,
        query: str,
        *,
        k: int = 10,
        kinds: Sequence[MemoryKind] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        token_budget: int | None = None,
    ) -> list[Hit]:
        """The `k` memories of exactly this namespace that best answer `query`, best first.

        Cosine of the vectors and BM25 within the namespace, each as a z-score, summed; the best rows lift
        their neighbours in the session. With `token_budget`, hits are taken in order as long as they fit. A
        blank query gives the newest memories, with score 0.
        """

    @abstractmethod
    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        """Every version of a memory, oldest first, also of one that was deleted.

        Raises:
            MemoryNotFound: there never was such a memory.
        """

    async def aapply(
        self,
        namespace: Namespace,
        operations: Sequence[Operation],
        *,
        idempotency_key: str | None = None,
        actor: str = "",
        policy: str = "",
    ) -> Receipts:
        """Async twin of `apply`."""
        return await asyncio.to_thread(
            self.apply, namespace, operations, idempotency_key=idempotency_key, actor=actor, policy=policy
        )

    async def arecall(
        self,
        namespace: Namespace,
        query: str,
        *,
        k: int = 10,
        kinds: Sequence[MemoryKind] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        token_budget: int | None = None,
    ) -> list[Hit]:
        """Async twin of `recall`."""
        return await asyncio.to_thread(
            self.recall, namespace, query, k=k, kinds=kinds, filter=filter, token_budget=token_budget
        )

    async def ahistory(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        """Async twin of `history`."""
        return await asyncio.to_thread(self.history, namespace, key)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return await asyncio.to_thread(self.batch, ops)
