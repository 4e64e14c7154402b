"""Programs written for LangGraph's Postgres stores, run on ours: only the import differs."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from typing import Any, TypedDict

import psycopg
import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp
from langgraph.store.postgres import AsyncPostgresStore, PostgresStore
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings

ADA = ("users", "ada", "memories")
SCORES: dict[type, list[float]] = {}
"""What the last run of `program` saw."""


class State(TypedDict):
    said: str
    recalled: list[str]


async def remember(state: State, runtime: Runtime) -> dict[str, Any]:
    assert runtime.store is not None
    found = await runtime.store.asearch(ADA, query=state["said"], limit=2)
    await runtime.store.aput(ADA, f"said-{len(state['said'])}", {"text": state["said"]})
    return {"recalled": [item.value["text"] for item in found]}


async def program(store_class: Any, conn_string: str) -> list[Any]:
    """What somebody wrote for AsyncPostgresStore."""
    said: list[Any] = []
    async with store_class.from_conn_string(
        conn_string,
        pool_config={"min_size": 1, "max_size": 5},
        index={"dims": 256, "embed": HashingEmbeddings(), "fields": ["text"]},
        ttl={"default_ttl": 60, "refresh_on_read": True, "sweep_interval_minutes": 10},
    ) as store:
        await store.setup()
        sweeper = await store.start_ttl_sweeper()
        assert isinstance(sweeper, asyncio.Task)
        await store.aput(ADA, "tea", {"text": "Ada drinks green tea", "n": 2})
        await store.aput(ADA, "dog", {"text": "Ada owns a borzoi", "n": 7}, ttl=None)
        await store.aput(("users", "bob"), "tea", {"text": "Bob hates tea"}, index=False)
        item = await store.aget(ADA, "tea")
        said.append((item.namespace, item.key, item.value))
        found = await store.asearch(("users",), query="green tea", limit=1)
        said.append([(each.key, each.value["n"]) for each in found])
        SCORES[store_class] = [each.score for each in found]
        said.append([each.key for each in await store.asearch(ADA, filter={"n": 7})])
        said.append(await store.alist_namespaces(prefix=("users",), max_depth=2))
        got, put, hits, spaces = await store.abatch(
            [
                GetOp(ADA, "dog"),
                PutOp(ADA, "sea", {"text": "Ada sails at dawn"}),
                SearchOp(("users", "bob")),
                ListNamespacesOp(),
            ]
        )
        said.append((got.key, put, [each.key for each in hits], spaces))

        graph = StateGraph(State)
        graph.add_node("remember", remember)
        graph.add_edge(START, "remember")
        graph.add_edge("remember", END)
        app = graph.compile(store=store)
        said.append(await app.ainvoke({"said": "who owns a borzoi?", "recalled": []}))

        await store.adelete(ADA, "tea")
        said.append(await store.aget(ADA, "tea"))
        said.append(await store.sweep_ttl())
        assert await store.stop_ttl_sweeper(timeout=5)
        # From another thread, as sync tools do it.
        said.append((await asyncio.to_thread(store.get, ADA, "dog")).value)
    return said


def sync_program(store_class: Any, conn_string: str) -> list[Any]:
    """What somebody wrote for PostgresStore."""
    said: list[Any] = []
    with store_class.from_conn_string(
        conn_string, index={"dims": 256, "embed": HashingEmbeddings()}, ttl={"sweep_interval_minutes": 10}
    ) as store:
        store.setup()
        sweeper = store.start_ttl_sweeper()
        assert isinstance(sweeper, Future)
        store.put(ADA, "tea", {"text": "Ada drinks green tea"}, ttl=0.3 / 60)
        store.put(ADA, "dog", {"text": "Ada owns a borzoi"})
        said.append([each.key for each in store.search(ADA, query="borzoi", limit=1)])
        said.append(store.get(ADA, "dog").value)
        time.sleep(0.4)
        said.append(store.sweep_ttl())
        said.append([each.key for each in store.search(("users",))])
        store.delete(ADA, "dog")
        said.append(store.list_namespaces())
        assert store.stop_ttl_sweeper(timeout=5)
    return said


async def test_a_program_for_the_async_store_runs_unchanged(empty_dsn: str) -> None:
    theirs = await program(AsyncPostgresStore, empty_dsn)
    ours = await program(AsyncPostgresMemoryStore, empty_dsn)
    assert ours == theirs


async def test_scores_are_the_same_cosines(empty_dsn: str) -> None:
    for store_class in (AsyncPostgresStore, AsyncPostgresMemoryStore):
        await program(store_class, empty_dsn)
    assert SCORES[AsyncPostgresMemoryStore] == pytest.approx(SCORES[AsyncPostgresStore], abs=1e-3)


def test_a_program_for_the_sync_store_runs_unchanged(empty_dsn: str) -> None:
    assert sync_program(PostgresMemoryStore, empty_dsn) == sync_program(PostgresStore, empty_dsn)


async def test_the_async_store_s_pipeline_is_accepted(dsn: str) -> None:
    async with AsyncPostgresMemoryStore.from_conn_string(dsn, pipeline=True) as store:
        await store.aput(ADA, "k", {"n": 1})
        assert await store.aget(ADA, "k") is not None


async def test_settings_of_the_pool_s_connections_reach_them(dsn: str) -> None:
    config: Any = {
        "min_size": 1,
        "max_size": 3,
        "kwargs": {"application_name": "mine", "autocommit": True, "prepare_threshold": None},
    }
    async with AsyncPostgresMemoryStore.from_conn_string(dsn, pool_config=config) as store:
        await store.aput(ADA, "k", {"n": 1})
        with psycopg.connect(dsn) as conn:
            assert conn.execute("SELECT FROM pg_stat_activity WHERE application_name = 'mine'").fetchall()
    for wrong in ({"timeout": 3}, {"kwargs": {"no_such_setting": 1}}):
        with pytest.raises(ConfigurationError, match="pool_config"):
            async with AsyncPostgresMemoryStore.from_conn_string(dsn, pool_config=wrong):  # type: ignore[arg-type]
                pass


def test_another_distance_than_the_cosine_is_refused(dsn: str) -> None:
    index: Any = {"dims": 256, "embed": HashingEmbeddings(), "distance_type": "l2"}
    with pytest.raises(ConfigurationError, match="cosine"):
        PostgresMemoryStore(dsn, index=index)


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_connection_in_place_of_a_connection_string_is_refused_with_what_to_do(
    dsn: str, pooled: bool
) -> None:
    if pooled:
        connections: tuple[Any, Any] = (ConnectionPool(dsn, open=False), AsyncConnectionPool(dsn, open=False))
    else:
        connections = (psycopg.connect(dsn), await psycopg.AsyncConnection.connect(dsn))
    for store, given in zip((PostgresMemoryStore, AsyncPostgresMemoryStore), connections, strict=True):
        with pytest.raises(ConfigurationError, match="connection string"):
            store(given)
    if not pooled:
        connections[0].close()
        await connections[1].close()
