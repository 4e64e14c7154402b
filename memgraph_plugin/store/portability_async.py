"""Exports from Postgres, and imports. This is the source; `portability.py` is generated from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing

from memgraph_plugin.errors import StoreError
from memgraph_plugin.store import records, schema
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase, Record
from memgraph_plugin.store.exported import Exported, Header, Logged, Versioned, Writer, history_digest
from memgraph_plugin.store.held import Quarantined
from memgraph_plugin.store.sealing import Sealer
from memgraph_plugin.store.spool import Spool, aspool, missing_batch
from memgraph_plugin.store.storable import check_prefix
from memgraph_plugin.store.vectors import Model, model_of, refuse_other
from memgraph_plugin.types import Imported, Namespace

NAMESPACES = 1_000
"""Namespaces that are asked about together."""


class AsyncPortability(AsyncOnly):
    """What a store on Postgres does of it."""

    _database: AsyncDatabase
    _model: Model | None
    _sealer: Sealer | None

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _embed(self, texts: list[str]) -> dict[str, Sequence[float]]: ...

    async def aexport(self, namespace: Namespace = (), *, vectors: bool = False) -> AsyncIterator[str]:
        check_prefix(namespace)
        await self._open()
        writer, scope = Writer(), records.scope_of(namespace)
        async with self._database.snapshot() as conn:
            found = await self._database.fetch_in(conn, "embedding_model", {})
            model = model_of(found[0]) if found else None
            yield writer.header(Header(namespace, model), schema.NEWEST, vectors=vectors)
            async with aclosing(_entries(self._database, conn, namespace, scope, vectors)) as entries:
                async for entry in entries:
                    yield writer.entry(entry, vectors=vectors)
        yield writer.footer()

    async def aimport(self, lines: Iterable[str] | AsyncIterable[str]) -> Imported:
        await self._open()
        with await aspool(lines) as spooled:
            model = self._model if self.embeddings is not None else None
            for texts in spooled.texts_to_embed(model):
                spooled.add_vectors(texts, await self._embed(texts))
            return await import_spooled(self._database, spooled, self._sealer, model)


async def _entries(
    database: AsyncDatabase, conn: AsyncConn, namespace: Namespace, scope: str, vectors: bool = False
) -> AsyncGenerator[Exported]:
    """Everything in scope, in the order of an export."""
    where = {"namespace": records.encode(namespace), "vectors": vectors}
    if strays := await database.fetch_in(conn, "memory_without_version", where, scope):
        raise StoreError(
            f"The memory {strays[0]['key']!r} of {strays[0]['namespace']!r} is in no version: the tables "
            "were changed by hand. Mend or delete that row."
        )
    async with aclosing(database.stream_in(conn, "exported_batches", where, scope)) as batches:
        async for record in batches:
            yield records.batch_of(record)
    async with aclosing(database.stream_in(conn, "exported_quarantine", where, scope)) as held:
        async for record in held:
            yield records.quarantined_of(record)
    async with aclosing(database.stream_in(conn, "exported_versions", where, scope)) as versions:
        async for record in versions:
            yield records.versioned_of(record)


async def import_spooled(
    database: AsyncDatabase, spool: Spool, sealer: Sealer | None, model: Model | None
) -> Imported:
    """Write what is spooled, in one transaction; `model` made its vectors.

    Raises:
        NamespaceTaken, InvalidExport, EmbeddingMismatch, StoreError: as `MemoryStore.import_` says.
    """
    layout, prefix = database.layout, spool.header.namespace
    about = {"namespace": records.encode(prefix)}

    async def write(conn: AsyncConn) -> Imported:
        held = await _held(database, conn, spool)
        await database.look_at(conn, about, records.scope_of(prefix))
        batches = versions = memories = waiting = skipped = 0
        for chunk in spool.chunks():
            new = [entry for entry in chunk if entry.namespace not in held]
            held_back = [entry for entry in new if isinstance(entry, Quarantined)]
            made = [records.sealed_entry(sealer, e) for e in new if not isinstance(e, Quarantined)]
            waits = [records.quarantine_row(sealer, each.namespace, each.held) for each in held_back]
            logged = [records.batch_row(entry) for entry in made if isinstance(entry, Logged)]
            changed = [entry for entry in made if isinstance(entry, Versioned)]
            rows = [records.memory_row(entry.change, layout) for entry in changed if entry.change.row]
            lines = [records.versioned_row(entry) for entry in changed]
            await database.copy_in(conn, "copy_batch", records.BATCH_TYPES, logged)
            await database.write_in(conn, "hold", waits)
            if model is not None and rows:  # after the batches, which whoever changes the model waits for
                found = await database.fetch_in(conn, "embedding_model", {})
                refuse_other(model_of(found[0]), model)
            await database.copy_in(conn, "copy_memory", records.memory_types(layout), rows)
            await database.copy_in(conn, "copy_version", records.VERSION_TYPES, lines)
            batches, versions, memories = batches + len(logged), versions + len(lines), memories + len(rows)
            waiting, skipped = waiting + len(held_back), skipped + len(chunk) - len(new)
        for stray in await _asked(database, conn, "version_without_batch", spool):
            raise missing_batch(records.decode(stray["namespace"]), stray["key"])
        return Imported(
            batches=batches,
            versions=versions,
            memories=memories,
            held=waiting,
            skipped=skipped,
            embedded=spool.embedded,
        )

    return await database.transaction(write)


async def _held(database: AsyncDatabase, conn: AsyncConn, spool: Spool) -> set[Namespace]:
    """The namespaces of the export that are here already, with the same history."""
    held: set[Namespace] = set()
    for record in await _asked(database, conn, "namespaces_held", spool):
        namespace = records.decode(record["namespace"])
        here = 0
        async for entry in _entries(database, conn, namespace, "exactly"):
            here += history_digest(entry)
        spool.check_held(namespace, here)
        held.add(namespace)
    return held


async def _asked(database: AsyncDatabase, conn: AsyncConn, name: str, spool: Spool) -> list[Record]:
    """What a statement finds among the export's namespaces."""
    prefix, found = spool.header.namespace, []
    asked = [records.encode(namespace) for namespace in spool.histories]
    for start in range(0, len(asked), NAMESPACES):
        where = {"namespace": records.encode(prefix), "asked": asked[start : start + NAMESPACES]}
        found += await database.fetch_in(conn, name, where, records.scope_of(prefix))
    return found
