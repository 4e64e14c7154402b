"""The indexes of large namespaces, used and kept up. This is the source; `indexing` decides."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from memgraph_plugin.errors import MemgraphPluginError, StoreError
from memgraph_plugin.store import indexing
from memgraph_plugin.store.background import AsyncBackground
from memgraph_plugin.store.base import MAX_RESULTS
from memgraph_plugin.store.database_async import AsyncConn, AsyncDatabase, Record
from memgraph_plugin.store.indexing import SearchIndex
from memgraph_plugin.store.visibility import EVERYTHING

logger = logging.getLogger(__name__)


class AsyncIndexes:
    """Which namespaces of a database have indexes of their own; sends searches to them; makes and drops them.

    What nobody asked for happens in the background, on a connection of its own: a search waits for none of it
    and fails of none of it.
    """

    def __init__(self, database: AsyncDatabase, threshold: int | None) -> None:
        self._database = database
        self._threshold = indexing.check_threshold(threshold)
        self._known: indexing.Known = {}
        self._refreshed = 0.0
        self._searches = 0
        self._closed = False
        self._background = AsyncBackground()
        self._busy: set[str] = set()
        self._building: set[AsyncConn] = set()

    async def open(self) -> None:
        """Learn which indexes there are; called again where the store comes to another event loop."""
        self._background, self._busy, self._building = AsyncBackground(), set(), set()
        await self.refresh()

    async def refresh(self) -> None:
        """Learn anew which indexes there are."""
        self._refreshed = time.monotonic()
        self._known = indexing.known(await self._database.fetch("search_indexes", {"namespace": EVERYTHING}))

    async def close(self) -> None:
        """Stop what is being built; what is half done is dropped by who builds it next."""
        self._closed = True
        for conn in list(self._building):
            await conn.cancel_safe()
        await self._background.wait()

    async def search(
        self, name: str, parameters: Mapping[str, Any], scope: str, *, dimension: int | None
    ) -> list[Record]:
        """The records of "nearest" or "recall": by an index where there is one, else of every row."""
        routed = indexing.route(self._known, name, scope, parameters)
        found = None
        if routed is not None:
            statement, indexed, more = routed
            found = await self._database.fetch(statement, {**parameters, **more}, indexed)
            if not indexing.suffices(found, name, parameters):
                found = None
        if found is None:
            found = await self._database.fetch(name, parameters, scope)
        if dimension is not None and scope != "everywhere":
            self._keep_up(parameters["namespace"], scope, dimension)
        return found

    async def create(self, namespace: str, dimension: int, *, below: bool, asked: bool) -> SearchIndex | None:
        """Make the indexes, or what of them is not there; None where another process is at it.

        Raises:
            StoreError: this role may not, or the database failed.
        """
        wanted = SearchIndex(namespace, below, asked, dimension, 0)
        async with self._turn(namespace, below=below) as conn:
            if conn is None:
                return None
            tables = await self._tables(conn, wanted)
            where = {"namespace": namespace}
            counted = await self._database.fetch_in(
                conn, "count_rows", {**where, "most": MAX_RESULTS}, wanted.scope
            )
            memory = indexing.memory_needed(counted[0]["rows"], dimension)
            await conn.execute(f"SET maintenance_work_mem = '{memory}'".encode())
            for table in tables:
                for name, statement in self._statements(table, wanted).items():
                    await self._create(conn, name, statement)
            made = await self._note(conn, wanted)
        self._known = {**self._known, (namespace, below): made}
        return made

    async def drop(self, namespace: str, *, below: bool) -> bool:
        """Drop the indexes; whether there were any.

        Raises:
            StoreError: this role may not, or the database failed.
        """
        wanted = SearchIndex(namespace, below, asked=False, dimension=1, rows=0)
        async with self._turn(namespace, below=below) as conn:
            if conn is None:
                raise StoreError(
                    "Another process is making or dropping this index: try again when it is done."
                )
            tables = await self._tables(conn, wanted)
            where = {"namespace": namespace}
            found = await self._database.fetch_in(conn, "forget_index", where, wanted.scope)
            await self._database.fetch_in(conn, "forget_terms", where, wanted.scope)
            for table in tables:
                names = list(indexing.index_names(table, namespace, below=below).values())
                for state in await self._states(conn, names):
                    found.append(state)
                    await conn.execute(indexing.drop_statement(self._database.db_schema, state["name"]))
        self._known = {key: index for key, index in self._known.items() if key != (namespace, below)}
        return bool(found)

    # In the background.

    def _keep_up(self, namespace: str, scope: str, dimension: int) -> None:
        """After a search: now and then, look whether what is known still holds."""
        if self._closed or dimension > indexing.HNSW_MAX_DIMENSION[self._database.layout.vector_type]:
            return
        if time.monotonic() - self._refreshed > indexing.REFRESHED:
            self._refreshed = time.monotonic()
            self._background.start(self._quietly, "", self.refresh)
        self._searches += 1
        below = scope == "prefix" and (namespace, True) in self._known
        wanted = self._threshold is not None or (namespace, below) in self._known
        if wanted and self._searches % indexing.LOOK_EVERY == 0 and namespace not in self._busy:
            self._busy.add(namespace)
            about = SearchIndex(namespace, below, asked=False, dimension=dimension, rows=0)
            self._background.start(self._quietly, namespace, self._look, about)

    async def _quietly(self, namespace: str, work: Any, *arguments: Any) -> None:
        """A failure is logged and, where it was of a namespace, not tried again by this store."""
        try:
            await work(*arguments)
            self._busy.discard(namespace)
        except (MemgraphPluginError, psycopg.Error) as error:
            if not self._closed:
                logger.warning("Search indexes, %s: %s", namespace, error)

    async def _look(self, about: SearchIndex) -> None:
        """Count the rows of a namespace, and do what follows from it."""
        key = (about.namespace, about.below)
        index = self._known.get(key)
        most = 2 * max(self._threshold or 0, index.rows if index else 0)
        where = {"namespace": about.namespace, "most": most}
        counted = await self._database.fetch("count_rows", where, about.scope)
        needed = indexing.after_count(index, counted[0]["rows"], self._threshold)
        if needed == "create":
            await self.refresh()  # another process may have been there first
            if key not in self._known and len(self._known) < indexing.MOST:
                await self.create(about.namespace, about.dimension, below=about.below, asked=False)
        elif needed == "drop":
            await self.drop(about.namespace, below=about.below)
        elif needed == "note" and index is not None:
            async with self._turn(about.namespace, below=about.below) as conn:
                if conn is not None:
                    self._known = {**self._known, key: await self._note(conn, index)}

    # On the builder's connection.

    @asynccontextmanager
    async def _turn(self, namespace: str, *, below: bool) -> AsyncIterator[AsyncConn | None]:
        """A connection of one's own while nobody else works on this index; None where somebody does."""
        async with self._database.alone() as conn:
            self._building.add(conn)
            try:
                index = f"{self._database.db_schema} {namespace} {below}"
                turn = await self._database.fetch_in(conn, "try_turn", {"index": index})
                yield conn if turn[0]["mine"] and not self._closed else None
            finally:
                self._building.discard(conn)

    async def _tables(self, conn: AsyncConn, index: SearchIndex) -> list[str]:
        where = {"table": self._table, "below": index.below, "namespace": index.namespace}
        found = await self._database.fetch_in(conn, "tables_of", where)
        if not all(table["owned"] for table in found):
            raise StoreError(indexing.owner_needed(index.namespace, below=index.below))
        return [table["name"] for table in found]

    async def _states(self, conn: AsyncConn, names: list[str]) -> list[Record]:
        where = {"table": self._table, "names": names}
        return await self._database.fetch_in(conn, "index_states", where)

    async def _create(self, conn: AsyncConn, name: str, statement: str) -> None:
        """One index, unless it is there; what an earlier build left half done goes first."""
        states = await self._states(conn, [name])
        if states and states[0]["valid"]:
            return
        await conn.execute(indexing.drop_statement(self._database.db_schema, name))
        try:
            await conn.execute(statement.encode())
        except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
            # A parallel build shares memory, of which a container may have next to none.
            await conn.execute("SET max_parallel_maintenance_workers = 0")
            await conn.execute(indexing.drop_statement(self._database.db_schema, name))
            await conn.execute(statement.encode())

    async def _note(self, conn: AsyncConn, index: SearchIndex) -> SearchIndex:
        """What ranking has to know of the rows that are not read."""
        async with conn.transaction():
            where = {"namespace": index.namespace, "asked": index.asked, "enough": indexing.ENOUGH}
            noted = await self._database.fetch_in(conn, "note_index", where, index.scope)
            await self._database.fetch_in(conn, "forget_terms", where, index.scope)
            await self._database.fetch_in(conn, "note_terms", where, index.scope)
        return SearchIndex(**noted[0])

    def _statements(self, table: str, index: SearchIndex) -> dict[str, str]:
        return dict(indexing.create_statements(table, index, self._database.layout.vector_type))

    @property
    def _table(self) -> str:
        return indexing.quoted(self._database.db_schema, "memory")
