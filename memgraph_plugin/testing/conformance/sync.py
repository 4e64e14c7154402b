"""The sync methods, from threads; part of `StoreConformance`."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio

import pytest
from langgraph.store.base import BaseStore, GetOp, PutOp

ADA = ("acme", "ada")


class SyncConformance:
    sync = True

    @pytest.fixture(autouse=True)
    def _sync(self, request: pytest.FixtureRequest) -> None:
        if not self.sync and request.function.__qualname__.startswith(SyncConformance.__name__):
            pytest.skip("the store is async")

    async def test_sync_methods_do_what_the_async_ones_do(self, store: BaseStore) -> None:
        await store.aput(ADA, "async", {"n": 1})

        def work() -> None:
            assert store.get(ADA, "async") is not None
            store.put(ADA, "sync", {"n": 2})
            assert {item.key for item in store.search(ADA)} == {"async", "sync"}
            assert [item.key for item in store.search(ADA, filter={"n": 2})] == ["sync"]
            assert store.list_namespaces() == [ADA]
            store.delete(ADA, "async")
            assert store.batch([GetOp(ADA, "async"), PutOp(ADA, "batch", {"n": 3})]) == [None, None]

        await asyncio.to_thread(work)
        assert {item.key for item in await store.asearch(ADA)} == {"sync", "batch"}

    async def test_threads_may_share_a_store(self, store: BaseStore) -> None:
        def work(n: int) -> None:
            for i in range(5):
                store.put(ADA, f"{n}-{i}", {"n": n})
                assert store.get(ADA, f"{n}-{i}") is not None

        await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(4)))
        assert len(await store.asearch(ADA, limit=100)) == 20
