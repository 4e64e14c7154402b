"""What `as_of` promises, and recall of the past; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.store.base import InvalidNamespaceError

from memgraph_plugin.errors import InvalidValue
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.testing.operations_contract import ADA, current, outcome
from memgraph_plugin.types import Delete, Insert, Operation, Update

MARCH = datetime(2020, 3, 1, tzinfo=UTC)
JUNE = datetime(2020, 6, 1, tzinfo=UTC)
SEPTEMBER = datetime(2020, 9, 1, tzinfo=UTC)
DAY = timedelta(days=1)


async def told(store: MemoryStore, *operations: Operation) -> datetime:
    """Apply, and give a moment between these operations and the next."""
    receipts = await store.aapply(ADA, operations)
    assert not receipts.rejected
    (batch,) = await store.alog(ADA, limit=1)
    assert batch.batch_id == receipts.batch_id
    await asyncio.sleep(0.002)
    return batch.recorded_at


async def texts(store: MemoryStore, **moment: Any) -> list[str]:
    return [memory.text for memory in await store.aas_of(ADA, **moment)]


class TimeContract:
    """as_of; recall with valid_at and known_at; valid_to."""

    async def test_what_supersedes_ends_what_was_before(self, store: MemoryStore) -> None:
        await told(store, Insert(key="home", text="Ada lives in Lisbon", valid_from=MARCH))
        await told(store, Update(key="home", text="Ada lives in Porto", mode="supersede", valid_from=JUNE))
        assert await texts(store) == ["Ada lives in Porto"]
        assert await texts(store, valid_at=JUNE) == ["Ada lives in Porto"]
        assert await texts(store, valid_at=MARCH - DAY) == []
        (memory,) = await store.aas_of(ADA, valid_at=JUNE - DAY)
        assert (memory.text, memory.valid_from, memory.valid_to) == ("Ada lives in Lisbon", MARCH, JUNE)
        assert (memory.namespace, memory.key, memory.version) == (ADA, "home", 1)
        first, second = await store.ahistory(ADA, "home")
        assert first.memory is not None
        assert (first.superseded_by, first.memory.valid_to) == (2, JUNE)
        assert second.memory is not None
        assert (second.superseded_by, second.memory.valid_to) == (None, None)

    @pytest.mark.parametrize("mode", ["correct", "refine"])
    async def test_what_is_corrected_was_never_so_but_was_believed(
        self, store: MemoryStore, mode: Any
    ) -> None:
        before = await told(store, Insert(key="home", text="Ada lives in Lisbon", valid_from=MARCH))
        await told(store, Update(key="home", text="Ada lives in Porto", mode=mode))
        assert await texts(store, valid_at=JUNE) == ["Ada lives in Porto"]
        assert await texts(store, valid_at=JUNE, known_at=before) == ["Ada lives in Lisbon"]
        assert await texts(store, known_at=before) == ["Ada lives in Lisbon"]
        first, _ = await store.ahistory(ADA, "home")
        assert first.memory is not None
        assert (first.superseded_by, first.memory.valid_to) == (None, None)

    async def test_a_corrected_beginning_moves_the_end_of_what_was_before(self, store: MemoryStore) -> None:
        await told(store, Insert(key="home", text="in Lisbon", valid_from=MARCH))
        await told(store, Update(key="home", text="in Porto", mode="supersede", valid_from=SEPTEMBER))
        await told(store, Update(key="home", text="in Porto", valid_from=JUNE))
        assert await texts(store, valid_at=JUNE) == ["in Porto"]
        assert await texts(store, valid_at=JUNE - DAY) == ["in Lisbon"]
        first, second, third = await store.ahistory(ADA, "home")
        assert first.memory is not None
        assert (first.superseded_by, first.memory.valid_to) == (3, JUNE)
        assert (second.superseded_by, third.superseded_by) == (None, None)

    async def test_what_is_deleted_is_nothing_by_what_is_known_since(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="in Lisbon", valid_from=MARCH))
        before = await told(store, Update(key="k", text="in Porto", mode="supersede", valid_from=JUNE))
        await told(store, Delete(key="k"))
        assert await texts(store) == await texts(store, valid_at=MARCH) == []
        assert await texts(store, valid_at=MARCH, known_at=before) == ["in Lisbon"]
        assert await texts(store, known_at=before) == ["in Porto"]
        await told(store, Insert(key="k", text="in Faro", valid_from=SEPTEMBER))
        assert await texts(store, valid_at=MARCH) == []
        assert await texts(store) == ["in Faro"]
        lines = await store.ahistory(ADA, "k")
        assert [line.superseded_by for line in lines] == [2, None, None, None]
        assert lines[3].memory is not None
        assert lines[3].memory.created_at == lines[3].recorded_at

    async def test_a_plan_is_recalled_and_is_not_yet_so(self, store: MemoryStore) -> None:
        moving = datetime.now(UTC) + 30 * DAY
        await told(store, Insert(key="home", text="in Lisbon", valid_from=MARCH))
        await told(store, Update(key="home", text="in Porto", mode="supersede", valid_from=moving))
        assert await texts(store) == ["in Lisbon"]
        assert await texts(store, valid_at=moving) == ["in Porto"]
        (hit,) = await store.arecall(ADA, "")
        assert (hit.memory.text, hit.memory.valid_from) == ("in Porto", moving)
        (hit,) = await store.arecall(ADA, "", valid_at=datetime.now(UTC))
        assert (hit.memory.text, hit.memory.valid_to) == ("in Lisbon", moving)

    async def test_what_has_ended_is_passed_over_and_kept(self, store: MemoryStore) -> None:
        await store.aput(ADA, "put", {"text": "a put in Paris"})
        await told(
            store, Insert(key="k", text="was in Paris", valid_from=MARCH, valid_to=JUNE, value={"a": 1})
        )
        await told(
            store, Insert(key="l", text="is in Paris", valid_from=MARCH, valid_to=datetime.now(UTC) + DAY)
        )
        for query in ("Paris", ""):
            assert {hit.memory.key for hit in await store.arecall(ADA, query)} == {"put", "l"}
            assert {item.key for item in await store.asearch(ADA, query=query or None)} == {"put", "l"}
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {"a": 1}
        assert await texts(store, valid_at=JUNE - DAY) == ["is in Paris", "was in Paris"]
        assert await texts(store, valid_at=JUNE) == ["is in Paris"]
        assert outcome(await store.aapply(ADA, [Insert(key="k", text="x")])) == [("rejected", "key_exists")]
        await told(store, Update(key="k", text="in Paris again", mode="supersede"))
        memory = await current(store, "k")
        assert memory is not None
        assert memory.valid_to is None
        assert [line.superseded_by for line in await store.ahistory(ADA, "k")] == [2, None]
        assert [m.valid_to for m in await store.aas_of(ADA, valid_at=MARCH, kinds=["semantic"])][1:] == [JUNE]

    async def test_what_is_put_over_something_ended_can_be_found(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="was in Paris", valid_from=MARCH, valid_to=JUNE))
        await store.aput(ADA, "k", {"text": "in Paris"})
        assert [item.key for item in await store.asearch(ADA, query="Paris")] == ["k"]

    async def test_what_had_ended_when_it_was_told_was_so_before(self, store: MemoryStore) -> None:
        await told(store, Insert(key="a", text="was in Paris", valid_to=JUNE))
        await told(store, Insert(key="b", text="likes tea"))
        assert await texts(store, valid_at=MARCH) == ["was in Paris"]
        assert await texts(store) == ["likes tea"]

    async def test_an_end_stays_in_corrections_and_may_be_moved(self, store: MemoryStore) -> None:
        tomorrow, later = datetime.now(UTC) + DAY, datetime.now(UTC) + 2 * DAY
        await told(store, Insert(key="k", text="in Pariss", valid_to=tomorrow))
        await told(store, Update(key="k", text="in Paris", mode="refine"))
        memory = await current(store, "k")
        assert memory is not None
        assert memory.valid_to == tomorrow
        await told(store, Update(key="k", text="in Paris", valid_to=later))
        memory = await current(store, "k")
        assert memory is not None
        assert memory.valid_to == later

    async def test_what_would_end_before_it_begins_is_rejected(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="x", valid_from=JUNE, valid_to=SEPTEMBER))
        receipts = await store.aapply(
            ADA,
            [
                Insert(key="a", text="x", valid_from=JUNE, valid_to=MARCH),
                Insert(key="b", text="x", valid_from=JUNE, valid_to=JUNE),
                Update(key="k", text="y", valid_to=MARCH),
                Insert(key="c", text="fine"),
            ],
        )
        assert outcome(receipts) == [("rejected", "invalid_interval")] * 3 + [("applied", None)]
        receipts = await store.aapply(ADA, [Update(key="k", text="y", mode="supersede", valid_to=JUNE)])
        assert outcome(receipts) == [("rejected", "invalid_interval")]
        receipts = await store.aapply(ADA, [Update(key="k", text="y", valid_from=SEPTEMBER)])
        assert outcome(receipts) == [("rejected", "invalid_interval")]

    @pytest.mark.parametrize(
        "bad",
        [datetime(2020, 1, 1), datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), "2020"],
        ids=str,
    )
    async def test_times_need_a_zone_and_a_place_in_the_calendar(self, store: MemoryStore, bad: Any) -> None:
        calls: list[Any] = [
            store.aapply(ADA, [Insert(text="x", valid_to=bad)]),
            store.aapply(ADA, [Update(key="k", text="x", valid_to=bad)]),
            store.aas_of(ADA, valid_at=bad),
            store.aas_of(ADA, known_at=bad),
            store.arecall(ADA, "x", valid_at=bad),
            store.arecall(ADA, "", known_at=bad),
        ]
        for call in calls:
            with pytest.raises(InvalidValue, match=r"zone|datetime|year"):
                await call

    async def test_as_of_and_undo_need_a_namespace_and_good_arguments(self, store: MemoryStore) -> None:
        batch = str(uuid.uuid4())
        for call in (store.aas_of(()), store.alog(("a.b",)), store.aundo((), batch)):
            with pytest.raises(InvalidNamespaceError):
                await call
        for wrong in ({"kinds": "turn"}, {"kinds": ["nul\0"]}):
            with pytest.raises(InvalidValue):
                await store.aas_of(ADA, **wrong)
        with pytest.raises(ValueError, match="nknown operator"):
            await store.aas_of(ADA, filter={"a": {"$no": 1}})
        with pytest.raises(InvalidValue):
            await store.aundo(ADA, batch, actor="nul\0")

    async def test_knowledge_to_come_is_what_is_known_now(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="x", expires_at=datetime.now(UTC) + DAY))
        assert await texts(store, known_at=datetime.now(UTC) + 2 * DAY) == ["x"]

    async def test_what_has_expired_was_known_before(self, store: MemoryStore) -> None:
        expiring = await store.aapply(
            ADA, [Insert(key="k", text="x", expires_at=datetime.now(UTC) + timedelta(seconds=0.3))]
        )
        ((known, _),) = [(line.recorded_at, line) for line in await store.ahistory(ADA, "k")]
        assert known is not None
        assert await texts(store) == ["x"]
        await asyncio.sleep(0.35)
        assert await texts(store) == []
        assert await texts(store, known_at=known) == ["x"]
        assert outcome(await store.aundo(ADA, expiring.batch_id)) == [("rejected", "not_found")]

    async def test_as_of_reads_this_namespace_these_kinds_and_what_fits(self, store: MemoryStore) -> None:
        for space in (("acme",), (*ADA, "work"), ("acme", "adam")):
            await store.aapply(space, [Insert(text="not hers")])
        await told(
            store,
            Insert(key="s", text="tea", kind="semantic", value={"n": 1}),
            Insert(key="t", text="mate", kind="turn", value={"n": 2}),
        )
        assert [memory.key for memory in await store.aas_of(ADA)] == ["s", "t"]
        assert [memory.key for memory in await store.aas_of(ADA, kinds=["turn"])] == ["t"]
        assert [memory.key for memory in await store.aas_of(ADA, filter={"n": {"$lt": 2}})] == ["s"]
        assert [hit.memory for hit in await store.arecall(ADA, "", valid_at=datetime.now(UTC) + DAY)] == (
            await store.aas_of(ADA)
        )

    async def test_recall_of_the_past_ranks_what_was_so_then(self, store: MemoryStore) -> None:
        await told(
            store,
            Insert(key="pet", text="Ada owns a borzoi", valid_from=MARCH),
            *[Insert(key=f"{n}", text=f"paints fence {n}", valid_from=MARCH) for n in range(5)],
        )
        before = await told(store, Insert(key="soon", text="Ada wants a borzoi", valid_from=SEPTEMBER))
        await told(store, Update(key="pet", text="Ada owns a parrot", mode="supersede", valid_from=JUNE))
        await told(store, Delete(key="soon"))
        hits = await store.arecall(ADA, "borzoi", k=2, valid_at=MARCH)
        assert hits[0].memory.key == "pet"
        assert hits[0].memory.valid_to == JUNE
        assert hits[0].bm25 is not None
        assert hits[0].cosine == pytest.approx(
            next(h.cosine for h in await store.arecall(ADA, "borzoi", valid_at=MARCH, known_at=before)),
            abs=1e-3,
        )
        known = await store.arecall(ADA, "borzoi", known_at=before, kinds=["semantic"])
        assert {hit.memory.key for hit in known[:2]} == {"pet", "soon"}
        assert not any(hit.bm25 for hit in await store.arecall(ADA, "borzoi", valid_at=SEPTEMBER))
        assert await store.arecall(ADA, "borzoi", valid_at=MARCH - DAY) == []
        assert await store.arecall(ADA, "borzoi", valid_at=MARCH, token_budget=0) == []
        assert len(await store.arecall(ADA, "borzoi", valid_at=MARCH, k=3)) == 3

    async def test_recall_of_now_is_recall(self, store: MemoryStore) -> None:
        await told(
            store,
            *[
                Insert(key=f"{n:02}", text=f"tea number {n} of leaf {n % 3}", session="s", position=n)
                for n in range(12)
            ],
        )
        await told(store, *[Update(key=f"{n:02}", text=f"tea leaf {n}") for n in range(4)])
        today = await store.arecall(ADA, "leaf 2 tea", k=12)
        then = await store.arecall(ADA, "leaf 2 tea", k=12, valid_at=datetime.now(UTC) + DAY)
        assert {hit.memory.key: hit.memory for hit in then} == {hit.memory.key: hit.memory for hit in today}
        scores = {hit.memory.key: hit.score for hit in today}
        for hit in then:
            assert hit.score == pytest.approx(scores[hit.memory.key], abs=0.02)
