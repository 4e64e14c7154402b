"""list_namespaces, and which namespaces there can be; part of `StoreConformance`."""

# ruff: noqa: S101

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)

ADA = ("acme", "ada")
SPACES = [("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "f"), ("a", "x", "c"), ("z",)]
LABELS: dict[str, tuple[Any, ...]] = {
    "dot": ("a.b",),
    "empty": ("a", ""),
    "NUL": ("a", "b\0"),
    "number": ("a", 1),
}


class NamespacesConformance:
    @pytest.mark.parametrize("namespace", LABELS.values(), ids=LABELS)
    async def test_a_label_with_a_dot_or_without_a_letter_is_refused(
        self, store: BaseStore, namespace: tuple[Any, ...]
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

    @pytest.mark.parametrize("namespace", [(), ("langgraph", "x")], ids=["nowhere", "LangGraph's"])
    async def test_a_namespace_that_nobody_may_use_is_refused(
        self, store: BaseStore, namespace: tuple[str, ...]
    ) -> None:
        with pytest.raises(InvalidNamespaceError):
            await store.aput(namespace, "k", {})

    async def test_they_are_listed_by_prefix_and_suffix(self, store: BaseStore) -> None:
        await store.abatch([PutOp(space, "k", {"at": n}) for n, space in enumerate(SPACES)])
        assert await store.alist_namespaces() == SPACES
        assert await store.alist_namespaces(prefix=("a", "b")) == SPACES[:3]
        assert await store.alist_namespaces(suffix=("c",)) == [SPACES[0], SPACES[3]]
        assert await store.alist_namespaces(prefix=("a",), suffix=("d", "e")) == [SPACES[1]]
        assert await store.alist_namespaces(prefix=("a", "b", "c", "d")) == []

    async def test_a_star_stands_for_one_label(self, store: BaseStore) -> None:
        await store.abatch([PutOp(space, "k", {"at": n}) for n, space in enumerate(SPACES)])
        assert await store.alist_namespaces(prefix=("a", "*", "c")) == [SPACES[0], SPACES[3]]
        assert await store.alist_namespaces(prefix=("a",), suffix=("*", "e")) == [SPACES[1]]

    async def test_their_depth_can_be_cut(self, store: BaseStore) -> None:
        await store.abatch([PutOp(space, "k", {"at": n}) for n, space in enumerate(SPACES)])
        assert await store.alist_namespaces(max_depth=2) == [("a", "b"), ("a", "x"), ("z",)]
        assert await store.alist_namespaces(max_depth=2, limit=1, offset=1) == [("a", "x")]

    async def test_their_pages_are_disjoint_and_complete(self, store: BaseStore) -> None:
        await store.abatch([PutOp(space, "k", {"at": n}) for n, space in enumerate(SPACES)])
        pages = [await store.alist_namespaces(limit=2, offset=offset) for offset in (0, 2, 4)]
        assert [space for page in pages for space in page] == SPACES

    async def test_a_prefix_is_whole_labels(self, store: BaseStore) -> None:
        for space in (("acme",), ("acme-corp",), ("acme_",), ("acmex", "y")):
            await store.aput(space, "k", {})
        assert await store.alist_namespaces(prefix=("acme",)) == [("acme",)]
        assert await store.alist_namespaces(suffix=("corp",)) == []
        assert await store.alist_namespaces(prefix=("acme_",)) == [("acme_",)]

    async def test_one_without_items_is_not_listed(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {})
        await store.adelete(ADA, "k")
        assert await store.alist_namespaces() == []
