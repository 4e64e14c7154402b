"""get, put, delete and batch; part of `StoreConformance`."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from langgraph.store.base import BaseStore, GetOp, ListNamespacesOp, PutOp, SearchOp

ADA = ("acme", "ada")
KEYS = {
    "empty": "",
    "blanks": " k ",
    "capital": "K",
    "percent": "100%",
    "underscore": "a_b",
    "quotes": "'; DROP TABLE store; --",
    "letters": "ü/猫",
    "dot": "a.b",
}
ODD = {
    "NaN": float("nan"),
    "infinity": float("-inf"),
    "NUL": "nul\0",
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "bytes": b"bytes",
    "key that is no text": {1: "one"},
}


class ItemsConformance:
    async def test_get_returns_what_was_put(self, store: BaseStore) -> None:
        value = {"n": 1, "f": 0.5, "none": None, "yes": True, "list": [1, "two", {"three": []}], "ü": "猫 😀"}
        await store.aput(ADA, "k", value)
        item = await store.aget(ADA, "k")
        assert item is not None
        assert (item.namespace, item.key, item.value) == (ADA, "k", value)
        assert item.created_at.tzinfo is not None
        assert item.updated_at >= item.created_at
        assert await store.aget(ADA, "other") is None
        assert await store.aget(("acme",), "k") is None

    async def test_an_empty_value_is_a_value(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {})
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {}

    async def test_numbers_stay_the_numbers_they_were(self, store: BaseStore) -> None:
        value = {"big": 2**53 + 1, "huge": 10**30, "small": 1e-300, "tenth": 0.1, "minus": -3, "yes": True}
        await store.aput(ADA, "k", value)
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == value
        assert {name: type(number) for name, number in item.value.items()} == {
            name: type(number) for name, number in value.items()
        }

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    async def test_a_key_is_any_text(self, store: BaseStore, key: str) -> None:
        await store.aput(ADA, "k", {"key": "another"})
        await store.aput(ADA, key, {"key": key})
        item = await store.aget(ADA, key)
        assert item is not None
        assert (item.key, item.value) == (key, {"key": key})
        await store.adelete(ADA, key)
        assert [item.key for item in await store.asearch(ADA)] == ["k"]

    async def test_overwriting_replaces_the_whole_value(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "old", "extra": 1})
        await store.aput(ADA, "k", {"text": "new"})
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {"text": "new"}

    async def test_overwriting_keeps_the_time_of_creation(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "old"})
        first = await store.aget(ADA, "k")
        await store.aput(ADA, "k", {"text": "new"})
        second = await store.aget(ADA, "k")
        assert first is not None
        assert second is not None
        assert second.created_at == first.created_at
        assert second.updated_at > first.updated_at

    async def test_delete_removes_and_is_quiet_about_what_is_not_there(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "gone soon"})
        await store.adelete(ADA, "k")
        await store.adelete(ADA, "never was")
        assert await store.aget(ADA, "k") is None
        assert await store.asearch(ADA) == []

    async def test_callers_cannot_change_what_is_stored(self, store: BaseStore) -> None:
        value: dict[str, Any] = {"list": [1], "dict": {"a": 1}}
        await store.aput(ADA, "k", value)
        value["list"].append(2)
        item = await store.aget(ADA, "k")
        assert item is not None
        item.value["dict"]["a"] = 2
        (found,) = await store.asearch(ADA)
        found.value["list"].append(3)
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {"list": [1], "dict": {"a": 1}}

    async def test_a_batch_answers_in_the_order_it_was_asked(self, store: BaseStore) -> None:
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

    async def test_reads_of_a_batch_see_the_state_before_its_writes(self, store: BaseStore) -> None:
        results = await store.abatch([PutOp(ADA, "k", {"text": "new"}), GetOp(ADA, "k"), SearchOp(ADA)])
        assert results == [None, None, []]
        results = await store.abatch([PutOp(ADA, "k", None), GetOp(ADA, "k")])
        assert results[1] is not None
        assert await store.aget(ADA, "k") is None

    async def test_of_several_puts_on_one_key_the_last_wins(self, store: BaseStore) -> None:
        await store.abatch(
            [PutOp(ADA, "k", {"n": 1}), PutOp(ADA, "gone", {"n": 1}), PutOp(ADA, "k", {"n": 2})]
        )
        await store.abatch([PutOp(ADA, "gone", {"n": 3}), PutOp(ADA, "gone", None)])
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value == {"n": 2}
        assert await store.aget(ADA, "gone") is None

    async def test_an_unknown_operation_is_refused(self, store: BaseStore) -> None:
        with pytest.raises((ValueError, TypeError)):
            await store.abatch([PutOp(ADA, "k", {}), "drop everything"])  # type: ignore[list-item]
        assert await store.aget(ADA, "k") is None

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    async def test_what_is_no_json_is_kept_as_it_is_or_refused_with_all_of_its_batch(
        self, store: BaseStore, odd: object
    ) -> None:
        try:
            await store.abatch([PutOp(ADA, "good", {"n": 1}), PutOp(ADA, "odd", {"deep": [odd]})])
        except (ValueError, TypeError):
            assert await store.asearch(ADA) == []
        else:
            item = await store.aget(ADA, "odd")
            assert item is not None
            assert repr(item.value) == repr({"deep": [odd]})  # NaN is not equal to itself

    async def test_many_may_write_at_once(self, store: BaseStore) -> None:
        await asyncio.gather(*(store.aput(ADA, f"k{n % 10}", {"n": n}) for n in range(40)))
        found = await store.asearch(ADA, limit=50)
        assert sorted(item.key for item in found) == [f"k{n}" for n in range(10)]
        assert all(item.value["n"] % 10 == int(item.key[1:]) for item in found)
