"""The store on Postgres. This is the source; `scripts/generate_sync.py` makes `postgres.py` of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
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
from pgvector import HalfVector

from memgraph_plugin.errors import ConfigurationError, EmbeddingMismatch, MemoryNotFound
from memgraph_plugin.models.embeddings import embedding_name
from memgraph_plugin.store import records
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.base import MAX_RESULTS, Ranking, SearchConfig, embedder, search_ranking
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase, Record
from memgraph_plugin.store.indexes_async import AsyncIndexes, AsyncIndexing
from memgraph_plugin.store.indexing import THRESHOLD
from memgraph_plugin.store.journal import Batch, Plan, check_dimension, named_keys, plan, texts_to_embed
from memgraph_plugin.store.ranking import QUESTION_CHARACTERS, unit, within_budget
from memgraph_plugin.store.sealing import Sealer, sealed
from memgraph_plugin.store.storable import (
    check_batch,
    check_key,
    check_namespace,
    check_recall,
    storable_operations,
    storable_ops,
)
from memgraph_plugin.types import Hit, MemoryKind, MemoryVersion, Namespace, Operation, Receipts

COPIED_FROM = 50
"""New rows from which on they are copied in bulk."""


class PoolConfig(TypedDict, total=False):
    """LangGraph's, of its own Postgres stores."""

    min_size: int
    max_size: int | None
    kwargs: dict[str, Any]


class AsyncPostgresMemoryStore(AsyncIndexing, AsyncOnly):
    """A `MemoryStore` on Postgres with pgvector.

        async with AsyncPostgresMemoryStore("postgresql://...", embeddings=...) as store:
            await store.setup()

    The first call opens the connections, and checks what stands in the database.

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

    Raises on first use:
        DatabaseUnavailable, SchemaOutOfDate, ConfigurationError (an unknown language), EmbeddingMismatch (the
        database holds vectors of another model).
    """

    supports_ttl = True

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
    ) -> None:
        super().__init__()
        self.embeddings = embedder(index, embeddings)
        self.ttl_config = ttl
        self.language = language
        self._ranking = search_ranking(index)
        self._fields = index.get("fields") if index else None
        self._dims = index.get("dims") if index else None
        self._dimension: int | None = None
        self._ready = False
        self._opening = asyncio.Lock()
        if sealer is not None and self.embeddings is None:
            raise ConfigurationError("A sealed store is searched by vectors alone: give it embeddings.")
        self._sealer = sealer
        self._database = AsyncDatabase(conninfo, db_schema, max_size=max_size, prepare=prepare, sealer=sealer)
        self._indexes = AsyncIndexes(self._database, index_threshold)

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

        Writes always go by pipeline, in one transaction; of `pool_config`, `max_size` counts.
        """
        if pool_config and (max_size := pool_config.get("max_size")):
            options["max_size"] = max_size
        async with cls(conn_string, **options) as store:
            yield store

    async def __aenter__(self) -> Self:
        self._bind()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def setup(self) -> list[int]:
        """Create or migrate the tables; the numbers of the migrations that were applied."""
        applied = await self._database.setup()
        await self._open()
        return applied

    async def aclose(self) -> None:
        """Give the connections back; the store cannot be used again."""
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
    ) -> Receipts:
        operations = storable_operations(namespace, operations)
        check_batch(idempotency_key, actor, policy)
        await self._open()
        check_dimension(operations, self._dimension)
        if idempotency_key is not None and (replayed := await self._replayed(namespace, idempotency_key)):
            return replayed
        batch = Batch(
            namespace=namespace,
            language=self.language,
            vectors=await self._embed(texts_to_embed(operations, None)),
            idempotency_key=idempotency_key,
            actor=actor,
            policy=policy,
        )

        async def write(conn: AsyncConn) -> Receipts:
            return await self._apply(conn, batch, operations)

        return await self._database.transaction(write)

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
        limit = min(max(k, 0), MAX_RESULTS)
        wanted = {"limit": limit, "offset": 0, "kinds": list(kinds) if kinds is not None else None}
        found = await self._search("exactly", namespace, query, filter, wanted, "hybrid")
        read = records.hit_of if query.strip() else records.recent_hit_of
        return within_budget(map(read, found), token_budget)

    async def ahistory(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        check_namespace(namespace)
        check_key(key, "key")
        await self._open()
        where = {"namespace": records.encode(namespace), "key": key}
        found = await self._database.fetch("history", where)
        if not found:
            raise MemoryNotFound(f"There never was a memory {key!r} in this namespace.")
        return records.versions_of(found)

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
        batches: dict[Namespace, list[PutOp]] = {}
        for op in sorted(puts, key=lambda op: (records.slot_of(op.namespace), op.namespace)):
            batches.setdefault(op.namespace, []).append(op)

        async def write(conn: AsyncConn) -> None:
            for namespace, ops in batches.items():
                batch = Batch(
                    namespace=namespace, language=self.language, vectors=vectors, fields=self._fields
                )
                await self._apply(conn, batch, ops)

        await self._database.transaction(write)

    # Under both.

    async def _search(
        self,
        scope: str,
        namespace: Namespace,
        text: str,
        filter: Mapping[str, Any] | None,  # noqa: A002
        wanted: Mapping[str, Any],
        ranking: Ranking,
    ) -> list[Record]:
        parameters = {
            **wanted,
            **records.filter_parameters(filter),
            "namespace": records.encode(namespace),
        }
        if filter and self._sealer is not None:
            raise ConfigurationError("A sealed store cannot filter: the database does not see the values.")
        await self._open()
        if not text.strip():
            return await self._database.fetch("latest", parameters, scope)
        vector = None
        if self.embeddings is not None:
            towards = unit(self._fitting(await self.embeddings.aembed_query(text)))
            vector = None if towards is None else HalfVector(list(towards))
        parameters |= {"language": self.language, "query": text[:QUESTION_CHARACTERS], "vector": vector}
        by_vector = ranking == "vector" and vector is not None
        name = "nearest" if by_vector else "recall"
        return await self._indexes.search(name, parameters, scope, dimension=self._dimension)

    async def _refresh(self, found: Sequence[Record], wanted: bool) -> None:
        living = [record for record in found if record["expires_at"] is not None]
        if wanted and living:
            where = {"namespaces": [r["namespace"] for r in living], "keys": [r["key"] for r in living]}
            await self._database.fetch("refresh_ttl", where)

    async def _replayed(self, namespace: Namespace, idempotency_key: str) -> Receipts | None:
        where = {"namespace": records.encode(namespace), "idempotency_key": idempotency_key}
        found = await self._database.fetch("replayed_batch", where)
        return records.receipts_of(found[0]) if found else None

    async def _apply(
        self, conn: AsyncConn, batch: Batch, operations: Sequence[Operation | PutOp]
    ) -> Receipts:
        """Everything that one batch changes, inside the caller's transaction."""
        keys = named_keys(operations)
        head = records.batch_parameters(batch, keys)
        opened = await self._database.fetch_in(conn, "open_batch", head)
        if not opened:
            return records.receipts_of((await self._database.fetch_in(conn, "replayed_batch", head))[0])
        batch = records.opened(batch, opened[0])
        made = await self._plan(conn, batch, operations, keys)
        stored = sealed(self._sealer, head["namespace"], made)
        await self._write(conn, batch, stored)
        await self._database.fetch_in(
            conn, "close_batch", {**head, "receipts": records.receipts_json(stored.receipts)}
        )
        return Receipts(batch.id, made.receipts)

    async def _plan(
        self, conn: AsyncConn, batch: Batch, operations: Sequence[Operation | PutOp], keys: list[str]
    ) -> Plan:
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
        rows = [records.memory_row(change) for change in kept]
        versions = [records.version_row(batch.namespace, change) for change in made.changes]
        if gone:
            where = {"namespace": records.encode(batch.namespace), "keys": gone}
            await self._database.fetch_in(conn, "delete_memories", where)
        if len(rows) >= COPIED_FROM and all(change.version.version == 1 for change in kept):
            await self._database.copy_in(conn, "copy_memory", records.MEMORY_TYPES, rows)
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
        return {text: self._fitting(vector) for text, vector in zip(texts, vectors, strict=True)}

    def _fitting(self, vector: list[float]) -> list[float]:
        if len(vector) != self._dimension:
            raise EmbeddingMismatch(
                f"The store's vectors have {self._dimension} dimensions, this one has {len(vector)}."
            )
        return vector

    async def _open(self) -> None:
        self._bind()
        if not self._ready:
            async with self._opening:
                if not self._ready:
                    self._dimension = (
                        self._fit(await self._database.open(self.language)) or await self._first()
                    )
                    await self._indexes.open()
                    self._ready = True

    async def _first(self) -> int | None:
        """The dimension of this store's vectors, noted in a database that holds none."""
        if self.embeddings is None:
            return None
        # Measured and not believed: a wrong one would be noted for good.
        made = len(await self.embeddings.aembed_query("dimension"))
        if self._dims not in (None, made):
            raise EmbeddingMismatch(f"The model makes vectors of {made} dimensions, not {self._dims}.")
        return self._fit(await self._database.record_model(embedding_name(self.embeddings), made))

    def _fit(self, theirs: tuple[str, int] | None) -> int | None:
        """The dimension of the vectors in the database, if they can be compared with this store's."""
        if theirs is None:
            return None
        if self.embeddings is not None:
            name, dimension = embedding_name(self.embeddings), self._dims or theirs[1]
            if theirs != (name, dimension):
                raise EmbeddingMismatch(
                    f"The database holds vectors of {theirs[0]} ({theirs[1]} dimensions); "
                    f"this store was given {name} ({dimension})."
                )
        return theirs[1]
