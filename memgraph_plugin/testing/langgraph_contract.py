"""What our stores promise of LangGraph's operations beyond what LangGraph asks; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp, SearchOp

from memgraph_plugin.errors import InvalidValue, MemoryNotFound
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.testing.conformance import StoreConformance
from memgraph_plugin.types import Insert

ADA = ("acme", "ada")


class LangGraphContract(StoreConformance):
    """get, put, delete, search, list_namespaces and batch; count, delete_namespace and sweep_ttl."""

    async def test_every_refused_batch_leaves_nothing(self, store: MemoryStore) -> None:
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
        with pytest.raises(InvalidNamespaceError):
            await store.abatch([PutOp((), "k", {})])
        assert await store.asearch(()) == []

    async def test_a_value_that_holds_itself_is_refused(self, store: MemoryStore) -> None:
        circle: dict[str, Any] = {}
        circle["circle"] = circle
        with pytest.raises(InvalidValue):
            await store.aput(ADA, "k", circle)

    async def test_several_puts_on_one_key_of_a_batch_are_one_version(self, store: MemoryStore) -> None:
        await store.abatch([PutOp(ADA, "k", {"n": 1}), PutOp(ADA, "k", {"n": 2})])
        assert len(await store.ahistory(ADA, "k")) == 1

    async def test_a_namespace_is_no_pattern_for_a_query(self, store: MemoryStore) -> None:
        for space in (
            ("acme",),
            ("acme", "x"),
            ("acme-corp",),
            ("acmex",),
            ("acme_",),
            ("acme%",),
            ("ACME",),
        ):
            await store.aput(space, "k", {"text": "who sees this"})
        for prefix, seen in {("acme",): 2, ("acme_",): 1, ("acme%",): 1, ("_",): 0}.items():
            assert len(await store.asearch(prefix, query="who sees this")) == seen

    @pytest.mark.parametrize(
        ("condition", "keys"),
        [
            ({"n": "10"}, "d"),
            ({"tag": {"$exists": True}}, "abc"),
            ({"n": {"$in": [2, 100]}}, "ac"),
            ({"n": {"$nin": [2, 100]}}, "bd"),
            ({"list": {"$contains": "one"}}, "a"),
            ({"dict.deep.er": 1}, "b"),
            ({"dict.deep.er": {"$gt": 1}}, ""),
            ({"a.b": {"$lt": 5}}, "cd"),
            ({"$or": [{"n": 2}, {"tag": "y"}]}, "ab"),
            ({"$and": [{"n": {"$gt": 2}}, {"tag": "y"}]}, "b"),
            ({"$not": {"tag": {"$gt": "x"}}}, "acd"),
        ],
    )
    async def test_filters_reach_further_than_langgraph_s(
        self, store: MemoryStore, condition: dict[str, Any], keys: str
    ) -> None:
        values: dict[str, dict[str, Any]] = {
            "a": {"n": 2, "tag": "x", "list": ["one", {"two": 2}]},
            "b": {"n": 10, "tag": "y", "dict": {"deep": {"er": 1}}},
            "c": {"n": 100, "tag": None, "list": [], "a.b": 1, "a": {"b": 9}},
            "d": {"n": "10", "a": {"b": 2}},
        }
        await store.abatch([PutOp(ADA, key, value) for key, value in values.items()])
        assert sorted(item.key for item in await store.asearch(ADA, filter=condition)) == list(keys)
        assert sorted(hit.memory.key for hit in await store.arecall(ADA, "", filter=condition)) == list(keys)

    async def test_recall_refuses_an_unknown_operator_too(self, store: MemoryStore) -> None:
        with pytest.raises(ValueError, match=r"\$near"):
            await store.arecall(ADA, "x", filter={"n": {"$near": 1}})

    async def test_namespaces_are_listed_label_by_label(self, store: MemoryStore) -> None:
        spaces = [("a",), ("a", "b"), ("a!", "z"), ("a-b",), ("a/b",), ("ü",)]
        await store.abatch([PutOp(space, "k", {}) for space in reversed(spaces)])
        assert await store.alist_namespaces() == spaces
        with pytest.raises(ValueError, match="max_depth"):
            await store.alist_namespaces(max_depth=0)

    async def test_search_reads_the_text_or_else_the_whole_value(self, store: MemoryStore) -> None:
        await store.aput(ADA, "text", {"text": "the harbour at dawn", "note": "zebra"})
        await store.aput(ADA, "whole", {"animal": "zebra"})
        assert (await store.asearch(ADA, query="harbour"))[0].key == "text"
        assert (await store.asearch(ADA, query="zebra"))[0].key == "whole"

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

    async def test_five_thousand_puts_are_one_batch(self, store: MemoryStore) -> None:
        ops = [PutOp((*ADA, str(n % 7)), f"k{n}", {"n": n, "text": f"memory {n}"}) for n in range(5_000)]
        assert await store.abatch(ops) == [None] * 5_000
        assert len(await store.asearch(ADA, limit=6_000)) == 5_000

    async def test_a_time_to_live_is_a_number_of_minutes(self, store: MemoryStore) -> None:
        for bad in (float("inf"), float("nan"), 1e12):
            with pytest.raises(InvalidValue, match="ttl"):
                await store.aput(ADA, "never", {}, ttl=bad)

    async def test_what_was_swept_has_no_history_any_more(self, store: MemoryStore) -> None:
        await store.aput(ADA, "expired", {"text": "first"})
        await store.aput(ADA, "expired", {"text": "second"}, ttl=-1)
        await store.aput(ADA, "kept", {"text": "stays"})
        await store.adelete(ADA, "kept")
        swept = store.sweep_ttl()  # type: ignore[attr-defined]
        assert (await swept if inspect.isawaitable(swept) else swept) == 1
        with pytest.raises(MemoryNotFound):
            await store.ahistory(ADA, "expired")
        assert len(await store.ahistory(ADA, "kept")) == 2

    async def test_a_namespace_is_deleted_with_all_below_it(self, store: MemoryStore) -> None:
        spaces = [ADA, (*ADA, "x"), (*ADA, "x", "y"), ("acme",), ("acme", "adam"), ("acme", "ada-b")]
        for space in spaces:
            await store.aapply(space, [Insert(key=f"{n}", text=f"note {n}") for n in range(3)])
        await store.aput(ADA, "expired", {}, ttl=-1)
        assert await store.acount(()) == 18
        assert await store.acount(("acme",)) == 18
        assert await store.acount(ADA) == 9
        assert await store.acount(("acm",)) == 0
        assert await store.adelete_namespace(ADA, actor="ada herself") == 9
        assert await store.adelete_namespace(ADA) == 0
        assert await store.acount(ADA) == 0
        assert await store.alist_namespaces() == sorted(spaces[3:])
        last = (await store.ahistory((*ADA, "x"), "1"))[-1]
        assert (last.operation, last.actor, last.version) == ("delete", "ada herself", 2)

    @pytest.mark.parametrize("prefix", [(), ("a.b",), ("",), "acme"])
    async def test_a_prefix_of_nobody_deletes_nothing(self, store: MemoryStore, prefix: Any) -> None:
        await store.aput(ADA, "k", {})
        with pytest.raises(InvalidNamespaceError):
            await store.adelete_namespace(prefix)
        if prefix:
            with pytest.raises(InvalidNamespaceError):
                await store.acount(prefix)
        assert await store.acount(()) == 1
