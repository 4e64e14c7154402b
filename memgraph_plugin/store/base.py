"""What every memory store promises, and the pure parts that all of them share.

A `MemoryStore` is a LangGraph `BaseStore` (get, put, search, delete, list_namespaces, batch) with the memory
operations beside it: `apply`, `recall`, `history`, `as_of`, `log`, `undo`. Each has an async twin with
LangGraph's `a` prefix. What there is of compressed memories is in `compressed_base`, and of the quarantine in
`quarantine_base`.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast, get_args

from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, Op, Result, ensure_embeddings

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.models.embeddings import load_embeddings
from memgraph_plugin.store.compressed_base import CompressedStore
from memgraph_plugin.store.quarantine_base import QuarantineStore
from memgraph_plugin.types import (
    Erasure,
    Held,
    Hit,
    Imported,
    LoggedBatch,
    Memory,
    MemoryKind,
    MemoryVersion,
    Namespace,
    Operation,
    Receipt,
    Receipts,
)

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
    if index and index.get("distance_type", "cosine") != "cosine":
        raise ConfigurationError("distance_type: memories are compared by cosine alone.")
    given = embeddings if embeddings is not None else index.get("embed") if index else None
    if isinstance(given, str):
        return load_embeddings(given)
    return None if given is None else ensure_embeddings(given)


class MemoryStore(CompressedStore, QuarantineStore):
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
        held: Sequence[Held] = (),
        rejected: Sequence[Receipt] = (),
        requires: Collection[str] = (),
    ) -> Receipts:
        """Apply operations to one namespace in one transaction, and log them.

        An operation that cannot be applied (`not_found`, `version_conflict`, `key_exists`, `duplicate_key`,
        `invalid_interval`) is listed as rejected and the others are applied. A batch whose `idempotency_key`
        was seen before in this namespace is not applied again: its first receipts come back with
        `replayed=True`.

        What is `held` is not applied: it goes to quarantine, in the same transaction, and is rejected in the
        receipts, behind the others. Mask secrets before: they are kept as they are.

        What was `rejected` before it came here stands in the receipts behind all others, and so in the log.

        What is to be written may rest on other memories, as on the turns that it was read off: the batch
        `requires` their keys, or, of a mapping, each key at its version (None: any; 0: none is there). This
        is looked up in the same transaction, so that nothing comes back of what was erased while somebody
        thought about it.

        Raises:
            InvalidNamespaceError: the namespace is empty, or a label is empty or has a dot.
            InvalidValue: a value or text is not storable; nothing was applied.
            MemoryNotFound, VersionConflict: what it requires is gone, or has changed; nothing was applied,
                held or logged.
            EmbeddingMismatch: a given embedding has another dimension than the store's; nothing was applied.
            DatabaseUnavailable: there is no database, or the connection was lost, and again in a second try.
                If that was at the very end, the batch may have been applied: call again with the same key.
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
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        words_only: bool = False,
    ) -> list[Hit]:
        """The `k` memories of exactly this namespace that best answer `query`, best first.

        Cosine of the vectors and BM25 within the namespace, each as a z-score, summed; the best rows lift
        their neighbours in the session. With `token_budget`, hits are taken in order as long as they fit. A
        blank query gives the newest memories, with score 0.

        What has ended (`valid_to`) or expired is passed over. With `valid_at` or `known_at`, it is ranked
        among what `as_of` gives for them instead: in Python, on every version of the namespace, and texts
        that no memory has today are embedded anew; seconds in a namespace of tens of thousands.

        With `words_only`, vectors count for nothing: only what shares a word with the query is found.

        Raises:
            InvalidNamespaceError, InvalidValue: an argument cannot work.
        """

    @abstractmethod
    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        """Every version of a memory, oldest first, also of one that was deleted.

        Raises:
            MemoryNotFound: there never was such a memory.
        """

    @abstractmethod
    def as_of(
        self,
        namespace: Namespace,
        *,
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        kinds: Sequence[MemoryKind] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> list[Memory]:
        """What was so in the world at `valid_at`, by what the store had been told until `known_at`.

        Each is now where None: `as_of(ns, valid_at=t)` is what we know today of t, `as_of(ns, known_at=t)`
        what we would have said at t about today, and with both, the memory as it stood at t. The last told
        comes first, each with the `valid_to` that it was believed to have.

        A memory without `valid_from` counts from when it was told, or from ever where it had ended by then.
        What was corrected or deleted never was, by what is known since; a put corrects. Of a plan (a
        `valid_from` yet to come) `recall` reads the newest version, this what is still so. What has expired
        stays readable at a `known_at` before that, until it is swept.

        Reads every version of the namespace.

        Raises:
            InvalidNamespaceError; InvalidValue: a time without a zone, among others.
        """

    @abstractmethod
    def log(self, namespace: Namespace, *, limit: int = 20) -> list[LoggedBatch]:
        """The last batches of a namespace, newest first; puts and refusals are among them."""

    @abstractmethod
    def undo(
        self, namespace: Namespace, batch_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        """Take back what one batch applied, as a new batch (of the policy "undo"), which can be undone, too.

        What it inserted is deleted; what it updated or deleted is as it was before, whole, in a new version
        under its key. An operation whose memory has a newer version by now is rejected (`version_conflict`),
        one whose memory has expired (`not_found`) or would have before this (`expired`) likewise; the others
        are applied. Texts are embedded before the transaction.

        Raises:
            BatchNotFound: this namespace's log has no such batch.
            InvalidNamespaceError, InvalidValue, StoreError: as `apply`.
        """

    @abstractmethod
    def delete_namespace(self, prefix: Namespace, *, actor: str = "") -> int:
        """Delete the memories of a namespace and of all below it; returns how many they were.

        They are ordinary deletions, in batches of up to a thousand: versions, lines in the log. `actor` is
        noted in them. What is written meanwhile may stay. Compressed memories are deleted first, for good,
        and not counted: what was deleted must not be recalled from them.

        Raises:
            InvalidNamespaceError: the prefix is empty, or a label is empty or has a dot.
        """

    @abstractmethod
    def count(self, prefix: Namespace) -> int:
        """How many memories there are in a namespace and all below it; `()` counts everything."""

    @abstractmethod
    def forget(self, namespace: Namespace, *, actor: str = "", vacuum: bool = False) -> Erasure:
        """Erase a namespace and all below it: memories, versions, the log with its reasons and keys, vectors,
        compressed memories.

        All in one transaction, which leaves a receipt without the name; `actor` stays in it as it is. A batch
        that was being written is waited for and erased; one that begins meanwhile comes after. Nothing can
        bring it back: its idempotency keys are gone too, so that a batch sent again is a new one. A database
        keeps what was erased in its files until it uses their space again, and in its backups; `vacuum`
        writes new files at once (nobody can use a table while it is rewritten).

        Raises:
            InvalidNamespaceError: the namespace is empty, or a label is empty or has a dot.
            InvalidValue: `actor` is the namespace, or a label of it: it would be kept.
            StoreError: the database failed, or a writer did not end; nothing was erased. Or files of
                compressed memories could not be removed: they are named, all else was erased.
        """

    @abstractmethod
    def erasures(self) -> list[Erasure]:
        """The receipts of everything that was forgotten, oldest first; `Erasure.of` tells whose each is."""

    @abstractmethod
    def export(self, namespace: Namespace = (), *, vectors: bool = False) -> Iterator[str]:
        """A namespace and all below it, or everything, as lines of JSON: the log and every version.

        As it is at the first line; the transaction that sees it so ends with the last one. `vectors` come at
        half precision. The lines are plain text, also those of a sealed store. It has no compressed memories.

        Raises:
            InvalidNamespaceError: a label is empty or has a dot.
            StoreError: the database failed.
        """

    @abstractmethod
    def import_(self, lines: Iterable[str]) -> Imported:
        """Write what `export` gave, all or nothing; namespaces that hold exactly this already are skipped.

        The lines are read and checked before anything else happens. Vectors are taken where the same model
        made them, and made by this store's model otherwise, before anything is written.

        Raises:
            InvalidExport: the lines are not an export, or not a whole one; it names the line.
            NamespaceTaken: a namespace has other memories already; it is named.
            StoreError: the database failed. In all cases nothing was written.
        """

    async def aapply(
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
        """Async twin of `apply`."""
        options: dict[str, Any] = {"actor": actor, "policy": policy, "held": held}
        options |= {"rejected": rejected, "requires": requires}
        return await asyncio.to_thread(
            self.apply, namespace, operations, idempotency_key=idempotency_key, **options
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
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        words_only: bool = False,
    ) -> list[Hit]:
        """Async twin of `recall`."""
        return await asyncio.to_thread(
            self.recall,
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

    async def ahistory(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        """Async twin of `history`."""
        return await asyncio.to_thread(self.history, namespace, key)

    async def aas_of(
        self,
        namespace: Namespace,
        *,
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        kinds: Sequence[MemoryKind] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> list[Memory]:
        """Async twin of `as_of`."""
        return await asyncio.to_thread(
            self.as_of, namespace, valid_at=valid_at, known_at=known_at, kinds=kinds, filter=filter
        )

    async def alog(self, namespace: Namespace, *, limit: int = 20) -> list[LoggedBatch]:
        """Async twin of `log`."""
        return await asyncio.to_thread(self.log, namespace, limit=limit)

    async def aundo(
        self, namespace: Namespace, batch_id: str, *, actor: str = "", idempotency_key: str | None = None
    ) -> Receipts:
        """Async twin of `undo`."""
        return await asyncio.to_thread(
            self.undo, namespace, batch_id, actor=actor, idempotency_key=idempotency_key
        )

    async def adelete_namespace(self, prefix: Namespace, *, actor: str = "") -> int:
        """Async twin of `delete_namespace`."""
        return await asyncio.to_thread(self.delete_namespace, prefix, actor=actor)

    async def acount(self, prefix: Namespace) -> int:
        """Async twin of `count`."""
        return await asyncio.to_thread(self.count, prefix)

    async def aforget(self, namespace: Namespace, *, actor: str = "", vacuum: bool = False) -> Erasure:
        """Async twin of `forget`."""
        return await asyncio.to_thread(self.forget, namespace, actor=actor, vacuum=vacuum)

    async def aerasures(self) -> list[Erasure]:
        """Async twin of `erasures`."""
        return await asyncio.to_thread(self.erasures)

    async def aexport(self, namespace: Namespace = (), *, vectors: bool = False) -> AsyncIterator[str]:
        """Async twin of `export`."""
        lines = self.export(namespace, vectors=vectors)
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            yield line

    async def aimport(self, lines: Iterable[str] | AsyncIterable[str]) -> Imported:
        """Async twin of `import_`, also of lines that come asynchronously, as those of `aexport`."""
        from memgraph_plugin.store.spool import aspool  # which imports this module

        with await aspool(lines) as spooled:
            return await asyncio.to_thread(self.import_, spooled.lines())

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return await asyncio.to_thread(self.batch, ops)
