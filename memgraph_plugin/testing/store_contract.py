"""The contract of a memory store, as a pytest class: subclass it, give it a `store`, and run it on your own.

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            yield MyStore(embeddings=HashingEmbeddings(), ttl=TTL)

Each test gets an empty store with `HashingEmbeddings()` and `conformance.TTL`; pytest-asyncio runs in its
mode "auto".
"""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.testing.compressed_contract import CompressedContract
from memgraph_plugin.testing.forget_contract import ForgetContract
from memgraph_plugin.testing.langgraph_contract import LangGraphContract
from memgraph_plugin.testing.operations_contract import OperationsContract
from memgraph_plugin.testing.portability_contract import PortabilityContract
from memgraph_plugin.testing.quarantine_contract import QuarantineContract
from memgraph_plugin.testing.recall_contract import RecallContract
from memgraph_plugin.testing.time_contract import TimeContract
from memgraph_plugin.testing.undo_contract import UndoContract
from memgraph_plugin.types import Delete, Held, Insert, Update

ADA = ("acme", "ada")


class StoreContract(
    LangGraphContract,
    OperationsContract,
    RecallContract,
    TimeContract,
    UndoContract,
    ForgetContract,
    PortabilityContract,
    CompressedContract,
    QuarantineContract,
):
    """Everything that a `MemoryStore` promises. `has_sync` is False for a store with async methods alone."""

    has_sync = True

    async def test_sync_operations_do_what_the_async_ones_do(self, store: MemoryStore) -> None:
        if not self.has_sync:
            pytest.skip("the store is async")

        def work() -> None:
            store.put(ADA, "put", {"text": "likes tea"})
            receipts = store.apply(ADA, [Insert(key="k", text="owns a borzoi")], idempotency_key="turn-1")
            assert store.apply(ADA, [], idempotency_key="turn-1").receipts == receipts.receipts
            store.apply(ADA, [Update(key="k", text="owns two borzois")])
            assert store.recall(ADA, "borzoi")[0].memory.text == "owns two borzois"
            assert [line.version for line in store.history(ADA, "k")] == [1, 2]
            assert {memory.key for memory in store.as_of(ADA)} == {"k", "put"}
            store.undo(ADA, store.log(ADA, limit=1)[0].batch_id)
            store.apply(ADA, [], held=[Held(operation=Delete(key=key), code="c") for key in ("k", "put")])
            put, k = sorted(store.quarantined(ADA), key=lambda held: str(held.operation.key), reverse=True)
            assert store.discard(ADA, put.id)
            assert store.undo(ADA, store.release(ADA, k.id).batch_id).applied
            assert store.recall(ADA, "", valid_at=datetime.now(UTC))[0].memory.text == "owns a borzoi"
            assert store.search(ADA, query="tea")[0].key == "put"
            store.delete(ADA, "put")
            assert store.get(ADA, "put") is None
            assert store.list_namespaces() == [ADA]
            assert store.count(ADA) == 1
            kept = store.save_kv(ADA, "book", {"tail": [1]}, [b"one", b"two"])
            assert store.load_kv(ADA, "book") == kept
            assert store.list_kv(ADA) == [kept]
            assert list(store.kv_parts(ADA, "book", version=kept.version)) == [b"one", b"two"]
            assert store.delete_kv(ADA, "book")
            lines = list(store.export(ADA))
            assert store.import_(lines).skipped == len(lines) - 2
            assert store.forget(ADA).of(ADA)
            assert [erasure.of(ADA) for erasure in store.erasures()] == [True]
            assert store.import_(lines).memories == 1
            assert store.delete_namespace(ADA) == 1

        await asyncio.to_thread(work)

    async def test_threads_may_apply_and_recall(self, store: MemoryStore) -> None:
        if not self.has_sync:
            pytest.skip("the store is async")

        def work(n: int) -> None:
            for i in range(5):
                store.apply(ADA, [Insert(key=f"{n}-{i}", text=f"note {i} by {n}")])
                assert store.recall(ADA, f"note {i} by {n}")

        await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(4)))
        assert len(await store.arecall(ADA, "", k=100)) == 20
