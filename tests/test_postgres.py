"""The shipped contract over both Postgres stores, and what only a database can do wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing.embeddings import HashingEmbeddings
from memgraph_plugin.testing.store_contract import StoreContract


class TestAsyncPostgres(StoreContract):
    has_sync = False

    @pytest.fixture
    async def store(self, dsn: str) -> AsyncIterator[AsyncPostgresMemoryStore]:
        async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
            yield store


class TestPostgres(StoreContract):
    @pytest.fixture
    def store(self, dsn: str) -> Iterator[PostgresMemoryStore]:
        with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
            yield store
