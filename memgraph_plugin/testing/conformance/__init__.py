"""Does a store do what LangGraph's `BaseStore` promises? A pytest class for any of them: subclass it.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        async def store(self):
            async with MyStore(index=INDEX, ttl=TTL) as store:
                yield store

Each test gets an empty store. pytest-asyncio runs in its mode "auto". Say
`pytest.register_assert_rewrite("memgraph_plugin.testing.conformance")` in conftest.py for better messages.
"""

from __future__ import annotations

from typing import Any

from memgraph_plugin.testing.conformance.expiry import ExpiryConformance
from memgraph_plugin.testing.conformance.items import ItemsConformance
from memgraph_plugin.testing.conformance.namespaces import NamespacesConformance
from memgraph_plugin.testing.conformance.searching import SearchingConformance
from memgraph_plugin.testing.conformance.semantic import SemanticConformance
from memgraph_plugin.testing.conformance.sync import SyncConformance
from memgraph_plugin.testing.embeddings import HashingEmbeddings

INDEX: Any = {"dims": 256, "embed": HashingEmbeddings()}
"""The index configuration of a store whose semantic search is to be tested."""

TTL: Any = {"refresh_on_read": True, "omit_expired": True, "sweep_interval_minutes": 0.1 / 60}
"""The configuration of a store whose times to live are to be tested."""


class StoreConformance(
    ItemsConformance,
    SearchingConformance,
    NamespacesConformance,
    SemanticConformance,
    ExpiryConformance,
    SyncConformance,
):
    """What LangGraph asks of a store.

    `semantic` is False for a store without vectors, `sync` for one whose sync methods cannot be called from
    another thread. Times to live are tested where the store says `supports_ttl`.
    """
