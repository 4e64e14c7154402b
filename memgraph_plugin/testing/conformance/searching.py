"""search without a query: prefixes, filters, order and pages; part of `StoreConformance`."""

# ruff: noqa: S101

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.base import BaseStore, PutOp

ADA = ("acme", "ada")

VALUES: dict[str, dict[str, Any]] = {
    "a": {"n": 2, "tag": "x", "list": ["one", {"two": 2}], "yes": True},
    "b": {"n": 10, "tag": "y", "dict": {"deep": {"er": 1}}, "yes": 1},
    "c": {"n": 100, "tag": None, "list": [], "f": 9.5},
    "d": {"n": -9, "quo\"te'": "%s {0}", "yes": False},
}

FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, "abcd"),
    "number": ({"n": 10}, "b"),
    "text": ({"tag": "x"}, "a"),
    "true": ({"yes": True}, "a"),
    "null": ({"tag": None}, "cd"),
    "list": ({"list": ["one", {"two": 2}]}, "a"),
    "dict": ({"dict": {"deep": {"er": 1}}}, "b"),
    "odd name": ({"quo\"te'": "%s {0}"}, "d"),
    "two fields": ({"n": 10, "tag": "y"}, "b"),
    "eq": ({"n": {"$eq": 100}}, "c"),
    "ne": ({"n": {"$ne": 10}}, "acd"),
    "ne of a missing field": ({"tag": {"$ne": "x"}}, "bcd"),
    "gt": ({"n": {"$gt": 9}}, "bc"),
    "gte": ({"n": {"$gte": 10}}, "bc"),
    "lt": ({"n": {"$lt": 3}}, "ad"),
    "lte": ({"n": {"$lte": 2}}, "ad"),
    "range": ({"n": {"$gte": 2, "$lt": 100}}, "ab"),
    "fraction": ({"f": {"$lt": 10}}, "c"),
}


class SearchingConformance:
    @pytest.mark.parametrize(("condition", "keys"), FILTERS.values(), ids=FILTERS)
    async def test_a_filter_means_what_it_says(
        self, store: BaseStore, condition: dict[str, Any], keys: str
    ) -> None:
        await store.abatch([PutOp(ADA, key, value) for key, value in VALUES.items()])
        found = await store.asearch(ADA, filter=condition)
        assert sorted(item.key for item in found) == list(keys)

    async def test_an_unknown_filter_operator_is_refused(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"n": 1})
        with pytest.raises(ValueError, match=r"\$near"):
            await store.asearch(ADA, filter={"n": {"$near": 1}})

    async def test_a_prefix_is_no_pattern(self, store: BaseStore) -> None:
        spaces = [("acme",), ("acme", "x"), ("acme-corp",), ("acmex",), ("acme_",), ("acme%",), ("ACME",)]
        for n, space in enumerate([*spaces, ("a", "x")]):
            await store.aput(space, "k", {"n": n, "text": "who sees this"})
        for prefix, seen in {
            ("acme",): {0, 1},
            ("acme_",): {4},
            ("acme%",): {5},
            ("_",): set[int](),
            ("a",): {7},
        }.items():
            assert {item.value["n"] for item in await store.asearch(prefix)} == seen
        assert len(await store.asearch(())) == len(spaces) + 1

    async def test_the_last_changed_comes_first(self, store: BaseStore) -> None:
        for key in ("a", "b", "c"):
            await store.aput(ADA, key, {"text": key})
        await store.aput(ADA, "a", {"text": "again"})
        assert [item.key for item in await store.asearch(("acme",))] == ["a", "c", "b"]

    async def test_pages_are_disjoint_and_complete(self, store: BaseStore) -> None:
        for n in range(4):
            await store.abatch([PutOp(ADA, f"{n}{m}", {"n": n, "m": m}) for m in range(6)])
        for condition, total in ((None, 24), ({"n": {"$ne": 2}}, 18)):
            offsets = range(0, 30, 5)
            pages = [await store.asearch(ADA, filter=condition, limit=5, offset=n) for n in offsets]
            assert [len(page) for page in pages] == [min(5, max(total - n, 0)) for n in offsets]
            assert len({item.key for page in pages for item in page}) == total
        assert await store.asearch(ADA, limit=0) == []

    async def test_without_a_query_there_is_no_score(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "likes tea"})
        assert [item.score for item in await store.asearch(ADA)] == [None]
