"""The seam to psycopg: its errors become ours here, once. No password is ever part of a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from memgraph_plugin.errors import DatabaseUnavailable, EmbeddingMismatch, SchemaOutOfDate, StoreError

RETRIED = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,
)
"""What another writer can cause: the transaction is run again."""


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
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"Postgres: {error}") from error
    except psycopg.Error as error:
        raise StoreError(f"Postgres: {error}") from error
