"""A memory store without a database: the whole contract in dicts, for tests, notebooks, short-lived agents.

Everything is lost with the process. Ranking is the same as in Postgres, computed by `ranking`.
"""

from __future__ import annotations

import copy
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import mul
from typing import Any

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from memgraph_plugin.errors import EmbeddingMismatch, MemoryNotFound
from memgraph_plugin.store.base import MemoryStore, SearchConfig, embedder, search_ranking
from memgraph_plugin.store.journal import Batch, Change, check_dimension, named_keys, plan, texts_to_embed
from memgraph_plugin.store.ranking import QUESTION_CHARACTERS, bm25, fuse, lexemes, unit, within_budget
from memgraph_plugin.store.storable import (
    check_batch,
    check_key,
    check_namespace,
    check_recall,
    storable_operations,
    storable_ops,
)
from memgraph_plugin.store.table import Entry, Table
from memgraph_plugin.types import Hit, Memory, MemoryKind, MemoryVersion, Namespace, Operation, Receipts


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What the model said: vectors by the text, or (of length 1) by the query, that they stand for."""

    texts: Mapping[str, Sequence[float]]
    queries: Mapping[str, Sequence[float] | None]


class InMemoryMemoryStore(MemoryStore):
    """A `MemoryStore` in this process's memory; safe to share between threads and event loops.

    Args:
        index: LangGraph's index configuration: `embed`, `dims`, and `fields` (which parts of a value are its
            text; by default its field "text", or all of it where it has none); with `search="hybrid"`, search
            ranks as `recall` does.
        ttl: LangGraph's configuration of how long memories live that were put without saying so.
        embeddings: in place of `index["embed"]`. Without either, memories are ranked by words alone.
        language: the language of texts whose operation names none.
    """

    supports_ttl = True

    def __init__(
        self,
        *,
        index: IndexConfig | SearchConfig | None = None,
        ttl: TTLConfig | None = None,
        embeddings: str | Embeddings | None = None,
        language: str = "english",
    ) -> None:
        self.embeddings = embedder(index, embeddings)
        self.ttl_config = ttl
        self.language = language
        self._ranking = search_ranking(index)
        self._fields = index.get("fields") if index else None
        self._dimension = index.get("dims") if index else None
        self._lock = threading.RLock()
        self._table = Table()
        self._receipts: dict[tuple[Namespace, str | None], Receipts] = {}

    # Each public method checks, then embeds (no lock is held while a model runs), then works under the lock.

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        ops = storable_ops(ops)
        return self._run(ops, self._embed(*self._wanted(ops)))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        ops = storable_ops(ops)
        return self._run(ops, await self._aembed(*self._wanted(ops)))

    def apply(
        self,
        namespace: Namespace,
        operations: Sequence[Operation],
        *,
        idempotency_key: str | None = None,
        actor: str = "",
        policy: str = "",
    ) -> Receipts:
        operations = storable_operations(namespace, operations)
        check_batch(idempotency_key, actor, policy)
        if replayed := self._replayed(namespace, idempotency_key):
            return replayed
        vectors = self._embed(texts_to_embed(operations, None), self._probe())
        batch = self._batch(namespace, vectors, idempotency_key=idempotency_key, actor=actor, policy=policy)
        return self._apply(batch, operations)

    async def aapply(
        self,
        namespace: Namespace,
        operations: Sequence[Operation],
        *,
        idempotency_key: str | None = None,
        actor: str = "",
        policy: str = "",
    ) -> Receipts:
        operations = storable_operations(namespace, operations)
        check_batch(idempotency_key, actor, policy)
        if replayed := self._replayed(namespace, idempotency_key):
            return replayed
        vectors = await self._aembed(texts_to_embed(operations, None), self._probe())
        batch = self._batch(namespace, vectors, idempotency_key=idempotency_key, actor=actor, policy=policy)
        return self._apply(batch, operations)

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
        check_recall(namespace, query, kinds)
        vectors = self._embed([], [query] if query.strip() else [])
        return within_budget(self._recall(namespace, query, vectors, k, kinds, filter), token_budget)

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
        check_recall(namespace, query, kinds)
        vectors = await self._aembed([], [query] if query.strip() else [])
        return within_budget(self._recall(namespace, query, vectors, k, kinds, filter), token_budget)

    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        check_namespace(namespace)
        check_key(key, "key")
        with self._lock:
            versions = list(self._table.versions(namespace, key))
        if not versions:
            raise MemoryNotFound(f"There never was a memory {key!r} in this namespace.")
        return copy.deepcopy(versions)

    # Vectors.

    def _embed(self, texts: list[str], queries: list[str]) -> _Vectors:
        if self.embeddings is None:
            return _Vectors({}, {})
        documents = self.embeddings.embed_documents(texts) if texts else []
        return self._vectors(
            texts, documents, queries, [self.embeddings.embed_query(query) for query in queries]
        )

    async def _aembed(self, texts: list[str], queries: list[str]) -> _Vectors:
        if self.embeddings is None:
            return _Vectors({}, {})
        documents = await self.embeddings.aembed_documents(texts) if texts else []
        asked = [await self.embeddings.aembed_query(query) for query in queries]
        return self._vectors(texts, documents, queries, asked)

    def _vectors(
        self, texts: list[str], documents: list[list[float]], queries: list[str], asked: list[list[float]]
    ) -> _Vectors:
        for vector in (*documents, *asked):
            self._dimension = self._dimension or len(vector)
            if len(vector) != self._dimension:
                raise EmbeddingMismatch(
                    f"The store's vectors have {self._dimension} dimensions, "
                    f"the embedding model made {len(vector)}."
                )
        return _Vectors(
            dict(zip(texts, documents, strict=True)),
            {query: unit(vector) for query, vector in zip(queries, asked, strict=True)},
        )

    def _probe(self) -> list[str]:
        """A query to learn the model's dimension by, the first time; given vectors are held against it."""
        return ["dimension"] if self._dimension is None else []

    def _wanted(self, ops: Sequence[Op]) -> tuple[list[str], list[str]]:
        queries = (op.query for op in ops if isinstance(op, SearchOp) and op.query and op.query.strip())
        return texts_to_embed(_puts(ops), self._fields), list(dict.fromkeys(queries))

    # Writing.

    def _batch(self, namespace: Namespace, vectors: _Vectors, **options: Any) -> Batch:
        return Batch(
            namespace=namespace, language=self.language, vectors=vectors.texts, fields=self._fields, **options
        )

    def _replayed(self, namespace: Namespace, idempotency_key: str | None) -> Receipts | None:
        with self._lock:
            receipts = self._receipts.get((namespace, idempotency_key))
        return replace(receipts, replayed=True) if receipts else None

    def _apply(self, batch: Batch, operations: Sequence[Operation]) -> Receipts:
        check_dimension(operations, self._dimension)
        with self._lock:
            if replayed := self._replayed(batch.namespace, batch.idempotency_key):
                return replayed
            receipts = self._write(batch, operations)
            if batch.idempotency_key is not None:
                self._receipts[batch.namespace, batch.idempotency_key] = receipts
            return receipts

    def _write(self, batch: Batch, operations: Sequence[Operation | PutOp]) -> Receipts:
        batch = replace(batch, now=datetime.now(UTC))  # under the lock: later versions have later times
        keys = named_keys(operations)
        entries = {key: self._table.get(batch.namespace, key, batch.now) for key in keys}
        current = {key: entry.row for key, entry in entries.items() if entry}
        newest = {key: len(self._table.versions(batch.namespace, key)) for key in keys}
        made = plan(batch, operations, current, newest)
        for change in made.changes:
            self._table.write(batch.namespace, change.version, _entry(change))
        return Receipts(batch.id, made.receipts)

    # Reading and LangGraph's batches.

    def _run(self, ops: Sequence[Op], vectors: _Vectors) -> list[Result]:
        puts: dict[Namespace, dict[str, PutOp]] = {}
        for op in _puts(ops):
            puts.setdefault(op.namespace, {})[op.key] = op
        with self._lock:
            now = datetime.now(UTC)
            results = [self._read(op, vectors, now) for op in ops]
            for namespace, by_key in puts.items():
                self._write(self._batch(namespace, vectors), list(by_key.values()))
        return results

    def _read(self, op: Op, vectors: _Vectors, now: datetime) -> Result:
        if isinstance(op, GetOp):
            entry = self._table.get(op.namespace, op.key, now)
            if entry and op.refresh_ttl:
                self._table.refresh(entry, now)
            return Item(**_as_item(entry.memory)) if entry else None
        if isinstance(op, SearchOp):
            return self._search(op, vectors, now)
        if isinstance(op, ListNamespacesOp):
            return self._table.namespaces(op, now)
        return None

    def _search(self, op: SearchOp, vectors: _Vectors, now: datetime) -> list[SearchItem]:
        query = op.query or ""
        entries = self._table.newest(self._table.below(op.namespace_prefix), now, filter=op.filter)
        if self._ranking == "vector" and (vector := vectors.queries.get(query)):
            ranked = _nearest(entries, vector)
        else:
            ranked = self._found(entries, query, vectors)
        found = ranked[op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            for entry, _ in found:
                self._table.refresh(entry, now)
        return [
            SearchItem(**_as_item(entry.memory), score=hit.score if query.strip() else None)
            for entry, hit in found
        ]

    def _recall(
        self,
        namespace: Namespace,
        query: str,
        vectors: _Vectors,
        k: int,
        kinds: Sequence[MemoryKind] | None,
        filter: Mapping[str, Any] | None,  # noqa: A002
    ) -> list[Hit]:
        with self._lock:
            entries = self._table.newest([namespace], datetime.now(UTC), filter=filter, kinds=kinds)
        found = self._found(entries, query, vectors)[: max(k, 0)]
        return [replace(hit, memory=copy.deepcopy(hit.memory)) for _, hit in found]

    def _found(self, entries: list[Entry], query: str, vectors: _Vectors) -> list[tuple[Entry, Hit]]:
        """What answers a query, best first; without a query all of it, as it comes."""
        if not query.strip():
            return [(entry, Hit(entry.memory, 0.0)) for entry in entries]
        return _ranked(
            entries, lexemes(query[:QUESTION_CHARACTERS], self.language), vectors.queries.get(query)
        )


# What has no state.


def _puts(ops: Iterable[Op]) -> list[PutOp]:
    return [op for op in ops if isinstance(op, PutOp)]


def _entry(change: Change) -> Entry | None:
    if change.row is None:
        return None
    words = Counter(lexemes(change.row.memory.text, change.row.language))
    vector = None if change.embedding is None else unit(change.embedding)
    return Entry(change.row, words, None if vector is None else array("f", vector))


def _as_item(memory: Memory) -> dict[str, Any]:
    return {
        "namespace": memory.namespace,
        "key": memory.key,
        "value": copy.deepcopy(dict(memory.value)),
        "created_at": memory.created_at,
        "updated_at": memory.updated_at,
    }


def _cosine(one: Sequence[float] | None, other: Sequence[float] | None) -> float | None:
    return sum(map(mul, one, other)) if one and other else None


def _nearest(entries: Iterable[Entry], vector: Sequence[float]) -> list[tuple[Entry, Hit]]:
    """The entries that have a vector, the nearest first."""
    cosines = [(entry, _cosine(vector, entry.embedding)) for entry in entries]
    found = [(entry, Hit(entry.memory, cosine, cosine)) for entry, cosine in cosines if cosine is not None]
    return sorted(
        found, key=lambda pair: (-pair[1].score, ".".join(pair[0].memory.namespace), pair[0].memory.key)
    )


def _ranked(
    entries: Iterable[Entry], query: list[str], vector: Sequence[float] | None
) -> list[tuple[Entry, Hit]]:
    """The entries that answer a query, best first."""
    entries = [entry for entry in entries if entry.memory.text]
    cosines = [_cosine(vector, entry.embedding) for entry in entries]
    words = bm25(query, [entry.terms for entry in entries])
    memories = [entry.memory for entry in entries]
    sessions = [None if memory.session is None else (memory.namespace, memory.session) for memory in memories]
    scores = fuse(cosines, words, sessions, [memory.position for memory in memories])
    found = [
        (entry, Hit(entry.memory, score, cosine, word or None))
        for entry, score, cosine, word in zip(entries, scores, cosines, words, strict=True)
        # Without a vector, it takes a word of the query, or a neighbour that has one.
        if cosine is not None or word or score > 0
    ]
    return sorted(found, key=lambda pair: (-pair[1].score, pair[1].memory.key))
