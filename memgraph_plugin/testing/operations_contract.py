"""What `apply` and `history` promise: versions, receipts, idempotency, a log; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.store.base import InvalidNamespaceError

from memgraph_plugin.errors import EmbeddingMismatch, InvalidValue, MemoryNotFound, VersionConflict
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import (
    Delete,
    Held,
    Insert,
    Memory,
    Namespace,
    NoOp,
    Operation,
    Receipt,
    Receipts,
    Update,
)

ADA = ("acme", "ada")


async def current(store: MemoryStore, key: str, namespace: Namespace = ADA) -> Memory | None:
    """The memory as it is now."""
    hits = await store.arecall(namespace, "", k=1_000)
    return next((hit.memory for hit in hits if hit.memory.key == key), None)


def outcome(receipts: Receipts) -> list[tuple[str, str | None]]:
    return [(receipt.status, receipt.code) for receipt in receipts.receipts]


class OperationsContract:
    """apply and history."""

    async def test_an_insert_keeps_all_that_it_says(self, store: MemoryStore) -> None:
        noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
        later = datetime.now(UTC) + timedelta(days=1)
        insert = Insert(
            text="Ada moved to Turin",
            kind="episodic",
            key="move",
            value={"city": "Turin", "n": [1, None]},
            session="s1",
            position=3,
            importance=0.75,
            source="chat",
            valid_from=noon,
            expires_at=later,
        )
        receipts = await store.aapply(ADA, [insert])
        (receipt,) = receipts.receipts
        assert (receipt.operation, receipt.status, receipt.key, receipt.version) == (
            "insert",
            "applied",
            "move",
            1,
        )
        memory = await current(store, "move")
        assert memory is not None
        assert memory.namespace == ADA
        assert (memory.text, memory.kind, memory.value) == ("Ada moved to Turin", "episodic", insert.value)
        assert (memory.session, memory.position, memory.source) == ("s1", 3, "chat")
        assert memory.importance == pytest.approx(0.75)
        assert (memory.valid_from, memory.expires_at) == (noon, later)
        assert memory.tokens > 0
        assert memory.created_at is not None

    async def test_a_key_is_made_where_none_is_given(self, store: MemoryStore) -> None:
        receipts = await store.aapply(ADA, [Insert(text="one"), Insert(text="two")])
        keys = [receipt.key for receipt in receipts.receipts]
        assert len({*keys, None}) == 3
        assert {hit.memory.key for hit in await store.arecall(ADA, "")} == set(keys)

    async def test_an_update_changes_what_it_names_and_keeps_the_rest(self, store: MemoryStore) -> None:
        await store.aapply(
            ADA,
            [Insert(key="k", text="likes tea", value={"a": 1}, kind="core", importance=0.25, session="s")],
        )
        before = await current(store, "k")
        receipts = await store.aapply(
            ADA, [Update(key="k", text="likes green tea", mode="refine", version=1)]
        )
        assert (receipts.receipts[0].status, receipts.receipts[0].version) == ("applied", 2)
        after = await current(store, "k")
        assert before is not None
        assert after is not None
        assert (after.text, after.version, after.value) == ("likes green tea", 2, {"a": 1})
        assert (after.kind, after.session, after.created_at) == ("core", "s", before.created_at)
        await store.aapply(ADA, [Update(key="k", text="likes mate", value={"b": 2}, importance=1.0)])
        last = await current(store, "k")
        assert last is not None
        assert (last.version, last.value, last.importance) == (3, {"b": 2}, 1.0)

    async def test_what_supersedes_is_true_from_now_on_or_as_said(self, store: MemoryStore) -> None:
        start, then = datetime.now(UTC), datetime(2026, 2, 3, tzinfo=UTC)
        await store.aapply(ADA, [Insert(key="a", text="works at A"), Insert(key="b", text="works at B")])
        await store.aapply(
            ADA,
            [
                Update(key="a", text="works at C", mode="supersede"),
                Update(key="b", text="works at D", mode="supersede", valid_from=then),
            ],
        )
        a, b = await current(store, "a"), await current(store, "b")
        assert a is not None
        assert b is not None
        assert a.valid_from is not None
        # A database may have a clock of its own.
        assert a.valid_from >= start - timedelta(minutes=1)
        assert b.valid_from == then
        assert [line.mode for line in await store.ahistory(ADA, "a")] == [None, "supersede"]

    async def test_what_cannot_be_applied_is_listed_and_the_rest_is_applied(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(key="a", text="one"), Insert(key="b", text="two")])
        await store.aapply(ADA, [Update(key="b", text="two and a half")])
        receipts = await store.aapply(
            ADA,
            [
                Insert(key="a", text="again"),
                Update(key="b", text="three", version=1),
                Update(key="missing", text="x"),
                Delete(key="gone"),
                Insert(key="new", text="first"),
                Update(key="new", text="second"),
                NoOp(reason="small talk"),
            ],
        )
        assert outcome(receipts) == [
            ("rejected", "key_exists"),
            ("rejected", "version_conflict"),
            ("rejected", "not_found"),
            ("rejected", "not_found"),
            ("applied", None),
            ("rejected", "duplicate_key"),
            ("unchanged", None),
        ]
        assert [receipt.operation for receipt in receipts.receipts][-2:] == ["update", "noop"]
        assert receipts.receipts[-1].reason == "small talk"
        assert len(receipts.rejected) == 5
        texts = {hit.memory.key: hit.memory.text for hit in await store.arecall(ADA, "")}
        assert texts == {"a": "one", "b": "two and a half", "new": "first"}

    async def test_a_batch_is_applied_only_while_what_it_rests_on_stands(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(key="a", text="one"), Insert(key="b", text="two")])
        batch: list[Operation] = [Insert(key="sum", text="one, two"), Delete(key="b"), NoOp()]
        held = [Held(operation=Insert(text="three"), code="secret")]
        before = await store.alog(ADA)
        late: list[Any] = [
            ({"a": 2}, VersionConflict),
            ({"a": 0}, VersionConflict),
            ({"b": 1, "c": 1}, MemoryNotFound),
        ]
        for requires, error in (*late, ({"c": None}, MemoryNotFound), (["a", "c"], MemoryNotFound)):
            with pytest.raises(error):
                await store.aapply(ADA, batch, idempotency_key="once", requires=requires, held=held)
        assert not await store.aquarantined(ADA)
        assert len(await store.arecall(ADA, "")) == 2
        assert await store.alog(ADA) == before
        requires = {"a": 1, "b": None, "sum": 0}
        receipts = await store.aapply(ADA, batch, idempotency_key="once", requires=requires, held=held)
        assert len(receipts.applied) == 2
        assert len(await store.aquarantined(ADA)) == 1
        assert {hit.memory.key for hit in await store.arecall(ADA, "")} == {"a", "sum"}
        again = await store.aapply(ADA, batch, idempotency_key="once", requires=requires)
        assert again.replayed

    async def test_what_was_deleted_or_erased_meanwhile_is_not_rested_on(self, store: MemoryStore) -> None:
        async def refused() -> None:
            for requires in (["a"], {"a": 1}):
                with pytest.raises(MemoryNotFound):
                    await store.aapply(ADA, [Insert(text="of a")], requires=requires)

        await store.aapply(ADA, [Insert(key="a", text="one")])
        await store.aapply(ADA, [Insert(key="b", text="of a")], requires=["a"])
        await store.aapply(ADA, [Delete(key="a")])
        await refused()
        assert await store.acount(ADA) == 1
        await store.aforget(ADA)
        await refused()
        assert await store.alog(ADA) == []
        with pytest.raises(InvalidValue, match="requires"):
            await store.aapply(ADA, [], requires=["a\0b"])

    async def test_nothing_to_do_is_done(self, store: MemoryStore) -> None:
        assert (await store.aapply(ADA, [])).receipts == ()
        assert outcome(await store.aapply(ADA, [NoOp(), NoOp()])) == [("unchanged", None)] * 2
        assert await store.alist_namespaces() == []

    async def test_a_deleted_memory_is_gone_from_reading_and_kept_in_history(
        self, store: MemoryStore
    ) -> None:
        await store.aapply(ADA, [Insert(key="k", text="a secret")])
        conflict = await store.aapply(ADA, [Delete(key="k", version=7)])
        assert outcome(conflict) == [("rejected", "version_conflict")]
        receipts = await store.aapply(ADA, [Delete(key="k", version=1, reason="asked to")])
        assert (receipts.receipts[0].operation, receipts.receipts[0].status) == ("delete", "applied")
        assert await store.aget(ADA, "k") is None
        assert await store.arecall(ADA, "secret") == []
        assert await store.asearch(ADA, query="secret") == []
        first, last = await store.ahistory(ADA, "k")
        assert first.memory is not None
        assert first.memory.text == "a secret"
        assert (last.version, last.operation, last.memory, last.reason) == (2, "delete", None, "asked to")

    async def test_versions_go_on_after_a_deletion(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(key="k", text="one")])
        await store.aapply(ADA, [Delete(key="k")])
        receipts = await store.aapply(ADA, [Insert(key="k", text="two")])
        assert receipts.receipts[0].version == 3
        assert [line.version for line in await store.ahistory(ADA, "k")] == [1, 2, 3]

    async def test_history_says_what_was_done_by_whom_and_why(self, store: MemoryStore) -> None:
        one = await store.aapply(
            ADA,
            [Insert(key="k", text="one", reason="told", evidence=("t1", "t2"))],
            actor="ada",
            policy="rules",
        )
        two = await store.aapply(ADA, [Update(key="k", text="two", mode="refine", reason="said better")])
        first, second = await store.ahistory(ADA, "k")
        assert (first.key, first.version, first.operation, first.mode) == ("k", 1, "insert", None)
        assert (first.reason, first.evidence, first.actor, first.policy) == (
            "told",
            ("t1", "t2"),
            "ada",
            "rules",
        )
        assert (first.batch_id, second.batch_id) == (one.batch_id, two.batch_id)
        assert (second.operation, second.mode, second.reason) == ("update", "refine", "said better")
        assert first.memory is not None
        assert second.memory is not None
        assert (first.memory.text, second.memory.text) == ("one", "two")
        assert first.recorded_at is not None
        assert second.recorded_at is not None
        assert first.recorded_at < second.recorded_at

    async def test_there_is_no_history_of_what_never_was(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(key="k", text="one")])
        for namespace, key in ((ADA, "other"), (("acme",), "k"), (("acme", "ad"), "k")):
            with pytest.raises(MemoryNotFound):
                await store.ahistory(namespace, key)

    async def test_a_batch_that_comes_again_is_answered_and_not_applied(self, store: MemoryStore) -> None:
        first = await store.aapply(ADA, [Insert(text="one"), Delete(key="no")], idempotency_key="turn-1")
        again = await store.aapply(ADA, [Insert(text="one"), Delete(key="no")], idempotency_key="turn-1")
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.batch_id, again.receipts) == (first.batch_id, first.receipts)
        assert len(await store.arecall(ADA, "")) == 1
        other = await store.aapply(("acme", "bob"), [Insert(text="one")], idempotency_key="turn-1")
        assert not other.replayed

    async def test_a_batch_that_comes_many_times_at_once_is_applied_once(self, store: MemoryStore) -> None:
        results = await asyncio.gather(
            *(store.aapply(ADA, [Insert(text="only once")], idempotency_key="turn-1") for _ in range(8))
        )
        assert sorted(result.replayed for result in results) == [False] + [True] * 7
        assert len({result.receipts for result in results}) == 1
        assert len(await store.arecall(ADA, "")) == 1

    async def test_of_concurrent_writers_one_wins_and_the_others_hear_of_it(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(key="k", text="0")])
        results = await asyncio.gather(
            *(store.aapply(ADA, [Update(key="k", text=str(n), version=1)]) for n in range(8))
        )
        codes = sorted(str(result.receipts[0].code) for result in results)
        assert codes == ["None"] + ["version_conflict"] * 7
        assert len(await store.ahistory(ADA, "k")) == 2

    async def test_concurrent_writers_lose_no_update(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(key="k", text="count", value={"n": 0})])

        async def add_one() -> None:
            while True:
                memory = await current(store, "k")
                assert memory is not None
                update = Update(
                    key="k", text="count", value={"n": memory.value["n"] + 1}, version=memory.version
                )
                if (await store.aapply(ADA, [update])).applied:
                    return

        await asyncio.gather(*(add_one() for _ in range(6)))
        memory = await current(store, "k")
        assert memory is not None
        assert (memory.value, memory.version) == ({"n": 6}, 7)

    async def test_later_versions_have_later_times(self, store: MemoryStore) -> None:
        await asyncio.gather(*(store.aput(ADA, "k", {"n": n}) for n in range(12)))
        history = await store.ahistory(ADA, "k")
        times = [line.recorded_at for line in history if line.recorded_at]
        assert len(times) == len({*times}) == 12
        assert times == sorted(times)

    async def test_concurrent_inserts_of_one_key_make_one_memory(self, store: MemoryStore) -> None:
        results = await asyncio.gather(*(store.aapply(ADA, [Insert(key="k", text=str(n))]) for n in range(6)))
        assert sorted(str(result.receipts[0].code) for result in results) == ["None"] + ["key_exists"] * 5

    async def test_what_has_expired_is_as_if_it_were_not(self, store: MemoryStore) -> None:
        past = datetime.now(UTC) - timedelta(minutes=1)
        await store.aapply(ADA, [Insert(key="k", text="an old offer", expires_at=past)])
        assert await store.aget(ADA, "k") is None
        assert await store.arecall(ADA, "offer") == []
        assert await store.asearch(ADA) == []
        assert outcome(await store.aapply(ADA, [Update(key="k", text="x")])) == [("rejected", "not_found")]
        assert outcome(await store.aapply(ADA, [Insert(key="k", text="a new offer")])) == [("applied", None)]
        assert [hit.memory.text for hit in await store.arecall(ADA, "offer")] == ["a new offer"]

    @pytest.mark.parametrize(
        "bad",
        [
            Insert(text="nul\0"),
            Insert(text="lone surrogate \ud800"),
            Insert(text="x", key="nul\0"),
            Insert(text="x", value={"a": [1, {"b": float("nan")}]}),
            Insert(text="x", value={"a": float("inf")}),
            Insert(text="x", value={"a": datetime(2026, 1, 1, tzinfo=UTC)}),
            Insert(text="x", value={"a": "nul\0"}),
            Insert(text="x", evidence=("nul\0",)),
            Insert(text="x", session="nul\0"),
            Insert(text="x", importance=float("nan")),
            Insert(text="x", importance=1e300),
            Insert(text="x", embedding=[float("nan")] * 256),
            Insert(text="x", position=2**31),
            Insert(text="x", key="k" * 1_025),
            Insert(text="x", kind=5),  # type: ignore[arg-type]
            Insert(text="x", evidence="turn-1"),  # type: ignore[arg-type]
            Insert(text=None),  # type: ignore[arg-type]
            {"text": "x"},
            Update(key="k", text="x", value={"a": {1, 2}}),
            Delete(key="k", reason="nul\0"),
            NoOp(reason="nul\0"),
        ],
        ids=lambda operation: repr(operation)[:60],
    )
    async def test_what_cannot_be_stored_is_refused_with_the_whole_batch(
        self, store: MemoryStore, bad: Operation
    ) -> None:
        await store.aapply(ADA, [Insert(key="k", text="before")])
        with pytest.raises(InvalidValue):
            await store.aapply(ADA, [Insert(text="good"), bad])
        assert [hit.memory.text for hit in await store.arecall(ADA, "")] == ["before"]

    @pytest.mark.parametrize("namespace", [(), ("",), ("a.b",), ("a", "b", "")])
    async def test_operations_need_a_namespace(self, store: MemoryStore, namespace: tuple[str, ...]) -> None:
        calls: list[Any] = [
            store.aapply(namespace, [Insert(text="x")]),
            store.arecall(namespace, "x"),
            store.ahistory(namespace, "x"),
        ]
        for call in calls:
            with pytest.raises(InvalidNamespaceError):
                await call
        with pytest.raises(InvalidValue, match="bytes"):
            await store.aapply(("n" * 1_025,), [Insert(text="x")])
        with pytest.raises(InvalidValue, match="idempotency_key"):
            await store.aapply(("n",), [Insert(text="x")], idempotency_key="i" * 1_025)
        assert await store.alist_namespaces() == []

    async def test_a_vector_of_another_dimension_is_refused(self, store: MemoryStore) -> None:
        with pytest.raises(EmbeddingMismatch):
            await store.aapply(ADA, [Insert(text="good"), Insert(text="bad", embedding=[0.5, 0.5, 0.5])])
        assert await store.arecall(ADA, "") == []
        await store.aapply(ADA, [Insert(key="k", text="good")])
        with pytest.raises(EmbeddingMismatch):
            await store.aapply(ADA, [Update(key="k", text="bad", embedding=[1.0])])

    async def test_what_was_rejected_before_is_logged_with_the_rest(self, store: MemoryStore) -> None:
        refused = Receipt(operation="insert", status="rejected", code="ungrounded", reason="yacht")
        done = await store.aapply(ADA, [Insert(key="k", text="likes tea")], rejected=[refused])
        alone = await store.aapply(ADA, [], rejected=[replace(refused, operation="delete", key="x")])
        assert outcome(done) == [("applied", None), ("rejected", "ungrounded")]
        assert [batch.receipts for batch in await store.alog(ADA)] == [alone.receipts, done.receipts]
        assert done.receipts[1] == refused
        for wrong in (replace(refused, reason="a\0b"), replace(refused, status="applied")):
            with pytest.raises(InvalidValue, match="rejected"):
                await store.aapply(ADA, [], rejected=[wrong])

    async def test_five_thousand_operations_are_one_batch(self, store: MemoryStore) -> None:
        operations = [Insert(key=f"k{n}", text=f"memory {n} of many") for n in range(5_000)]
        receipts = await store.aapply(ADA, operations)
        assert len(receipts.applied) == 5_000
        assert [receipt.key for receipt in receipts.receipts] == [operation.key for operation in operations]
