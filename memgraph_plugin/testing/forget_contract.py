"""What `forget` promises: nothing left, nothing else touched, and a receipt; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import pytest
from langgraph.store.base import InvalidNamespaceError

from memgraph_plugin.errors import BatchNotFound, InvalidValue, MemoryNotFound
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Delete, Erasure, Insert, Update

ANA = ("people", "ana")


class ForgetContract:
    """forget and erasures."""

    async def test_a_namespace_is_forgotten_with_all_below_it_and_with_nothing_beside_it(
        self, store: MemoryStore
    ) -> None:
        beside = [("people", "anabel"), ("people", "ana-maria"), ("people", "an"), ("people",), ("ana",)]
        for namespace in [ANA, (*ANA, "work"), (*ANA, "work", "notes"), *beside]:
            await store.aapply(namespace, [Insert(key="k", text="likes tea")], idempotency_key="first")
        await store.aapply(ANA, [Update(key="k", text="likes milk", reason="said so"), Delete(key="none")])
        erasure = await store.aforget(ANA, actor="support")
        counts = {name: rows for name, rows in erasure.counts.items() if rows}
        assert counts == {"memory": 3, "memory_version": 4, "operation_batch": 4}
        assert await store.alist_namespaces() == sorted(beside)
        for namespace in [ANA, (*ANA, "work"), (*ANA, "work", "notes")]:
            assert await store.arecall(namespace, "likes") == []
            with pytest.raises(MemoryNotFound):
                await store.ahistory(namespace, "k")
        assert [len(await store.ahistory(namespace, "k")) for namespace in beside] == [1] * len(beside)

    async def test_the_receipt_proves_whose_memory_was_erased_and_does_not_say_it(
        self, store: MemoryStore
    ) -> None:
        await store.aapply(ANA, [Insert(text="likes tea")])
        erasure = await store.aforget(ANA, actor="support")
        assert erasure.of(ANA)
        assert erasure.of((*ANA, "work")), "what is below it went with it"
        assert not erasure.of(("people",))
        assert not erasure.of(("people", "anabel"))
        assert "ana" not in repr(erasure)
        assert (await store.aerasures()) == [erasure]
        assert erasure.actor == "support"

    async def test_what_is_forgotten_twice_has_two_receipts_that_do_not_look_alike(
        self, store: MemoryStore
    ) -> None:
        first, second = await store.aforget(ANA), await store.aforget(ANA)
        assert set(first.counts.values()) == {0}
        assert first.digest != second.digest
        assert [erasure.id for erasure in await store.aerasures()] == [first.id, second.id]

    async def test_a_batch_sent_again_after_forgetting_is_a_new_one(self, store: MemoryStore) -> None:
        tea = [Insert(key="k", text="likes tea")]
        await store.aapply(ANA, tea, idempotency_key="turn-1")
        await store.aforget(ANA)
        assert not (await store.aapply(ANA, tea, idempotency_key="turn-1")).replayed
        (line,) = await store.ahistory(ANA, "k")
        assert line.version == 1

    async def test_what_was_forgotten_cannot_be_undone(self, store: MemoryStore) -> None:
        tea = await store.aapply(ANA, [Insert(key="k", text="likes tea")])
        gone = await store.aapply(ANA, [Delete(key="k")])
        await store.aforget(ANA)
        assert await store.alog(ANA) == []
        for batch in (tea, gone):
            with pytest.raises(BatchNotFound):
                await store.aundo(ANA, batch.batch_id)

    async def test_everything_cannot_be_forgotten_by_mistake(self, store: MemoryStore) -> None:
        for namespace in [(), ("",), ("people.ana",), "people"]:
            with pytest.raises(InvalidNamespaceError):
                await store.aforget(namespace)  # type: ignore[arg-type]
        for actor in ("ana", "people.ana"):
            with pytest.raises(InvalidValue, match="actor"):
                await store.aforget(ANA, actor=actor)
        assert await store.aerasures() == []

    async def test_a_receipt_can_be_kept_elsewhere(self, store: MemoryStore) -> None:
        kept = await store.aforget(ANA)
        copied = Erasure(
            id=kept.id, salt=kept.salt, digest=kept.digest, counts={}, erased_at=kept.erased_at, actor=""
        )
        assert copied.of(ANA)
