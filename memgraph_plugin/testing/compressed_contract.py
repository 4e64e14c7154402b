"""What a store promises of compressed memories: all or nothing, bit for bit; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from langgraph.store.base import InvalidNamespaceError

from memgraph_plugin.errors import InvalidValue, MemoryNotFound, StoreError, VersionConflict
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Insert

ANA = ("people", "ana")
HEADER = {"format": "test/1", "tail": [1, 2, 3], "spec": {"window": 512, "beta": 4.0}, "digest": ""}
WINDOWS = [b"\x00\xff" * 500, bytes(range(256)), b"", b"\\x41'%s\n"]


async def windows(store: MemoryStore, namespace: tuple[str, ...] = ANA, key: str = "book") -> list[bytes]:
    return [part async for part in store.akv_parts(namespace, key)]


class CompressedContract:
    """save_kv, load_kv, kv_parts, list_kv and delete_kv."""

    async def test_a_compressed_memory_comes_back_bit_for_bit(self, store: MemoryStore) -> None:
        saved = await store.asave_kv(ANA, "book", HEADER, WINDOWS)
        assert (saved.namespace, saved.key, saved.header) == (ANA, "book", HEADER)
        assert (saved.windows, saved.bytes) == (4, sum(map(len, WINDOWS)))
        assert saved.updated_at.utcoffset() is not None
        assert await store.aload_kv(ANA, "book") == saved
        assert await windows(store) == WINDOWS

    async def test_what_is_large_comes_back_in_one_piece(self, store: MemoryStore) -> None:
        large = bytes(range(256)) * (9 * 4096)  # 9 MiB: more than one part
        await store.asave_kv(ANA, "book", HEADER, [large, b"small"])
        assert await windows(store) == [large, b"small"]

    async def test_there_may_be_no_window_yet(self, store: MemoryStore) -> None:
        """A text that is shorter than one is all in the header."""
        saved = await store.asave_kv(ANA, "note", HEADER, [])
        assert (saved.windows, saved.bytes) == (0, 0)
        assert await windows(store, key="note") == []
        grown = await store.asave_kv(ANA, "note", HEADER, [b"one"], version=saved.version)
        assert await windows(store, key="note") == [b"one"]
        assert grown.windows == 1

    async def test_it_grows_by_windows_that_are_added(self, store: MemoryStore) -> None:
        first = await store.asave_kv(ANA, "book", HEADER, WINDOWS[:1])
        longer = {**HEADER, "tail": [4]}
        second = await store.asave_kv(ANA, "book", longer, iter(WINDOWS[1:]), after=1, version=first.version)
        assert (second.windows, second.bytes) == (4, sum(map(len, WINDOWS)))
        assert second.version != first.version
        third = await store.asave_kv(ANA, "book", HEADER, [], after=4, version=second.version)
        assert (third.windows, third.header) == (4, HEADER), "the tail alone has changed"
        assert await windows(store) == WINDOWS

    async def test_it_is_replaced_whole(self, store: MemoryStore) -> None:
        first = await store.asave_kv(ANA, "book", HEADER, WINDOWS)
        await store.asave_kv(ANA, "other", HEADER, [b"other"])
        second = await store.asave_kv(ANA, "book", {"new": True}, [b"new"], version=first.version)
        assert (second.header, second.windows, second.bytes) == ({"new": True}, 1, 3)
        assert await windows(store) == [b"new"]
        assert await windows(store, key="other") == [b"other"]

    async def test_what_was_not_read_is_not_overwritten(self, store: MemoryStore) -> None:
        with pytest.raises(VersionConflict, match="gone"):
            await store.asave_kv(ANA, "book", HEADER, [b"x"], version=1)
        first = await store.asave_kv(ANA, "book", HEADER, [b"one"])
        second = await store.asave_kv(ANA, "book", HEADER, [b"two"], after=1, version=first.version)
        for stale in (
            {},
            {"version": first.version},
            {"version": first.version, "after": 1},
            {"version": second.version, "after": 1},
            {"version": second.version, "after": 3},
        ):
            with pytest.raises(VersionConflict):
                await store.asave_kv(ANA, "book", {}, [b"stale"], **stale)
        assert await store.aload_kv(ANA, "book") == second
        assert await windows(store) == [b"one", b"two"]

    async def test_of_two_writers_at_once_one_wins(self, store: MemoryStore) -> None:
        async def save(n: int, **where: int) -> int:
            try:
                await store.asave_kv(ANA, "book", {"n": n}, [b"%d" % n] * 3, **where)
            except VersionConflict:
                return 0
            return n

        made = sum(await asyncio.gather(*(save(n) for n in range(1, 6))))
        first = await store.aload_kv(ANA, "book")
        assert first is not None
        assert first.header == {"n": made}
        assert await windows(store) == [b"%d" % made] * 3
        where = {"after": 3, "version": first.version}
        added = sum(await asyncio.gather(*(save(n, **where) for n in range(1, 6))))
        assert await windows(store) == [b"%d" % made] * 3 + [b"%d" % added] * 3

    async def test_one_made_anew_is_not_taken_for_the_one_before(self, store: MemoryStore) -> None:
        first = await store.asave_kv(ANA, "book", HEADER, [b"one"])
        await store.adelete_kv(ANA, "book")
        await asyncio.sleep(0.01)
        await store.asave_kv(ANA, "book", HEADER, [b"of another text"])
        with pytest.raises(VersionConflict):
            await store.asave_kv(ANA, "book", HEADER, [b"two"], after=1, version=first.version)

    async def test_a_save_that_fails_half_way_leaves_nothing(self, store: MemoryStore) -> None:
        def failing() -> Iterator[bytes]:
            yield b"one"
            raise RuntimeError("the model is gone")

        with pytest.raises(RuntimeError, match="the model is gone"):
            await store.asave_kv(ANA, "book", HEADER, failing())
        with pytest.raises(InvalidValue, match="Window 1 is a str"):
            await store.asave_kv(ANA, "book", HEADER, [b"one", "two"])  # type: ignore[list-item]
        assert await store.aload_kv(ANA, "book") is None
        first = await store.asave_kv(ANA, "book", HEADER, [b"kept"])
        for where in ({"after": 1}, {"after": 0}):
            with pytest.raises(RuntimeError):
                await store.asave_kv(ANA, "book", {}, failing(), version=first.version, **where)
        assert await store.aload_kv(ANA, "book") == first
        assert await windows(store) == [b"kept"]

    async def test_the_windows_are_those_of_the_header_that_was_read(self, store: MemoryStore) -> None:
        first = await store.asave_kv(ANA, "book", HEADER, [b"one"])
        second = await store.asave_kv(ANA, "book", HEADER, [b"two"], after=1, version=first.version)
        read = [part async for part in store.akv_parts(ANA, "book", version=second.version)]
        assert read == [b"one", b"two"]
        with pytest.raises(VersionConflict):
            [part async for part in store.akv_parts(ANA, "book", version=first.version)]
        with pytest.raises(MemoryNotFound, match="none"):
            [part async for part in store.akv_parts(ANA, "none")]

    async def test_what_is_being_read_stays_as_it_was(self, store: MemoryStore) -> None:
        first = await store.asave_kv(ANA, "book", HEADER, [b"one", b"two"])
        reading = store.akv_parts(ANA, "book")
        assert await anext(reading) == b"one"
        await store.asave_kv(ANA, "book", HEADER, [b"new"], version=first.version)
        assert [part async for part in reading] == [b"two"]

    async def test_other_namespaces_see_nothing_of_it(self, store: MemoryStore) -> None:
        everywhere = [("acme",), ("acme", "ana"), ("acme-corp",), ("acme-corp", "ana"), ("acme/",), ("acm",)]
        for namespace in everywhere:
            await store.asave_kv(namespace, "k", {"of": list(namespace)}, [".".join(namespace).encode()])
        for namespace in everywhere:
            assert await windows(store, namespace, "k") == [".".join(namespace).encode()]
        assert [each.namespace for each in await store.alist_kv(("acme",))] == [("acme",), ("acme", "ana")]
        assert [each.namespace for each in await store.alist_kv(("acme", "ana"))] == [("acme", "ana")]
        assert len(await store.alist_kv()) == len(everywhere)
        assert await store.alist_kv(("%",)) == []
        assert await store.aload_kv(("acme", "bo"), "k") is None
        assert not await store.adelete_kv(("acme", "bo"), "k")
        assert await store.adelete_kv(("acme",), "k")
        assert [each.namespace for each in await store.alist_kv(("acme",))] == [("acme", "ana")]

    async def test_they_are_listed_in_order(self, store: MemoryStore) -> None:
        saved = [
            await store.asave_kv(namespace, key, {"n": 1}, [b"x"])
            for namespace, key in [((*ANA, "b"), "k"), (ANA, "b"), (ANA, "B"), ((*ANA, "a"), "k"), (ANA, "a")]
        ]
        assert await store.alist_kv(ANA) == [saved[2], saved[4], saved[1], saved[3], saved[0]]

    async def test_a_deleted_one_is_gone_and_may_come_again(self, store: MemoryStore) -> None:
        assert not await store.adelete_kv(ANA, "book")
        await store.asave_kv(ANA, "book", HEADER, WINDOWS)
        await store.asave_kv(ANA, "other", HEADER, [b"other"])
        assert await store.adelete_kv(ANA, "book")
        assert await store.aload_kv(ANA, "book") is None
        with pytest.raises(MemoryNotFound):
            await windows(store)
        await store.asave_kv(ANA, "book", HEADER, [b"again"])
        assert await windows(store) == [b"again"]
        assert await windows(store, key="other") == [b"other"]

    @pytest.mark.parametrize(
        "key",
        ["", " ", "../../etc/passwd", "a.b/c", "%", "'; DROP TABLE memory; --", "\\", "Ж漢🦜", "k" * 1024],
    )
    async def test_a_key_is_any_text(self, store: MemoryStore, key: str) -> None:
        await store.asave_kv(ANA, key, {key: key}, [key.encode()])
        await store.asave_kv(ANA, "beside", {}, [b"beside"])
        assert await windows(store, key=key) == [key.encode()]
        assert [each.key for each in await store.alist_kv(ANA)] == sorted([key, "beside"])
        assert await store.adelete_kv(ANA, key)
        assert await windows(store, key="beside") == [b"beside"]

    async def test_what_cannot_be_stored_is_refused(self, store: MemoryStore) -> None:
        for namespace in [(), ("",), ("people.ana",), "people"]:
            with pytest.raises(InvalidNamespaceError):
                await store.asave_kv(namespace, "k", {}, [])  # type: ignore[arg-type]
        for key in ["nul\0", "\ud800", "k" * 1025, None]:
            with pytest.raises(InvalidValue):
                await store.asave_kv(ANA, key, {}, [])  # type: ignore[arg-type]
        for header in [{"n": float("nan")}, {"t": "\0"}, {"$sealed": "x"}, {"b": b"x"}, None, []]:
            with pytest.raises(InvalidValue):
                await store.asave_kv(ANA, "k", header, [])  # type: ignore[arg-type]
        for where in [
            {"after": 1},
            {"after": -1},
            {"after": True},
            {"version": "1"},
            {"after": 2**70, "version": 1},
        ]:
            with pytest.raises(InvalidValue):
                await store.asave_kv(ANA, "k", {}, [], **where)  # type: ignore[arg-type]
        assert await store.alist_kv() == []

    async def test_a_header_that_was_given_or_read_is_nobody_else_s(self, store: MemoryStore) -> None:
        header = {"tail": [1]}
        saved = await store.asave_kv(ANA, "book", header, [])
        header["tail"].append(2)
        saved.header["tail"].append(3)
        (listed,) = await store.alist_kv(ANA)
        listed.header["tail"].append(4)
        loaded = await store.aload_kv(ANA, "book")
        assert loaded is not None
        assert loaded.header == {"tail": [1]}

    async def test_forgetting_and_deleting_a_namespace_take_them_along(self, store: MemoryStore) -> None:
        beside = ("people", "ana-maria")
        for namespace in (ANA, (*ANA, "work"), beside):
            await store.aapply(namespace, [Insert(key="k", text="likes tea")])
            await store.asave_kv(namespace, "k", HEADER, [b"one", b"two"])
        assert await store.adelete_namespace((*ANA, "work")) == 1
        assert [each.namespace for each in await store.alist_kv()] == [ANA, beside]
        counts = (await store.aforget(ANA)).counts
        assert (counts["kv_memory"], counts["kv_part"]) == (1, 2)
        assert [each.namespace for each in await store.alist_kv()] == [beside]
        assert await windows(store, beside, "k") == [b"one", b"two"]
        with pytest.raises(StoreError):
            await windows(store, ANA, "k")

    async def test_they_are_no_memories(self, store: MemoryStore) -> None:
        await store.asave_kv(ANA, "k", {"text": "likes tea"}, [b"likes tea"])
        assert await store.arecall(ANA, "tea") == []
        assert await store.acount(ANA) == 0
        assert await store.alist_namespaces() == []
        await store.aapply(ANA, [Insert(key="k", text="likes milk")])
        assert await store.adelete_kv(ANA, "k")
        assert [hit.memory.key for hit in await store.arecall(ANA, "milk")] == ["k"]
