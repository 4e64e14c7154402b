"""A memory store without a database: the whole contract in dicts, for tests, notebooks, short-lived agents.

Everything is lost with the process. Ranking is the same as in Postgres, computed by `ranking`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
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

from memgraph_plugin.errors import EmbeddingMismatch
from memgraph_plugin.store.base import SearchConfig, embedder, search_ranking
from memgraph_plugin.store.compressed_in_memory import InMemoryCompressed
from memgraph_plugin.store.entry import Entry, cosine, embedded, entry_of, nearest, ranked
from memgraph_plugin.store.exported import Logged
from memgraph_plugin.store.held import Quarantined, storable_held
from memgraph_plugin.store.journal import (
    Batch,
    Step,
    check_dimension,
    named_keys,
    plan,
    required,
    texts_to_embed,
)
from memgraph_plugin.store.past_in_memory import InMemoryPast, Vectors
from memgraph_plugin.store.portability_in_memory import InMemoryPortability
from memgraph_plugin.store.quarantine_in_memory import InMemoryHolding
from memgraph_plugin.store.ranking import unit, within_budget
from memgraph_plugin.store.storable import (
    check_batch,
    check_namespace,
    check_prefix,
    check_recall,
    storable_operations,
    storable_ops,
)
from memgraph_plugin.store.table import Table
from memgraph_plugin.types import (
    Delete,
    Held,
    Hit,
    LoggedBatch,
    Memory,
    MemoryKind,
    Namespace,
    Operation,
    Receipt,
    Receipts,
)


class InMemoryMemoryStore(InMemoryPast, InMemoryHolding, InMemoryCompressed, InMemoryPortability):
    """A `MemoryStore` in this process's memory; safe to share between threads and event loops.

    Args:
        index: LangGraph's index configuration: `embed`, `dims`, and `fields` (which parts of a value are its
            text; by default its field "text", or all of it where it has none); with `search="hybrid"`, search
            ranks as `recall` does.
        ttl: LangGraph's configuration of how long memories live that were put without saying so.
        embeddings: in place of `index["embed"]`. Without either, memories are ranked by words alone.
        language: the language of texts whose operation names none.
    """

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
        self._erasures = []
        self._compressed = {}

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
        held: Sequence[Held] = (),
        rejected: Sequence[Receipt] = (),
        requires: Collection[str] = (),
    ) -> Receipts:
        operations = storable_operations(namespace, operations)
        held = storable_held(namespace, held)
        check_batch(idempotency_key, actor, policy, rejected, requires)
        if replayed := self._replayed(namespace, idempotency_key):
            return replayed
        vectors = self._embed(texts_to_embed(operations, None), self._probe())
        who: dict[str, Any] = {"actor": actor, "policy": policy, "held": tuple(held)}
        who |= {"rejected": tuple(rejected), "requires": required(requires)}
        batch = self._batch(namespace, vectors, idempotency_key=idempotency_key, **who)
        return self._apply(batch, operations)

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
        operations = storable_operations(namespace, operations)
        held = storable_held(namespace, held)
        check_batch(idempotency_key, actor, policy, rejected, requires)
        if replayed := self._replayed(namespace, idempotency_key):
            return replayed
        vectors = await self._aembed(texts_to_embed(operations, None), self._probe())
        who: dict[str, Any] = {"actor": actor, "policy": policy, "held": tuple(held)}
        who |= {"rejected": tuple(rejected), "requires": required(requires)}
        batch = self._batch(namespace, vectors, idempotency_key=idempotency_key, **who)
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
        valid_at: datetime | None = None,
        known_at: datetime | None = None,
        words_only: bool = False,
    ) -> list[Hit]:
        check_recall(namespace, query, kinds)
        entries, texts = self._readable(namespace, query, kinds, filter, valid_at, known_at)
        vectors = self._embed(texts, [query] if query.strip() and not words_only else [])
        return within_budget(self._hits(entries, query, vectors, max(k, 0)), token_budget)

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
        check_recall(namespace, query, kinds)
        entries, texts = self._readable(namespace, query, kinds, filter, valid_at, known_at)
        vectors = await self._aembed(texts, [query] if query.strip() and not words_only else [])
        return within_budget(self._hits(entries, query, vectors, max(k, 0)), token_budget)

    def delete_namespace(self, prefix: Namespace, *, actor: str = "") -> int:
        check_namespace(prefix)
        deleted = 0
        with self._lock:
            self._delete_kv_below(prefix)
            for namespace, keys in self._below(prefix).items():
                batch = self._batch(namespace, Vectors({}, {}), actor=actor)
                deleted += len(self._write(batch, [Delete(key=key) for key in keys]).applied)
        return deleted

    def count(self, prefix: Namespace) -> int:
        check_prefix(prefix)
        with self._lock:
            return sum(map(len, self._below(prefix).values()))

    def sweep_ttl(self) -> int:
        with self._lock:
            return self._table.sweep(datetime.now(UTC))

    def _below(self, prefix: Namespace) -> dict[Namespace, list[str]]:
        now = datetime.now(UTC)
        return {namespace: self._table.keys(namespace, now) for namespace in self._table.below(prefix)}

    # Vectors.

    def _embed(self, texts: list[str], queries: list[str]) -> Vectors:
        if self.embeddings is None:
            return Vectors({}, {})
        documents = self.embeddings.embed_documents(texts) if texts else []
        return self._vectors(
            texts, documents, queries, [self.embeddings.embed_query(query) for query in queries]
        )

    async def _aembed(self, texts: list[str], queries: list[str]) -> Vectors:
        if self.embeddings is None:
            return Vectors({}, {})
        documents = await self.embeddings.aembed_documents(texts) if texts else []
        asked = [await self.embeddings.aembed_query(query) for query in queries]
        return self._vectors(texts, documents, queries, asked)

    def _vectors(
        self, texts: list[str], documents: list[list[float]], queries: list[str], asked: list[list[float]]
    ) -> Vectors:
        for vector in (*documents, *asked):
            self._dimension = self._dimension or len(vector)
            if len(vector) != self._dimension:
                raise EmbeddingMismatch(
                    f"The store's vectors have {self._dimension} dimensions, "
                    f"the embedding model made {len(vector)}."
                )
        return Vectors(
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

    def _batch(self, namespace: Namespace, vectors: Vectors, **options: Any) -> Batch:
        return Batch(
            namespace=namespace, language=self.language, vectors=vectors.texts, fields=self._fields, **options
        )

    def _replayed(self, namespace: Namespace, idempotency_key: str | None) -> Receipts | None:
        with self._lock:
            return self._table.replayed(namespace, idempotency_key)

    def _apply(self, batch: Batch, operations: Sequence[Step]) -> Receipts:
        check_dimension(operations, self._dimension)
        with self._lock:
            if replayed := self._replayed(batch.namespace, batch.idempotency_key):
                return replayed
            return self._write(batch, operations)

    def _write(self, batch: Batch, operations: Sequence[Step]) -> Receipts:
        batch = replace(batch, now=datetime.now(UTC))  # under the lock: later versions have later times
        keys = named_keys(operations, batch.requires)
        entries = {key: self._table.get(batch.namespace, key, batch.now) for key in keys}
        current = {key: entry.row for key, entry in entries.items() if entry}
        newest = {key: self._table.newest_version(batch.namespace, key) for key in keys}
        made = plan(batch, operations, current, newest)
        if batch.releases is not None and made.changes:
            self._let_go(batch.namespace, batch.releases)
        for held in made.held:
            self._table.hold(Quarantined(batch.namespace, held))
        for change in made.changes:
            entry = entry_of(change.row, change.embedding) if change.row else None
            self._table.write(batch.namespace, change.version, entry)
        logged = LoggedBatch(
            batch_id=batch.id,
            receipts=made.receipts,
            recorded_at=batch.now,
            actor=batch.actor,
            policy=batch.policy,
        )
        self._table.log(Logged(batch.namespace, logged, batch.idempotency_key))
        return Receipts(batch.id, made.receipts)

    # Reading and LangGraph's batches.

    def _run(self, ops: Sequence[Op], vectors: Vectors) -> list[Result]:
        puts: dict[Namespace, dict[str, PutOp]] = {}
        for op in _puts(ops):
            puts.setdefault(op.namespace, {})[op.key] = op
        with self._lock:
            now = datetime.now(UTC)
            results = [self._read(op, vectors, now) for op in ops]
            for namespace, by_key in puts.items():
                self._write(self._batch(namespace, vectors), list(by_key.values()))
        return results

    def _read(self, op: Op, vectors: Vectors, now: datetime) -> Result:
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

    def _search(self, op: SearchOp, vectors: Vectors, now: datetime) -> list[SearchItem]:
        query = op.query or ""
        entries = self._table.newest(self._table.below(op.namespace_prefix), now, filter=op.filter)
        if self._ranking == "vector" and (towards := vectors.queries.get(query)):
            answers = nearest(entries, towards)
        else:
            answers = self._ranked(entries, query, vectors)
        found = answers[op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            for entry, _ in found:
                self._table.refresh(entry, now)
        return [
            SearchItem(**_as_item(entry.memory), score=hit.score if query.strip() else None)
            for entry, hit in found
        ]

    def _hits(self, entries: list[Entry], query: str, vectors: Vectors, k: int) -> list[Hit]:
        found = self._ranked(embedded(entries, vectors.texts), query, vectors)[:k]
        return [replace(hit, memory=copy.deepcopy(hit.memory)) for _, hit in found]

    def _ranked(self, entries: list[Entry], query: str, vectors: Vectors) -> list[tuple[Entry, Hit]]:
        towards = vectors.queries.get(query)
        return ranked(entries, [cosine(towards, entry) for entry in entries], query, self.language)


# What has no state.


def _puts(ops: Iterable[Op]) -> list[PutOp]:
    return [op for op in ops if isinstance(op, PutOp)]


def _as_item(memory: Memory) -> dict[str, Any]:
    return {
        "namespace": memory.namespace,
        "key": memory.key,
        "value": copy.deepcopy(dict(memory.value)),
        "created_at": memory.created_at,
        "updated_at": memory.updated_at,
    }
