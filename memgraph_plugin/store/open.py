"""A store as the settings say: on their database, or on a private one that is started here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langchain_core.embeddings import Embeddings
from langgraph.store.base import TTLConfig

from memgraph_plugin.models.embeddings import load_embeddings
from memgraph_plugin.settings import Settings
from memgraph_plugin.store.kv_files import KVFiles
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.store.sealing import AesGcmSealer, Sealer


def database(settings: Settings) -> str:
    """The connection string of the configured database, else of the private Postgres, which is started."""
    if settings.dsn is not None:
        return settings.dsn.get_secret_value()
    from memgraph_plugin.store.embedded import EmbeddedPostgres

    return EmbeddedPostgres(settings.data_dir).ensure()


@contextmanager
def open_store(settings: Settings) -> Iterator[PostgresMemoryStore]:
    """An open store with its tables in place; closed at the end."""
    with PostgresMemoryStore(database(settings), **_options(settings)) as store:
        store.setup()
        yield store


@asynccontextmanager
async def aopen_store(settings: Settings) -> AsyncIterator[AsyncPostgresMemoryStore]:
    """Async twin of `open_store`."""
    conninfo = await asyncio.to_thread(database, settings)
    async with AsyncPostgresMemoryStore(conninfo, **_options(settings)) as store:
        await store.setup()
        yield store


def _options(settings: Settings) -> dict[str, Any]:
    ttl: TTLConfig = {
        "default_ttl": settings.default_ttl,
        "sweep_interval_minutes": settings.sweep_interval_minutes,  # type: ignore[typeddict-item] # fractions
    }
    return {
        "embeddings": embeddings(settings),
        "ttl": ttl,
        "db_schema": settings.db_schema,
        "language": settings.language,
        "sealer": sealer(settings),
        "kv_files": None if settings.kv_dir is None else KVFiles(settings.kv_dir),
    }


def embeddings(settings: Settings) -> Embeddings | None:
    """The configured embedding model; None for "none"."""
    if settings.embeddings == "none":
        return None
    return load_embeddings(settings.embeddings, base_url=settings.base_url)


def sealer(settings: Settings) -> Sealer | None:
    """What seals memories under the configured keys; None where there are none."""
    keys = settings.sealing_keys
    return None if keys is None else AesGcmSealer.parse(keys.get_secret_value())
