"""LangGraph's own stores under our conformance suite; ours pass it whole, as part of `StoreContract`.

What is known to fail is in `conformance_table.DIVERGENCES`, strictly: what fails no more fails here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres import AsyncPostgresStore, PostgresStore
from psycopg import conninfo

from memgraph_plugin.testing import StoreConformance
from memgraph_plugin.testing.conformance import INDEX, TTL
from scripts.conformance_table import DIVERGENCES, DOCUMENT, document, expected


@pytest.fixture(scope="module")
def langgraph_dsn(postgres: str) -> Iterator[str]:
    """A database with LangGraph's tables in it, for all tests of its stores: one after the other."""
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("CREATE DATABASE langgraph_conformance")
    dsn = conninfo.make_conninfo(postgres, dbname="langgraph_conformance")
    with PostgresStore.from_conn_string(dsn, index=INDEX) as store:
        store.setup()
    yield dsn
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("DROP DATABASE langgraph_conformance WITH (FORCE)")


@pytest.fixture
def emptied(langgraph_dsn: str) -> str:
    with psycopg.connect(langgraph_dsn, autocommit=True) as conn:
        conn.execute("TRUNCATE store, store_vectors")
    return langgraph_dsn


class Theirs(StoreConformance):
    @pytest.fixture(autouse=True)
    def _known(self, request: pytest.FixtureRequest) -> None:
        reason = DIVERGENCES.get(request.node.name, {}).get(type(self).__name__.removeprefix("Test"))
        if reason:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))


class TestInMemoryStore(Theirs):
    @pytest.fixture
    def store(self) -> InMemoryStore:
        return InMemoryStore(index=INDEX)


class TestPostgresStore(Theirs):
    @pytest.fixture
    def store(self, emptied: str) -> Iterator[PostgresStore]:
        with PostgresStore.from_conn_string(emptied, index=INDEX, ttl=TTL) as store:
            yield store
            store.stop_ttl_sweeper()


class TestAsyncPostgresStore(Theirs):
    @pytest.fixture
    async def store(self, emptied: str) -> AsyncIterator[AsyncPostgresStore]:
        async with AsyncPostgresStore.from_conn_string(emptied, index=INDEX, ttl=TTL) as store:
            yield store
            await store.stop_ttl_sweeper()


def test_the_document_says_what_these_tests_say() -> None:
    assert DOCUMENT.read_text("utf-8") == document(expected()), "run scripts/conformance_table.py"
