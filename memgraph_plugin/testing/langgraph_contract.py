"""What LangGraph asks of a store, and what this package promises beyond it; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)

from memgraph_plugin.errors import InvalidValue
from memgraph_plugin.store.base import MemoryStore

ADA = ("acme", "ada")


class LangGraphContract:
    """get, put, delete, search, list_namespaces and batch."""

    async def test_get_returns_what_was_put(self, store: MemoryStore) -> None:
        value = {"n": 1, "f": 0.5, "none": None, "yes": True, "list": [1, "two", {"three": []}], "ü": "猫 😀"}
        await store.aput(ADA, "k", value)
        item = await store.aget(ADA, "k")
        assert item is not None
        assert (item.namespace, item.key, item.value) == (ADA, "k", value)
        assert item.created_at.tzinfo is not None
        assert item.updated_at >= item.created_at
        assert await store.aget(ADA, "other") is None
        assert await store.aget(("acme",), "k") is None

    async def test_an_empty_value_is_a_value(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {})
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {}

    async def test_overwriting_keeps_the_time_of_creation(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {"text": "old", "extra": 1})
        first = await store.aget(ADA, "k")
        await store.aput(ADA, "k", {"text": "new"})
        second = await store.aget(ADA, "k")
        assert first is not None
        assert second is not None
        assert second.value == {"text": "new"}
        assert second.created_at == first.created_at
        assert second.updated_at > first.updated_at

    async def test_delete_removes_and_is_quiet_about_what_is_not_there(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {"text": "gone soon"})
        await store.adelete(ADA, "k")
        await store.adelete(ADA, "never was")
        assert await store.aget(ADA, "k") is None
        assert await store.asearch(ADA) == []

    async def test_callers_cannot_change_what_is_stored(self, store: MemoryStore) -> None:
        value = {"list": [1], "dict": {"a": 1}}
        await store.aput(ADA, "k", value)
        value["list"].append(2)  # type: ignore[attr-defined]
        item = await store.aget(ADA, "k")
        assert item is not None
        item.value["dict"]["a"] = 2
        (found,) = await store.asearch(ADA)
        found.value["list"].append(3)
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {"list": [1], "dict": {"a": 1}}

    async def test_a_batch_answers_in_the_order_it_was_asked(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {"text": "here"})
        got, put, found, spaces, missing = await store.abatch(
            [
                GetOp(ADA, "k"),
                PutOp(ADA, "new", {"text": "there"}),
                SearchOp(("acme",)),
                ListNamespacesOp(),
                GetOp(ADA, "no"),
            ]
        )
        assert got.key == "k"  # type: ignore[union-attr]
        assert put is None
        assert [item.key for item in found] == ["k"]  # type: ignore[union-attr]
        assert spaces == [ADA]
        assert missing is None
        assert await store.abatch([]) == []

    async def test_reads_of_a_batch_see_the_state_before_its_writes(self, store: MemoryStore) -> None:
        results = await store.abatch([PutOp(ADA, "k", {"text": "new"}), GetOp(ADA, "k"), SearchOp(ADA)])
        assert results == [None, None, []]
        results = await store.abatch([PutOp(ADA, "k", None), GetOp(ADA, "k")])
        assert results[1] is not None
        assert await store.aget(ADA, "k") is None

    async def test_of_several_puts_on_one_key_the_last_wins(self, store: MemoryStore) -> None:
        await store.abatch(
            [PutOp(ADA, "k", {"n": 1}), PutOp(ADA, "gone", {"n": 1}), PutOp(ADA, "k", {"n": 2})]
        )
        await store.abatch([PutOp(ADA, "gone", {"n": 3}), PutOp(ADA, "gone", None)])
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {"n": 2}
        assert await store.aget(ADA, "gone") is None
        assert len(await store.ahistory(ADA, "k")) == 1

    async def test_an_unknown_operation_is_refused(self, store: MemoryStore) -> None:
        with pytest.raises((ValueError, TypeError)):
            await store.abatch([PutOp(ADA, "k", {}), "drop everything"])  # type: ignore[list-item]
        assert await store.aget(ADA, "k") is None

    async def test_a_namespace_is_no_pattern(self, store: MemoryStore) -> None:
        spaces = [
            ("acme",),
            ("acme", "x"),
            ("acme-corp",),
            ("acmex",),
            ("acme_",),
            ("acme%",),
            ("ACME",),
            ("a", "x"),
        ]
        for n, space in enumerate(spaces):
            await store.aput(space, "k", {"n": n, "text": "who sees this"})
        for prefix, seen in {
            ("acme",): {0, 1},
            ("acme_",): {4},
            ("acme%",): {5},
            ("_",): set[int](),
            ("a",): {7},
        }.items():
            assert {item.value["n"] for item in await store.asearch(prefix)} == seen
            assert {item.value["n"] for item in await store.asearch(prefix, query="who sees this")} == seen
        assert len(await store.asearch(())) == len(spaces)

    @pytest.mark.parametrize("namespace", [("a.b",), ("a", ""), ("a", "b\0"), ("a", 1)])
    async def test_a_label_with_a_dot_or_without_a_letter_is_refused(
        self, store: MemoryStore, namespace: tuple[Any, ...]
    ) -> None:
        condition = MatchCondition("prefix", namespace)
        for op in (
            PutOp(namespace, "k", {}),
            GetOp(namespace, "k"),
            SearchOp(namespace),
            ListNamespacesOp((condition,)),
        ):
            with pytest.raises(InvalidNamespaceError):
                await store.abatch([op])

    async def test_nothing_can_be_put_nowhere(self, store: MemoryStore) -> None:
        with pytest.raises(InvalidNamespaceError):
            await store.abatch([PutOp((), "k", {})])
        with pytest.raises(InvalidNamespaceError):
            await store.aput((), "k", {})

    async def test_search_without_a_query_is_newest_first(self, store: MemoryStore) -> None:
        for key in ("a", "b", "c"):
            await store.aput(ADA, key, {"text": key})
        await store.aput(ADA, "a", {"text": "again"})
        assert [item.key for item in await store.asearch(("acme",))] == ["a", "c", "b"]

    async def test_pages_are_disjoint_and_complete(self, store: MemoryStore) -> None:
        await store.abatch([PutOp(ADA, f"{n:02}", {"n": n, "text": f"note {n} on tea"}) for n in range(23)])
        for query in (None, "tea"):
            pages = [
                await store.asearch(ADA, query=query, limit=5, offset=offset) for offset in range(0, 30, 5)
            ]
            assert [len(page) for page in pages] == [5, 5, 5, 5, 3, 0]
            assert len({item.key for page in pages for item in page}) == 23
        odd = await store.asearch(ADA, filter={"n": {"$gte": 20}}, limit=2, offset=1)
        assert len(odd) == 2
        assert await store.asearch(ADA, limit=0) == []

    @pytest.mark.parametrize(
        ("condition", "keys"),
        [
            ({"n": 10}, "b"),
            ({"n": {"$gt": 9}}, "bc"),
            ({"n": {"$gte": 2, "$lt": 100}}, "ab"),
            ({"n": "10"}, "d"),
            ({"n": {"$ne": 10}}, "acd"),
            ({"tag": None}, "cd"),
            ({"tag": {"$ne": "x"}}, "bcd"),
            ({"tag": {"$exists": True}}, "abc"),
            ({"n": {"$in": [2, 100]}}, "ac"),
            ({"n": {"$nin": [2, 100]}}, "bd"),
            ({"list": {"$contains": "one"}}, "a"),
            ({"list": ["one", {"two": 2}]}, "a"),
            ({"dict": {"deep": {"er": 1}}}, "b"),
            ({"$or": [{"n": 2}, {"tag": "y"}]}, "ab"),
            ({"$and": [{"n": {"$gt": 2}}, {"tag": "y"}]}, "b"),
            ({"$not": {"tag": {"$gt": "x"}}}, "acd"),
            ({"quo\"te'": "%s {0}"}, "d"),
            ({}, "abcd"),
        ],
    )
    async def test_filters_mean_what_they_say(
        self, store: MemoryStore, condition: dict[str, Any], keys: str
    ) -> None:
        values: dict[str, dict[str, Any]] = {
            "a": {"n": 2, "tag": "x", "list": ["one", {"two": 2}]},
            "b": {"n": 10, "tag": "y", "dict": {"deep": {"er": 1}}},
            "c": {"n": 100, "tag": None, "list": []},
            "d": {"n": "10", "quo\"te'": "%s {0}"},
        }
        await store.abatch([PutOp(ADA, key, value) for key, value in values.items()])
        assert sorted(item.key for item in await store.asearch(ADA, filter=condition)) == list(keys)
        assert sorted(hit.memory.key for hit in await store.arecall(ADA, "", filter=condition)) == list(keys)

    async def test_an_unknown_filter_operator_is_refused(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {"n": 1})
        with pytest.raises(ValueError, match=r"\$near"):
            await store.asearch(ADA, filter={"n": {"$near": 1}})
        with pytest.raises(ValueError, match=r"\$near"):
            await store.arecall(ADA, "x", filter={"n": {"$near": 1}})

    async def test_namespaces_are_listed_by_prefix_suffix_and_depth(self, store: MemoryStore) -> None:
        spaces = [("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "f"), ("a", "x", "c"), ("z",)]
        await store.abatch([PutOp(space, "k", {}) for space in spaces])
        assert await store.alist_namespaces() == spaces
        assert await store.alist_namespaces(prefix=("a", "b")) == spaces[:3]
        assert await store.alist_namespaces(suffix=("c",)) == [spaces[0], spaces[3]]
        assert await store.alist_namespaces(prefix=("a", "*", "c")) == [spaces[0], spaces[3]]
        assert await store.alist_namespaces(prefix=("a",), suffix=("*", "e")) == [spaces[1]]
        assert await store.alist_namespaces(max_depth=2) == [("a", "b"), ("a", "x"), ("z",)]
        assert await store.alist_namespaces(limit=2, offset=1) == spaces[1:3]

    async def test_namespaces_are_listed_label_by_label(self, store: MemoryStore) -> None:
        spaces = [("a",), ("a", "b"), ("a!", "z"), ("a-b",), ("a/b",), ("ü",)]
        await store.abatch([PutOp(space, "k", {}) for space in reversed(spaces)])
        assert await store.alist_namespaces() == spaces
        with pytest.raises(ValueError, match="max_depth"):
            await store.alist_namespaces(max_depth=0)

    async def test_a_namespace_without_memories_is_not_listed(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {})
        await store.adelete(ADA, "k")
        assert await store.alist_namespaces() == []

    async def test_search_reads_the_text_or_else_the_whole_value(self, store: MemoryStore) -> None:
        await store.aput(ADA, "text", {"text": "the harbour at dawn", "note": "zebra"})
        await store.aput(ADA, "whole", {"animal": "zebra"})
        await store.aput(ADA, "path", {"text": "nothing", "deep": {"er": "okapi"}}, index=["deep.er"])
        assert (await store.asearch(ADA, query="harbour"))[0].key == "text"
        assert (await store.asearch(ADA, query="zebra"))[0].key == "whole"
        assert (await store.asearch(ADA, query="okapi"))[0].key == "path"

    async def test_what_is_not_indexed_is_not_found_by_a_query(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {"text": "a secret garden"})
        await store.aput(ADA, "hidden", {"text": "a secret garden"}, index=False)
        assert [item.key for item in await store.asearch(ADA, query="secret garden")] == ["k"]
        assert {item.key for item in await store.asearch(ADA)} == {"k", "hidden"}
        await store.aput(ADA, "k", {"text": "a secret garden"}, index=False)
        assert await store.asearch(ADA, query="secret garden") == []

    async def test_a_put_is_an_operation_with_a_version(self, store: MemoryStore) -> None:
        await store.aput(ADA, "k", {"text": "one"})
        await store.aput(ADA, "k", {"text": "two"})
        await store.adelete(ADA, "k")
        await store.aput(ADA, "k", {"text": "three"})
        history = await store.ahistory(ADA, "k")
        assert [(line.version, line.operation) for line in history] == [
            (1, "insert"),
            (2, "update"),
            (3, "delete"),
            (4, "insert"),
        ]
        assert [line.memory and line.memory.text for line in history] == ["one", "two", None, "three"]

    async def test_a_value_that_is_no_json_is_refused_and_nothing_written(self, store: MemoryStore) -> None:
        for bad in (float("nan"), float("-inf"), "nul\0", {"nul\0": 1}, b"bytes", {1, 2}, object(), {1: 2}):
            with pytest.raises(InvalidValue, match="deep"):
                await store.abatch([PutOp(ADA, "good", {"n": 1}), PutOp(ADA, "bad", {"deep": [bad]})])
        for op in (
            PutOp(ADA, "nul\0", {}),
            GetOp(ADA, "nul\0"),
            SearchOp(ADA, query="lone surrogate \ud800"),
        ):
            with pytest.raises(InvalidValue):
                await store.abatch([PutOp(ADA, "good", {"n": 1}), op])
        assert await store.asearch(()) == []

    async def test_a_value_that_holds_itself_is_refused(self, store: MemoryStore) -> None:
        circle: dict[str, Any] = {}
        circle["circle"] = circle
        with pytest.raises(InvalidValue):
            await store.aput(ADA, "k", circle)

    async def test_what_has_a_time_to_live_is_gone_after_it(self, store: MemoryStore) -> None:
        if not store.supports_ttl:
            pytest.skip("the store has no time to live")
        for bad in (float("inf"), float("nan"), 1e12):
            with pytest.raises(InvalidValue, match="ttl"):
                await store.aput(ADA, "never", {}, ttl=bad)
        await store.aput(ADA, "short", {"text": "soon gone"}, ttl=0.2 / 60)
        await store.aput(ADA, "long", {"text": "still here"}, ttl=10)
        await asyncio.sleep(0.3)
        assert await store.aget(ADA, "short") is None
        assert [item.key for item in await store.asearch(ADA)] == ["long"]

    async def test_five_thousand_puts_are_one_batch(self, store: MemoryStore) -> None:
        ops = [PutOp((*ADA, str(n % 7)), f"k{n}", {"n": n, "text": f"memory {n}"}) for n in range(5_000)]
        assert await store.abatch(ops) == [None] * 5_000
        assert len(await store.asearch(ADA, limit=6_000)) == 5_000
