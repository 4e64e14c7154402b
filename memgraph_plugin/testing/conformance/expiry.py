"""Times to live; part of `StoreConformance`. Tested by waiting for seconds."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from langgraph.store.base import BaseStore, PutOp

ADA = ("acme", "ada")
SHORT = 0.2 / 60
"""Minutes."""


async def _done(result: Any) -> Any:
    """What a method of a sync or of an async store returned."""
    return await result if inspect.isawaitable(result) else result


class ExpiryConformance:
    @pytest.fixture(autouse=True)
    def _expiring(self, request: pytest.FixtureRequest, store: BaseStore) -> None:
        inherited = request.function.__qualname__.startswith(ExpiryConformance.__name__)
        if inherited and not store.supports_ttl:
            pytest.skip("the store has no times to live")

    async def test_what_has_expired_is_not_read(self, store: BaseStore) -> None:
        await store.aput(ADA, "short", {"text": "soon gone"}, ttl=SHORT)
        await store.aput((*ADA, "below"), "short", {"text": "soon gone"}, ttl=SHORT)
        await store.aput(ADA, "long", {"text": "still here"}, ttl=10)
        await asyncio.sleep(0.3)
        assert await store.aget(ADA, "short") is None
        assert [item.key for item in await store.asearch(ADA)] == ["long"]
        assert await store.alist_namespaces() == [ADA]

    async def test_a_put_without_a_time_to_live_ends_it(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"n": 1}, ttl=SHORT)
        await store.aput(ADA, "k", {"n": 2})
        await asyncio.sleep(0.3)
        assert await store.aget(ADA, "k") is not None

    async def test_reading_lets_live_again_as_long(self, store: BaseStore) -> None:
        for key in ("got", "found", "left"):
            await store.aput((*ADA, key), key, {"text": key}, ttl=2 / 60)
        await asyncio.sleep(1.2)
        await store.aget((*ADA, "got"), "got")
        await store.asearch((*ADA, "found"))
        await store.aget((*ADA, "left"), "left", refresh_ttl=False)
        await store.asearch((*ADA, "left"), refresh_ttl=False)
        await asyncio.sleep(1.2)
        assert {item.key for item in await store.asearch(ADA, refresh_ttl=False)} == {"got", "found"}

    async def test_a_sweep_says_how_many_it_took(self, store: BaseStore) -> None:
        sweep = getattr(store, "sweep_ttl", None)
        if sweep is None:
            pytest.skip("the store does not sweep")
        await store.abatch([PutOp(ADA, str(n), {"n": n}, ttl=SHORT) for n in range(3)])
        await store.aput(ADA, "kept", {"n": 3})
        assert await _done(sweep()) == 0
        await asyncio.sleep(0.3)
        assert await _done(sweep()) == 3
        assert await _done(sweep()) == 0
        assert [item.key for item in await store.asearch(ADA)] == ["kept"]

    async def test_a_sweeper_sweeps_until_it_is_stopped(self, store: Any) -> None:
        if not hasattr(store, "start_ttl_sweeper"):
            pytest.skip("the store does not sweep")
        await store.aput(ADA, "k", {"n": 1}, ttl=SHORT)
        started = store.start_ttl_sweeper(0.1 / 60)
        if inspect.iscoroutine(started):  # and not the task that it gives, which would be waited for
            await started
        await asyncio.sleep(1)
        assert await _done(store.stop_ttl_sweeper(timeout=5)) is True
        assert await _done(store.sweep_ttl()) == 0
