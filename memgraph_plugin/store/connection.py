"""The seam to psycopg: its errors become ours here, once. No password is ever part of a message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import PoolClosed, PoolTimeout

from memgraph_plugin.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    EmbeddingMismatch,
    SchemaOutOfDate,
    StoreError,
)

C = TypeVar("C")

CONNECT_TIMEOUT = 5
"""Seconds that a host has to answer, where the connection string says nothing else."""

RETRIED = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
)
"""What another writer can cause: the transaction is run again."""


_GONE = ("08", "080", "280", "28P", "3D0", "533", "57P")
"""SQLSTATEs that begin like this mean that there is no connection; others, that a statement failed."""


def checked_conninfo(conninfo: str) -> str:
    """The connection string, with an end to waiting for a host that does not answer.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        given = conninfo_to_dict(conninfo)
    except (psycopg.Error, AttributeError, TypeError):
        # Not the cause's message: it quotes what it did not understand, which may be a password.
        raise ConfigurationError(
            "Not a Postgres connection string; one is postgresql://user@host/name or host=... dbname=..."
        ) from None
    return make_conninfo(conninfo, **{"connect_timeout": CONNECT_TIMEOUT, **given})


def cancellable(configure: Callable[[C], Awaitable[None]]) -> Callable[[C], Awaitable[None]]:
    """Let the cancellation of a pool's worker through, which psycopg can turn into an error of its own.

    The worker would try again and never end, and with it `asyncio.run` of a program that closes no store.
    """

    async def configured(conn: C) -> None:
        try:
            await configure(conn)
        except Exception:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise

    return configured


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of psycopg and its pool as errors of this package."""
    try:
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
    except psycopg.errors.DataException as error:
        if "dimensions" in str(error):
            raise EmbeddingMismatch(str(error)) from error
        raise StoreError(f"Postgres refused a value: {error}") from error
    except psycopg.Error as error:
        gone = isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08")[:3] in _GONE
        raise (DatabaseUnavailable if gone else StoreError)(f"Postgres: {error}") from error
