"""The connections under the Postgres store. This is the source; `database.py` is generated from it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg.pq import PGconn, Ping
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from memgraph_plugin.errors import ConfigurationError, SchemaOutOfDate, StoreError
from memgraph_plugin.store import schema, visibility
from memgraph_plugin.store.connection import RETRIED, checked_conninfo, stoppable, translated
from memgraph_plugin.store.layout import Layout
from memgraph_plugin.store.sealing import Sealer, opened
from memgraph_plugin.store.sql import Indexed, query
from memgraph_plugin.store.vectors import Model, model_of

T = TypeVar("T")
Record = dict[str, Any]
AsyncConn = AsyncConnection[Record]

ATTEMPTS = 5
"""How often a transaction is tried that other writers made fail."""

PATIENCE = 3.0
"""Seconds without a free connection after which the database is asked whether it is still there."""


class AsyncDatabase:
    """A pool of connections to one schema, the named statements on it, and transactions that try again."""

    def __init__(
        self, conninfo: str, db_schema: str, *, max_size: int, prepare: bool, sealer: Sealer | None = None
    ) -> None:
        self.db_schema = db_schema
        self.layout = Layout()
        self._sealer = sealer
        self._conninfo = checked_conninfo(conninfo)
        self._max_size = max_size
        self._options: dict[str, Any] = {
            "autocommit": True,
            "row_factory": dict_row,
            "prepare_threshold": 2 if prepare else None,
        }
        self._guarded = False
        self._pool: AsyncConnectionPool[AsyncConn] | None = None

    async def setup(self, partitions: int | None, vector_type: str | None) -> list[int]:
        """Create or migrate the tables; the migrations that were applied."""
        return await asyncio.to_thread(
            schema.migrate, self._conninfo, self.db_schema, partitions, vector_type
        )

    async def open(self, language: str) -> Model | None:
        """Check that the schema and the language fit, and open the pool.

        Returns: name and dimension of the model whose vectors the database holds; None where it holds none.
        """
        with translated():
            # Not from the pool: without pgvector it makes no connection, and says so only by a timeout.
            async with await AsyncConnection[Record].connect(self._conninfo, **self._options) as conn:
                await self._check_schema(conn)
                await self._check_language(conn, language)
                (laid_out,) = await self.fetch_in(conn, "layout", {"schema": self.db_schema})
                self.layout = Layout.found(laid_out)
                found = await self.fetch_in(conn, "embedding_model", {})
                bound = await self.fetch_in(conn, "row_security", {"schema": self.db_schema})
                self._guarded = bound[0]["active"]
                await _configure(conn)
            self._pool = AsyncConnectionPool(
                self._conninfo,
                open=False,
                min_size=1,
                max_size=self._max_size,
                kwargs=self._options,
                check=AsyncConnectionPool.check_connection,
                connection_class=_Pooled,
            )
            await self._pool.open()
        return model_of(found[0]) if found else None

    async def record_model(self, name: str, dimension: int) -> Model:
        """Note whose vectors will come; returns the name and dimension of who was first to be noted."""
        await self.fetch("record_embedding_model", {"name": name, "dimension": dimension})
        found = await self.fetch("embedding_model", {})
        return model_of(found[0])

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConn]:
        """A connection outside the pool, closed at the end, for work that takes its time."""
        with translated():
            async with await AsyncConnection[Record].connect(self._conninfo, **self._options) as conn:
                await _configure(conn)
                await conn.execute("SET statement_timeout = 0")
                yield conn

    async def fetch(
        self, name: str, parameters: Mapping[str, Any], scope: str | Indexed = "exactly"
    ) -> list[Record]:
        """The records of one named statement, in a transaction of its own."""
        with translated():
            async with self._connection() as conn:
                return await self.fetch_in(conn, name, parameters, scope)

    async def fetch_in(
        self, conn: AsyncConn, name: str, parameters: Mapping[str, Any], scope: str | Indexed = "exactly"
    ) -> list[Record]:
        """The records of one named statement, in the caller's transaction; none where it returns none.

        Where row-level security binds this role, the rest of the transaction sees what the parameters are
        about, see `visibility.scope_of`.
        """
        statement = query(name, self.db_schema, scope, self.layout)
        about = visibility.scope_of(parameters, scope) if self._guarded else None
        if about is not None:
            # Sent together: one round trip, and one transaction, also where the caller has none.
            async with conn.pipeline():
                await conn.execute(visibility.SET_SCOPE, [about])
                cursor = await conn.execute(statement, parameters)
        else:
            cursor = await conn.execute(statement, parameters)
        if not cursor.description:
            return []
        namespace = parameters.get("namespace")
        return [opened(self._sealer, record, namespace) for record in await cursor.fetchall()]

    async def write_in(self, conn: AsyncConn, name: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one named statement once a row, in the caller's transaction."""
        async with conn.cursor() as cursor:
            await cursor.executemany(query(name, self.db_schema), rows)

    async def copy_in(
        self, conn: AsyncConn, name: str, types: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Copy rows into the table of one named COPY statement, in the caller's transaction."""
        statement = query(name, self.db_schema)
        if self._guarded:  # Postgres refuses COPY there
            for chunk in visibility.columns(rows, types):
                await conn.execute(visibility.insert_instead(statement, types), chunk)
            return
        async with conn.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                await copy.write_row(row)

    async def transaction(self, write: Callable[[AsyncConn], Awaitable[T]]) -> T:
        """Run `write` in a transaction, and again where another writer made it fail."""
        attempt = 1
        while True:
            try:
                with translated():
                    async with self._connection() as conn, conn.transaction():
                        return await write(conn)
            except StoreError as error:
                if attempt == ATTEMPTS or not isinstance(error.__cause__, RETRIED):
                    raise
            await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter
            attempt += 1

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConn]:
        """A connection of the pool. One waits long for a busy database, not for one that is gone."""
        if self._pool is None:
            raise StoreError("The store is not open: it was closed before its first use.")
        try:
            conn = await self._pool.getconn(PATIENCE)
        except PoolTimeout:
            answer = await asyncio.to_thread(PGconn.ping, self._conninfo.encode())
            if answer in (Ping.NO_RESPONSE, Ping.NO_ATTEMPT):
                raise
            conn = await self._pool.getconn()
        try:
            async with conn:
                yield conn
        finally:
            await self._pool.putconn(conn)

    async def _check_schema(self, conn: AsyncConn) -> None:
        version = (await self.fetch_in(conn, "schema_version", {}))[0]["max"]
        if version != schema.NEWEST:
            raise SchemaOutOfDate(
                f"Schema {self.db_schema!r} is at {version}, this package needs {schema.NEWEST}: "
                "call setup(), or run `memgraph-plugin migrate`."
            )

    async def _check_language(self, conn: AsyncConn, language: str) -> None:
        known = [record["cfgname"] for record in await self.fetch_in(conn, "languages", {})]
        if language not in known:
            raise ConfigurationError(f"Unknown language {language!r}; known: {', '.join(sorted(known))}.")


class _Pooled(AsyncConnection[Record]):
    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:
        with stoppable():
            conn = await super().connect(conninfo, **options)
            await _configure(conn)
            return conn


async def _configure(conn: AsyncConn) -> None:
    await register_vector_async(conn)
    if conn.prepare_threshold is not None:
        # `recall` takes longer to plan than a small namespace to search, and its plan is the same for all.
        await conn.execute("SET plan_cache_mode = force_generic_plan")
