"""What `log` and `undo` promise; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memgraph_plugin.errors import BatchNotFound
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.timeline import replay
from memgraph_plugin.testing.operations_contract import ADA, current, outcome
from memgraph_plugin.testing.time_contract import DAY, JUNE, MARCH, SEPTEMBER, texts, told
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Receipts, Update


def content(memory: Memory | None) -> dict[str, Any]:
    """All of a memory but what says that it is another version."""
    assert memory is not None
    names = set(Memory.__slots__) - {"version", "updated_at"}
    return {name: getattr(memory, name) for name in names}


class UndoContract:
    """log and undo."""

    async def test_the_log_says_who_did_what_newest_first(self, store: MemoryStore) -> None:
        first = await store.aapply(ADA, [Insert(key="k", text="one"), NoOp()], actor="ada", policy="rules")
        await store.aput(ADA, "put", {"text": "two"})
        await store.aapply(("acme", "bob"), [Insert(text="not hers")])
        put, apply = await store.alog(ADA)
        assert (apply.batch_id, apply.receipts) == (first.batch_id, first.receipts)
        assert (apply.actor, apply.policy) == ("ada", "rules")
        assert [receipt.key for receipt in put.applied] == ["put"]
        assert apply.recorded_at < put.recorded_at
        assert [batch.batch_id for batch in await store.alog(ADA, limit=1)] == [put.batch_id]
        assert await store.alog(ADA, limit=0) == await store.alog(("nobody",)) == []

    async def undone(self, store: MemoryStore, receipts: Receipts) -> Receipts:
        done = await store.aundo(ADA, receipts.batch_id, actor="ada")
        assert not done.rejected
        return done

    async def test_a_batch_is_taken_back_whole(self, store: MemoryStore) -> None:
        later = datetime.now(UTC) + DAY
        full = Insert(
            key="a",
            text="Ada lives in Lisbon",
            kind="episodic",
            value={"city": "Lisbon", "n": [1, None]},
            session="s1",
            position=3,
            importance=0.75,
            source="chat",
            language="simple",
            valid_from=MARCH,
            valid_to=later,
            expires_at=later,
        )
        await told(store, full, Insert(key="b", text="likes tea", value={"x": 1}))
        before = {key: content(await current(store, key)) for key in "ab"}
        batch = await store.aapply(
            ADA,
            [
                Update(key="a", text="Ada lives in Porto", mode="supersede", importance=0.1, value={"y": 2}),
                Delete(key="b", reason="asked to"),
                Insert(key="c", text="likes mate"),
                Insert(key="a", text="refused"),
            ],
        )
        undone = await self.undone(store, batch)
        assert [(r.operation, r.key) for r in undone.applied] == [
            ("update", "a"),
            ("insert", "b"),
            ("delete", "c"),
        ]
        assert {key: content(await current(store, key)) for key in "ab"} == before
        assert await current(store, "c") is None
        assert [hit.memory.key for hit in await store.arecall(ADA, "Lisbon", k=1)] == ["a"]
        assert (await store.arecall(ADA, "Lisbon", k=1))[0].cosine is not None
        lines = [(await store.ahistory(ADA, key))[-1] for key in "abc"]
        assert {line.reason for line in lines} == {f"undo of {batch.batch_id}"}
        assert {(line.actor, line.policy) for line in lines} == {("ada", "undo")}
        assert [line.restores for line in lines] == [1, 1, None]
        # The undo is a batch like any other: redone, and undone again.
        redone = await self.undone(store, undone)
        memory = await current(store, "a")
        assert memory is not None
        assert (memory.text, memory.importance, memory.value) == ("Ada lives in Porto", 0.1, {"y": 2})
        assert await current(store, "b") is None
        assert (await current(store, "c")) is not None
        await self.undone(store, redone)
        assert {key: content(await current(store, key)) for key in "ab"} == before
        for key in "abc":
            history = await store.ahistory(ADA, key)
            assert replay(history) == await current(store, key)

    async def test_undo_brings_back_what_was_so_before(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="in Lisbon", valid_from=MARCH))
        move = await store.aapply(ADA, [Update(key="k", text="in Porto", mode="supersede", valid_from=JUNE)])
        gone = await store.aapply(ADA, [Delete(key="k")])
        await self.undone(store, gone)
        assert await texts(store, valid_at=MARCH) == ["in Lisbon"]
        assert await texts(store, valid_at=JUNE) == ["in Porto"]
        lines = await store.ahistory(ADA, "k")
        assert [line.superseded_by for line in lines] == [4, None, None, None]
        assert lines[3].memory is not None
        assert lines[3].memory.created_at == lines[0].recorded_at
        conflict = await store.aundo(ADA, move.batch_id)
        assert outcome(conflict) == [("rejected", "version_conflict")]

    async def test_undoing_a_move_undoes_the_end_of_what_was_before(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="in Lisbon", valid_from=MARCH))
        move = await store.aapply(ADA, [Update(key="k", text="in Porto", mode="supersede", valid_from=JUNE)])
        moved = await self.undone(store, move)
        (memory,) = await store.aas_of(ADA, valid_at=SEPTEMBER)
        assert (memory.text, memory.valid_from, memory.valid_to) == ("in Lisbon", MARCH, None)
        assert [line.superseded_by for line in await store.ahistory(ADA, "k")] == [None, None, None]
        await self.undone(store, moved)
        assert await texts(store, valid_at=SEPTEMBER) == ["in Porto"]
        assert await texts(store, valid_at=MARCH) == ["in Lisbon"]

    async def test_only_what_nobody_changed_since_is_taken_back(self, store: MemoryStore) -> None:
        await told(store, Insert(key="a", text="a1"), Insert(key="b", text="b1"))
        batch = await store.aapply(
            ADA,
            [
                Update(key="a", text="a2"),
                Delete(key="b"),
                Insert(key="c", text="c"),
                Insert(key="d", text="d"),
            ],
        )
        await told(store, Update(key="a", text="a3"), Insert(key="b", text="b anew"), Delete(key="c"))
        done = await store.aundo(ADA, batch.batch_id)
        assert outcome(done) == [("rejected", "version_conflict")] * 3 + [("applied", None)]
        assert {m.key: m.text for m in await store.aas_of(ADA)} == {"a": "a3", "b": "b anew"}

    async def test_puts_and_deletes_of_langgraph_can_be_undone(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {"text": "one", "n": 1}, index=["n", "text"])
        await store.aput(ADA, "k", {"text": "two"}, ttl=60)
        await store.adelete(ADA, "k")
        deletion, second, first = await store.alog(ADA)
        await store.aundo(ADA, deletion.batch_id)
        memory = await current(store, "k")
        assert memory is not None
        assert (memory.value, memory.text) == ({"text": "two"}, "two")
        assert memory.expires_at is not None
        assert timedelta(minutes=59) < memory.expires_at - datetime.now(UTC) <= timedelta(minutes=61)
        assert outcome(await store.aundo(ADA, second.batch_id)) == [("rejected", "version_conflict")]
        back = (await store.alog(ADA))[1]
        await store.aundo(ADA, back.batch_id)
        await store.aput(ADA, "other", {"text": "one"})
        (other, *_) = await store.alog(ADA)
        assert outcome(await store.aundo(ADA, other.batch_id)) == [("applied", None)]
        assert await store.aget(ADA, "other") is None
        assert first.receipts[0].version == 1

    async def test_what_would_have_expired_is_not_brought_back(self, store: MemoryStore) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        await told(
            store, Insert(key="a", text="a", expires_at=soon), Insert(key="b", text="b", expires_at=soon)
        )
        deleted = await store.aapply(ADA, [Delete(key="a")])
        await store.aput(ADA, "b", {"text": "lasts"})
        await asyncio.sleep(0.35)
        assert outcome(await store.aundo(ADA, deleted.batch_id)) == [("rejected", "expired")]
        put = (await store.alog(ADA))[1]
        assert outcome(await store.aundo(ADA, put.batch_id)) == [("rejected", "expired")]
        item = await store.aget(ADA, "b")
        assert item is not None

    async def test_a_batch_that_did_nothing_is_undone_by_nothing(self, store: MemoryStore) -> None:
        batch = await store.aapply(ADA, [NoOp(), Delete(key="no")])
        assert (await store.aundo(ADA, batch.batch_id)).receipts == ()

    async def test_a_batch_that_is_not_in_the_log_cannot_be_undone(self, store: MemoryStore) -> None:
        batch = await store.aapply(ADA, [Insert(key="k", text="hers")])
        for namespace, batch_id in (
            (("acme", "bob"), batch.batch_id),
            (("acme",), batch.batch_id),
            (ADA, str(uuid.uuid4())),
            (ADA, "last"),
            (ADA, "nul\0"),
            (ADA, 5),
        ):
            with pytest.raises(BatchNotFound):
                await store.aundo(namespace, batch_id)  # type: ignore[arg-type]
        assert await current(store, "k") is not None
        assert len(await store.alog(ADA)) == 1

    async def test_of_two_undos_at_once_one_wins(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="one"))
        batch = await store.aapply(ADA, [Update(key="k", text="two")])
        done = await asyncio.gather(*(store.aundo(ADA, batch.batch_id) for _ in range(4)))
        codes = sorted(str(receipts.receipts[0].code) for receipts in done)
        assert codes == ["None"] + ["version_conflict"] * 3
        again = await asyncio.gather(
            *(
                store.aundo(ADA, next(d for d in done if d.applied).batch_id, idempotency_key="u")
                for _ in "xy"
            )
        )
        assert sorted(receipts.replayed for receipts in again) == [False, True]
        assert len({receipts.receipts for receipts in again}) == 1
        memory = await current(store, "k")
        assert memory is not None
        assert (memory.text, memory.version) == ("two", 4)

    async def test_every_history_replays_to_what_is_there(self, store: MemoryStore) -> None:
        await told(store, Insert(key="k", text="one", valid_from=MARCH, valid_to=datetime.now(UTC) + DAY))
        await told(store, Update(key="k", text="two", mode="supersede"))
        await told(store, Delete(key="k"))
        assert replay(await store.ahistory(ADA, "k")) is None
        await told(store, Insert(key="k", text="three", importance=0.2))
        await store.aput(ADA, "k", {"text": "four"})
        assert replay(await store.ahistory(ADA, "k")) == await current(store, "k")
