"""Our store for LangGraph's server (`langgraph dev`): what langgraph.json names under "store"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from memgraph_plugin.settings import Settings
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.open import aopen_store


@asynccontextmanager
async def generate_store() -> AsyncIterator[MemoryStore]:
    """The store of the settings (MEMGRAPH_PLUGIN_DSN, or a private Postgres), open while the server runs.

    It lets go of what has expired by itself: LangGraph's server sweeps no store but its own.

    Raises:
        StoreError: it cannot be opened.
    """
    async with aopen_store(Settings()) as store:
        await store.start_ttl_sweeper()
        yield store
