"""The connections under the Postgres store. This is the source; `database.py` is generated from it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, IsolationLevel
from psycopg.pq import PGconn, Ping
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable, SchemaOutOfDate, StoreError
from memgraph_plugin.store import schema, visibility
from memgraph_plugin.store.connection import (
    address,
    attempts,
    checked_conninfo,
    json_of,
    lost,
    stoppable,
    translated,
)
from memgraph_plugin.store.layout import Layout
from memgraph_plugin.store.sealing import Sealer, opened
from memgraph_plugin.store.sql import Indexed, query
from memgraph_plugin.store.vectors import Model, model_of

T = TypeVar("T")
Record = dict[str, Any]
AsyncConn = AsyncConnection[Record]

PAGE = 500
"""Records that a stream fetches together."""

PATIENCE = 3.0
"""Seconds without a free connection after which the database is asked whether it is still there."""

STARTING = 30.0
"""Seconds that a database has to start, or to recover from a crash."""


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
        self._pool: AsyncConnectionPool[_Pooled] | None = None
        self._gone = False
        self._lost = 0.0  # when a connection was last found dead

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
            self._pool = await self._new_pool()
        return model_of(found[0]) if found else None

    async def _new_pool(self) -> AsyncConnectionPool[_Pooled]:
        pool: AsyncConnectionPool[_Pooled] = AsyncConnectionPool(
            self._conninfo,
            open=False,
            min_size=1,
            max_size=self._max_size,
            kwargs=self._options,
            # Not for minutes, as by default, with ever longer pauses: the next call has it try again.
            reconnect_timeout=PATIENCE,
            connection_class=_Pooled,
        )
        await pool.open()
        return pool

    async def record_model(self, name: str, dimension: int) -> Model:
        """Note whose vectors will come; returns the name and dimension of who was first to be noted."""
        await self.fetch("record_embedding_model", {"name": name, "dimension": dimension})
        found = await self.fetch("embedding_model", {})
        return model_of(found[0])

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    def leave(self) -> object:
        """Have no connections: those there were belong to a loop that ended, or to this process's parent.

        Returns: the pool. In a forked process it must be kept: taking it apart could wait for its threads.
        """
        left, self._pool = self._pool, None
        return left

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConn]:
        """A connection outside the pool, closed at the end, for work that takes its time."""
        with translated():
            async with await AsyncConnection[Record].connect(self._conninfo, **self._options) as conn:
                await _configure(conn)
                await conn.execute("SET statement_timeout = 0")
                yield conn

    async def fetch(
        self,
        name: str,
        parameters: Mapping[str, Any],
        scope: str | Indexed = "exactly",
        relation: str = "",
    ) -> list[Record]:
        """The records of one named statement, in a transaction of its own; it may be run twice."""

        async def read(conn: AsyncConn) -> list[Record]:
            return await self.fetch_in(conn, name, parameters, scope, relation)

        return await self._again(read)

    async def fetch_in(
        self,
        conn: AsyncConn,
        name: str,
        parameters: Mapping[str, Any],
        scope: str | Indexed = "exactly",
        relation: str = "",
    ) -> list[Record]:
        """The records of one named statement, in the caller's transaction; none where it returns none.

        Where row-level security binds this role, the rest of the transaction sees what the parameters are
        about, see `visibility.scope_of`.
        """
        statement = query(name, self.db_schema, scope, self.layout, relation)
        about = visibility.scope_of(parameters, scope) if self._guarded else None
        if about is not None:
            # Sent together: one round trip, and one transaction, also where the caller has none.
            async with conn.pipeline():
                await conn.execute(visibility.SET_SCOPE, [about])
                cursor = await conn.execute(statement, parameters)
        else:
            cursor = await conn.execute(statement, parameters)
        if cursor.rownumber is None:  # no result; `description` would describe every column to say so
            return []
        namespace = parameters.get("namespace")
        return [opened(self._sealer, record, namespace) for record in await cursor.fetchall()]

    async def stream_in(
        self,
        conn: AsyncConn,
        name: str,
        parameters: Mapping[str, Any],
        scope: str = "exactly",
        page: int = PAGE,
        binary: bool = False,
    ) -> AsyncGenerator[Record]:
        """`fetch_in`, a page at a time, for results of any size."""
        await self.look_at(conn, parameters, scope)
        async with conn.cursor(name=name) as cursor:
            cursor.itersize = page
            statement = query(name, self.db_schema, scope, self.layout)
            await cursor.execute(statement, parameters, binary=binary)
            async for record in cursor:
                yield opened(self._sealer, record, None)

    async def look_at(self, conn: AsyncConn, parameters: Mapping[str, Any], scope: str) -> None:
        """What `fetch_in` does before its statement: say what the rest of the transaction is about."""
        if self._guarded and (about := visibility.scope_of(parameters, scope)) is not None:
            await conn.execute(visibility.SET_SCOPE, [about])

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

    async def transaction(self, write: Callable[[AsyncConn], Awaitable[T]], *, replays: bool = False) -> T:
        """Run `write` in a transaction; again where other writers made it fail, or its connection was lost.

        A connection lost during COMMIT leaves nobody knowing whether that was done. `replays`: `write` may be
        run again even then, since it recognises what it has written.
        """
        ended = False

        async def work(conn: AsyncConn) -> T:
            nonlocal ended
            ended = False
            async with conn.transaction():
                done = await write(conn)
                ended = True
            if conn.closed:  # psycopg sends no COMMIT on one that it knows is lost, and raises nothing
                raise psycopg.OperationalError("the connection was lost in a transaction")
            return done

        return await self._again(work, lambda: replays or not ended)

    async def _again(
        self, work: Callable[[AsyncConn], Awaitable[T]], safe: Callable[[], bool] = lambda: True
    ) -> T:
        attempt = 1
        while True:
            try:
                with translated():
                    async with self._connection() as conn:
                        return await work(conn)
            except StoreError as error:
                if attempt >= attempts(error) or (lost(error) and not safe()):
                    raise
                pause = 0.2 if lost(error) else 0.0  # whoever killed one may be at the others
            await asyncio.sleep(pause + random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter
            attempt += 1

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConn]:
        """A connection in a transaction that sees everything as it is at its first statement."""
        with translated():
            async with self._connection() as conn, conn.transaction():
                await conn.execute(query("one_snapshot", self.db_schema))
                yield conn

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Pooled]:
        """A connection that works. One waits long for a busy database, not for one that is gone.

        To ask whether it works is a round trip: done where another one died since this one answered.
        """
        if (pool := self._pool) is None:
            raise StoreError("The store is not open: it was closed before its first use.")
        try:
            while True:
                conn = await self._take(pool)
                try:
                    async with conn:
                        if conn.used > self._lost or await _works(conn):
                            yield conn
                            return
                finally:
                    if conn.broken:
                        self._lost = time.monotonic()
                    conn.used = time.monotonic()
                    # Also if it is cancelled meanwhile: what is not given back is missing for good.
                    await asyncio.shield(pool.putconn(conn))
        except KeyboardInterrupt:
            # It may have come while the pool handed a connection over, which then is nobody's.
            self._pool = await self._new_pool()
            raise

    async def _take(self, pool: AsyncConnectionPool[_Pooled]) -> _Pooled:
        if self._gone:
            await self._ask()
        try:
            return await pool.getconn(PATIENCE)
        except PoolTimeout:
            await self._ask()
            return await pool.getconn()

    async def _ask(self) -> None:
        """Make sure that the database answers. The pool is not asked: it would log each failed attempt."""
        until = time.monotonic() + STARTING
        answer = await self._ping()
        while answer is Ping.REJECT and time.monotonic() < until:
            await asyncio.sleep(0.1)
            answer = await self._ping()
        self._gone = answer in (Ping.NO_RESPONSE, Ping.NO_ATTEMPT)
        if self._gone:
            raise DatabaseUnavailable(f"Postgres does not answer ({address(self._conninfo)}).")

    async def _ping(self) -> Ping:
        return Ping(await asyncio.to_thread(PGconn.ping, self._conninfo.encode()))

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
    used = 0.0
    """When it last answered."""

    @classmethod
    async def connect(cls, conninfo: str = "", **options: Any) -> Self:
        with stoppable():
            conn = await super().connect(conninfo, **options)
            await _configure(conn)
            conn.used = time.monotonic()
            return conn


async def _works(conn: AsyncConn) -> bool:
    # Not as the pool's own check: that waits longer for each lost one, and loses the one it was cancelled at.
    try:
        await AsyncConnectionPool.check_connection(conn)
    except psycopg.OperationalError:
        return False
    return True


async def _configure(conn: AsyncConn) -> None:
    await register_vector_async(conn)
    # Sent with each BEGIN. Whatever the database's default: after waiting for its turn, a batch must see what
    # was written meanwhile.
    await conn.set_isolation_level(IsolationLevel.READ_COMMITTED)
    set_json_loads(json_of, conn)
    if conn.prepare_threshold is not None:
        # `recall` takes longer to plan than a small namespace to search, and its plan is the same for all.
        await conn.execute("SET plan_cache_mode = force_generic_plan")
