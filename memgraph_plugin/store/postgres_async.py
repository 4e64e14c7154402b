"""The store on Postgres. This is the source; `scripts/generate_sync.py` makes `postgres.py` of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Self, TypedDict

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    GetOp,
    IndexConfig,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
)

from memgraph_plugin.errors import ConfigurationError, EmbeddingMismatch
from memgraph_plugin.models.embeddings import embedding_name
from memgraph_plugin.store import records
from memgraph_plugin.store.base import MAX_RESULTS, SearchConfig, embedder, search_ranking
from memgraph_plugin.store.compressed_async import AsyncCompressed
from memgraph_plugin.store.connection import leaves_when_forked, pool_options
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase, Record
from memgraph_plugin.store.forgetting_async import AsyncForgetting
from memgraph_plugin.store.held import storable_held
from memgraph_plugin.store.indexes_async import AsyncIndexes
from memgraph_plugin.store.indexing import THRESHOLD
from memgraph_plugin.store.journal import (
    Batch,
    Plan,
    Step,
    check_dimension,
    named_keys,
    plan,
    required,
    texts_to_embed,
)
from memgraph_plugin.store.kv_files import KVFiles
from memgraph_plugin.store.layout import VectorType
from memgraph_plugin.store.past_async import AsyncPast
from memgraph_plugin.store.portability_async import AsyncPortability
from memgraph_plugin.store.quarantine_async import AsyncHolding
from memgraph_plugin.store.ranking import unit, within_budget
from memgraph_plugin.store.sealing import Sealer, sealed
from memgraph_plugin.store.searching_async import AsyncSearching
from memgraph_plugin.store.storable import (
    check_batch,
    check_recall,
    storable_operations,
    storable_ops,
)
from memgraph_plugin.store.upkeep_async import AsyncUpkeep
from memgraph_plugin.store.vectors import Model, fitting, refuse_other
from memgraph_plugin.types import Held, Hit, MemoryKind, Namespace, Operation, Receipt, Receipts

COPIED_FROM = 50
"""New rows from which on they are copied in bulk."""


class PoolConfig(TypedDict, total=False):
    """LangGraph's, of its own Postgres stores."""

    min_size: int
    max_size: int | None
    kwargs: dict[str, Any]


class AsyncPostgresMemoryStore(
    AsyncSearching, AsyncPast, AsyncUpkeep, AsyncForgetting, AsyncPortability, AsyncHolding, AsyncCompressed
):
    """A `MemoryStore` on Postgres with pgvector.

        async with AsyncPostgresMemoryStore("postgresql://...", embeddings=...) as store:
            await store.setup()

    The first call opens the connections, and checks what stands in the database. A forked process makes its
    own, as does a next event loop. What a lost connection cut off is tried once more, and applied once.

    Args:
        conninfo: a libpq connection string or URL.
        index: LangGraph's index configuration (`embed`, `dims`, `fields`), in place of `embeddings`; with
            `search="hybrid"`, search ranks as `recall` does.
        ttl: LangGraph's configuration of times to live.
        embeddings: makes the vectors: a model or its name, as "local:minilm"; without one, memories are
            ranked by words alone.
        db_schema: the Postgres schema of the tables.
        language: Postgres text search configuration of texts whose operation names none. Chinese, Japanese
            and Korean are searched by pairs of letters in every language.
        max_size: connections held at most.
        prepare: whether statements are prepared; False behind a PgBouncer that cannot.
        index_threshold: rows from which on a namespace gets an index in the background, and is no longer read
            whole by each search (`store/indexing.py`); None for never.
        sealer: encrypts what is stored, as `AesGcmSealer`; what search then loses is in `store/sealing.py`.
        kv_files: where large compressed memories are kept (`store/kv_files.py`); None for in the database.

    Raises on first use:
        DatabaseUnavailable, SchemaOutOfDate, ConfigurationError (an unknown language), EmbeddingMismatch (the
        database holds vectors of another model).
    """

    def __init__(
        self,
        conninfo: str,
        *,
        index: IndexConfig | SearchConfig | None = None,
        ttl: TTLConfig | None = None,
        embeddings: str | Embeddings | None = None,
        db_schema: str = "memgraph_plugin",
        language: str = "english",
        max_size: int = 10,
        prepare: bool = True,
        index_threshold: int | None = THRESHOLD,
        sealer: Sealer | None = None,
        kv_files: KVFiles | None = None,
    ) -> None:
        super().__init__()
        self.embeddings = embedder(index, embeddings)
        self.ttl_config = ttl
        self.language = language
        self._ranking = search_ranking(index)
        self._fields = index.get("fields") if index else None
        self._dims = index.get("dims") if index else None
        self._model: Model | None = None
        self._ready = False
        self._opening = asyncio.Lock()
        if sealer is not None and self.embeddings is None:
            raise ConfigurationError("A sealed store is searched by vectors alone: give it embeddings.")
        self._sealer = sealer
        self._kv_files = kv_files
        self._database = AsyncDatabase(conninfo, db_schema, max_size=max_size, prepare=prepare, sealer=sealer)
        self._indexes = AsyncIndexes(self._database, index_threshold)
        leaves_when_forked(self)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls,
        conn_string: str,
        *,
        pipeline: bool = False,  # noqa: ARG003
        pool_config: PoolConfig | None = None,
        **options: Any,
    ) -> AsyncIterator[Self]:
        """LangGraph's way to open a store, with its arguments; beside them, those of the class.

        Writes always go by pipeline, in one transaction; of `pool_config`, see `connection.pool_options`.
        """
        conninfo, pooled = pool_options(conn_string, pool_config)
        async with cls(conninfo, **{**pooled, **options}) as store:
            yield store

    async def __aenter__(self) -> Self:
        self._bind()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def setup(
        self, *, partitions: int | None = None, vector_type: VectorType | None = None
    ) -> list[int]:
        """Create or migrate the tables; the numbers of the migrations that were applied.

        Where it creates them, it may divide them into `partitions` by hash of the namespace (2 to 1,024), and
        store vectors in single precision ("vector"; by default "halfvec", in half the room). They stay so.

        Raises:
            ConfigurationError: the tables are there, and lie in another way.
        """
        applied = await self._database.setup(partitions, vector_type)
        await self._open()
        return applied

    async def aclose(self) -> None:
        """Give the connections back; the store cannot be used again."""
        self._bind()
        await self.stop_ttl_sweeper()
        await self._indexes.close()
        await self._database.close()

    # Memory operations.

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
        await self._open()
        check_dimension(operations, self._model[1] if self._model else None)
        if idempotency_key is not None and (replayed := await self._replayed(namespace, idempotency_key)):
            return replayed
        who: dict[str, Any] = {"actor": actor, "policy": policy, "held": tuple(held)}
        who |= {"rejected": tuple(rejected), "requires": required(requires)}
        return await self._commit(namespace, operations, idempotency_key=idempotency_key, **who)

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
        limit = min(max(k, 0), MAX_RESULTS)
        if valid_at is not None or known_at is not None:
            hits = await self._recall_past(namespace, query, kinds, filter, valid_at, known_at, words_only)
            return within_budget(hits[:limit], token_budget)
        wanted = {"limit": limit, "offset": 0, "kinds": list(kinds) if kinds is not None else None}
        found = await self._search(
            "exactly", namespace, query, filter, wanted, "words" if words_only else "hybrid"
        )
        read = records.hit_of if query.strip() else records.recent_hit_of
        return within_budget(map(read, found), token_budget)

    # LangGraph's operations.

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        ops = storable_ops(ops)
        await self._open()
        results = [await self._read(op) for op in ops]
        puts = {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}
        if puts:
            await self._put(list(puts.values()))
        return results

    async def _read(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            where = {"namespaces": [records.encode(op.namespace)], "keys": [op.key]}
            found = await self._database.fetch("get", where)
            await self._refresh(found, op.refresh_ttl)
            return records.item_of(found[0]) if found else None
        if isinstance(op, SearchOp):
            prefix = op.namespace_prefix
            wanted = {"limit": op.limit, "offset": op.offset, "kinds": None}
            scope, query = records.scope_of(prefix), op.query or ""
            found = await self._search(scope, prefix, query, op.filter, wanted, self._ranking)
            await self._refresh(found, op.refresh_ttl)
            return [records.search_item_of(record) for record in found]
        if isinstance(op, ListNamespacesOp):
            found = await self._database.fetch("list_namespaces", records.namespace_parameters(op))
            return [tuple(record["namespace"]) for record in found]
        return None

    async def _put(self, puts: Sequence[PutOp]) -> None:
        vectors = await self._embed(texts_to_embed(puts, self._fields))
        by_namespace: dict[Namespace, list[PutOp]] = {}
        for op in sorted(puts, key=lambda op: (records.slot_of(op.namespace), op.namespace)):
            by_namespace.setdefault(op.namespace, []).append(op)
        # Made once, however often the transaction is tried: their ids say what was written.
        batches = [
            (Batch(namespace=namespace, language=self.language, vectors=vectors, fields=self._fields), ops)
            for namespace, ops in by_namespace.items()
        ]

        async def write(conn: AsyncConn) -> None:
            for batch, ops in batches:
                await self._apply(conn, batch, ops)

        await self._database.transaction(write, replays=True)

    # Under both.

    async def _refresh(self, found: Sequence[Record], wanted: bool) -> None:
        living = [record for record in found if record["expires_at"] is not None]
        if wanted and living:
            where = {"namespaces": [r["namespace"] for r in living], "keys": [r["key"] for r in living]}
            await self._database.fetch("refresh_ttl", where)

    async def _replayed(self, namespace: Namespace, idempotency_key: str) -> Receipts | None:
        where = {
            "namespace": records.encode(namespace),
            "idempotency_key": idempotency_key,
            "batch_id": None,
        }
        found = await self._database.fetch("replayed_batch", where)
        return records.receipts_of(found[0]) if found else None

    async def _commit(self, namespace: Namespace, operations: Sequence[Step], **options: Any) -> Receipts:
        """One batch, embedded, then applied in a transaction of its own."""
        vectors = await self._embed(texts_to_embed(operations, None))
        batch = Batch(namespace=namespace, language=self.language, vectors=vectors, **options)

        async def write(conn: AsyncConn) -> Receipts:
            return await self._apply(conn, batch, operations)

        return await self._database.transaction(write, replays=True)

    async def _apply(self, conn: AsyncConn, batch: Batch, operations: Sequence[Step]) -> Receipts:
        """Everything that one batch changes, inside the caller's transaction."""
        keys = named_keys(operations, batch.requires)
        head = records.batch_parameters(batch, keys)
        opened = await self._database.fetch_in(conn, "open_batch", head)
        if not opened:
            done = records.receipts_of((await self._database.fetch_in(conn, "replayed_batch", head))[0])
            return replace(done, replayed=done.batch_id != batch.id)
        batch = records.opened(batch, opened[0])
        made = await self._plan(conn, batch, operations, keys)
        if any(change.embedding is not None for change in made.changes):
            refuse_other((opened[0]["model"], opened[0]["dimension"]), self._model or ("", 0))
        stored = sealed(self._sealer, head["namespace"], made)
        await self._write(conn, batch, stored)
        await self._hold(conn, batch, made)
        await self._database.fetch_in(
            conn, "close_batch", {**head, "receipts": records.receipts_json(stored.receipts)}
        )
        return Receipts(batch.id, made.receipts)

    async def _plan(self, conn: AsyncConn, batch: Batch, operations: Sequence[Step], keys: list[str]) -> Plan:
        if not keys:
            return plan(batch, operations, {}, {})
        where = {"namespace": records.encode(batch.namespace), "keys": keys}
        newest = await self._database.fetch_in(conn, "last_versions", where)
        locked = await self._database.fetch_in(conn, "lock_current", where)
        current = {record["key"]: records.row_of(record) for record in locked}
        return plan(batch, operations, current, {record["key"]: record["max"] for record in newest})

    async def _write(self, conn: AsyncConn, batch: Batch, made: Plan) -> None:
        kept = [change for change in made.changes if change.row is not None]
        gone = [change.version.key for change in made.changes if change.row is None]
        layout = self._database.layout
        rows = [records.memory_row(change, layout) for change in kept]
        versions = [records.version_row(batch.namespace, change) for change in made.changes]
        if gone:
            where = {"namespace": records.encode(batch.namespace), "keys": gone}
            await self._database.fetch_in(conn, "delete_memories", where)
        if len(rows) >= COPIED_FROM and all(change.version.version == 1 for change in kept):
            await self._database.copy_in(conn, "copy_memory", records.memory_types(layout), rows)
            await self._database.copy_in(conn, "copy_version", records.VERSION_TYPES, versions)
        elif versions:
            await self._database.write_in(conn, "insert_memory", rows)
            await self._database.write_in(conn, "insert_version", versions)

    # Vectors.

    async def _embed(self, texts: list[str]) -> dict[str, Sequence[float]]:
        """Vectors by text. Called before a transaction opens: none is open while a model runs."""
        if self.embeddings is None or not texts:
            return {}
        vectors = await self.embeddings.aembed_documents(texts)
        return {text: fitting(vector, self._model) for text, vector in zip(texts, vectors, strict=True)}

    async def _towards(self, query: str) -> Sequence[float] | None:
        """The vector of a query, of length 1; None without a model, or where it points nowhere."""
        if self.embeddings is None:
            return None
        return unit(fitting(await self.embeddings.aembed_query(query), self._model))

    def _leave(self) -> object:
        self._loop = None
        self._ready, self._opening = False, asyncio.Lock()
        return self._database.leave()

    async def _open(self) -> None:
        self._bind()
        if not self._ready:
            async with self._opening:
                if not self._ready:
                    self._model = self._fit(await self._database.open(self.language)) or await self._first()
                    await self._indexes.open()
                    self._ready = True

    async def _first(self) -> Model | None:
        """The model of this store, noted in a database that holds no vectors."""
        if self.embeddings is None:
            return None
        # Measured and not believed: a wrong one would be noted for good.
        made = len(await self.embeddings.aembed_query("dimension"))
        if self._dims not in (None, made):
            raise EmbeddingMismatch(f"The model makes vectors of {made} dimensions, not {self._dims}.")
        return self._fit(await self._database.record_model(embedding_name(self.embeddings), made))

    def _fit(self, theirs: Model | None) -> Model | None:
        """The model whose vectors the database holds, if they can be compared with this store's."""
        if theirs is not None and self.embeddings is not None:
            refuse_other(theirs, (embedding_name(self.embeddings), self._dims or theirs[1]))
        return theirs
