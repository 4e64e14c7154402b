"""The seam to psycopg: its errors become ours here, once. No password is ever part of a message."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from memgraph_plugin.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    EmbeddingMismatch,
    NamespaceDenied,
    SchemaOutOfDate,
    StoreError,
)
from memgraph_plugin.store.vectors import MENDING

CONNECT_TIMEOUT = 5
"""Seconds that a host has to answer, where the connection string says nothing else."""

RETRIED = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
)
"""What another writer can cause: the transaction is run again."""

_OTHER_MODEL = "MGP01"
"""The SQLSTATE of `refuse_model`."""

ATTEMPTS = 5
"""How often a transaction is tried that other writers made fail."""

_GONE = ("08", "280", "28P", "3D0", "533", "57P")
"""SQLSTATEs that begin like this mean that there is no connection; others, that a statement failed."""


def attempts(error: StoreError) -> int:
    """How often to try, in all, what failed with this error."""
    if isinstance(error.__cause__, RETRIED):
        return ATTEMPTS
    # Not more often: a statement may be what brought the database down.
    return 2 if lost(error) else 1


def lost(error: StoreError) -> bool:
    """Whether a connection that stood was lost: by a restart, a killed backend, or the network."""
    cause = error.__cause__
    none_had = isinstance(cause, PoolTimeout | PoolClosed | TooManyRequests)
    return isinstance(error, DatabaseUnavailable) and isinstance(cause, psycopg.Error) and not none_had


def checked_conninfo(conninfo: str) -> str:
    """The connection string, with an end to waiting for a host that does not answer.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(conninfo, str):
        raise ConfigurationError(
            f"A store takes a connection string, not a {type(conninfo).__name__}: it has a pool of its own."
        )
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error:
        # Not the cause's message: it quotes what it did not understand, which may be a password.
        raise ConfigurationError(
            "Not a Postgres connection string; one is postgresql://user@host/name or host=... dbname=..."
        ) from None
    return make_conninfo(conninfo, **{"connect_timeout": CONNECT_TIMEOUT, **given})


def pool_options(conninfo: str, pool_config: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """LangGraph's `pool_config` as a connection string and arguments of a store.

    `max_size` bounds the pool, `min_size` is left to it. `kwargs` are parameters of connections: those of
    libpq go into the connection string, and `prepare_threshold` None means `prepare=False`; `autocommit` and
    `row_factory` are the store's own.

    Raises:
        ConfigurationError: another setting, which would be lost in silence.
    """
    config = dict(pool_config or {})
    config.pop("min_size", None)
    options = {"max_size": most} if (most := config.pop("max_size", None)) else {}
    parameters = dict(config.pop("kwargs", None) or {})
    if config:
        raise ConfigurationError(f"pool_config takes min_size, max_size and kwargs, not {', '.join(config)}.")
    for name in ("autocommit", "row_factory"):
        parameters.pop(name, None)
    if parameters.pop("prepare_threshold", 0) is None:
        options["prepare"] = False
    try:
        return make_conninfo(conninfo, **parameters), options
    except psycopg.ProgrammingError as error:
        raise ConfigurationError("pool_config has kwargs that libpq does not know.") from error


def address(conninfo: str) -> str:
    """Where the database is said to be, without a password."""
    given = conninfo_to_dict(conninfo)
    names = [name for name in ("service", "host", "port", "dbname") if name in given]
    return " ".join(f"{name}={given[name]}" for name in names)


class Store(Protocol):
    """What `forked` needs of a store."""

    def _leave(self) -> object: ...


_stores: WeakSet[Store] = WeakSet()
_inherited: list[object] = []


def leaves_when_forked(store: Store) -> None:
    """Let a child process of this one make connections of its own: two that speak on one are both lost."""
    _stores.add(store)


def _forked() -> None:
    _inherited.extend([store._leave() for store in list(_stores)])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


_JSON = json.JSONDecoder()


def json_of(data: str | bytes) -> Any:
    """What Postgres sends as JSON. `json.loads` would first guess the encoding, which takes as long again."""
    return _JSON.raw_decode(data if isinstance(data, str) else data.decode())[0]


@contextmanager
def stoppable() -> Iterator[None]:
    """Around what a pool's worker does: let a cancelled one end, in the async store.

    Psycopg's worker takes a cancellation while it connects for a failure, and waits for its next task; a
    program that closes no store would then never come out of `asyncio.run`.
    """
    try:
        yield
    except asyncio.CancelledError:
        _cancel_until_done(asyncio.current_task())
        raise


def _cancel_until_done(task: asyncio.Task[Any] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
        asyncio.get_running_loop().call_later(0.01, _cancel_until_done, task)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of psycopg and its pool as errors of this package."""
    try:
        with _plainly():
            yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(f"No database connection became free: {error}") from error
    except PoolClosed as error:
        raise StoreError("The store is not open: use it inside `with` or `async with`.") from error
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidSchemaName,
    ) as error:
        raise SchemaOutOfDate(f"{error} - call setup(), or run `memgraph-plugin migrate`.") from error
    except psycopg.errors.InsufficientPrivilege as error:
        if "row-level security" in str(error):
            raise NamespaceDenied(f"This role may not write to this namespace: {error}") from error
        raise StoreError(
            f"Postgres: {error} - run `memgraph-plugin migrate --role NAME` as the tables' owner."
        ) from error
    except (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement) as error:
        raise StoreError(f"Postgres: {error} - behind PgBouncer, give the store prepare=False.") from error
    except psycopg.errors.DataException as error:
        if "dimensions" in str(error):
            raise EmbeddingMismatch(str(error)) from error
        raise StoreError(f"Postgres refused a value: {error}") from error
    except psycopg.Error as error:
        if error.sqlstate == _OTHER_MODEL:
            raise EmbeddingMismatch(f"{error.diag.message_primary} {MENDING}") from error
        gone = isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08").startswith(_GONE)
        raise (DatabaseUnavailable if gone else StoreError)(f"Postgres: {error}") from error


@contextmanager
def _plainly() -> Iterator[None]:
    """Leave a database's error its message alone: the lines that follow it (DETAIL, CONTEXT) quote rows and
    parameters, and a traceback prints them too, as those of our error's cause."""
    try:
        yield
    except psycopg.Error as error:
        if error.diag.message_primary:
            error.args = (error.diag.message_primary,)
        raise
