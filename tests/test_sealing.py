"""Sealed memories: the cipher by itself, and a store whose database cannot read them."""

from __future__ import annotations

import base64

import psycopg
import pytest

from memgraph_plugin.errors import ConfigurationError, InvalidValue, SealBroken
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.store.resealing import reseal
from memgraph_plugin.store.sealing import AesGcmSealer, new_key
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, NoOp, Update

ANN = ("memories", "ann")
OLD, NEW = new_key("2025"), new_key("2026")


def test_what_was_sealed_opens_at_its_place_alone() -> None:
    sealer = AesGcmSealer.parse(OLD)
    sealed = sealer.seal(b"likes tea", b"ann\0k")
    assert sealed != sealer.seal(b"likes tea", b"ann\0k")
    assert "likes" not in sealed
    assert b"likes tea" not in base64.b64decode(sealed.partition(":")[2], validate=True)
    assert sealer.open(sealed, b"ann\0k") == b"likes tea"
    with pytest.raises(SealBroken, match="changed or moved"):
        sealer.open(sealed, b"bob\0k")


def test_older_keys_open_and_the_first_one_seals() -> None:
    old, both = AesGcmSealer.parse(OLD), AesGcmSealer.parse(f"{NEW}, {OLD}")
    sealed = old.seal(b"x", b"")
    assert both.open(sealed, b"") == b"x"
    assert not both.is_current(sealed)
    assert both.is_current(both.seal(b"x", b""))
    with pytest.raises(SealBroken, match="'2026', which was not given"):
        old.open(both.seal(b"x", b""), b"")


def test_another_key_of_the_same_name_and_a_changed_text_are_refused() -> None:
    sealed = AesGcmSealer.parse(OLD).seal(b"x", b"")
    with pytest.raises(SealBroken):
        AesGcmSealer.parse(new_key("2025")).open(sealed, b"")
    for broken in (sealed[:-8], sealed + "AAAA", "2025:", "2025:!", ""):
        with pytest.raises(SealBroken):
            AesGcmSealer.parse(OLD).open(broken, b"")


@pytest.mark.parametrize("keys", ["", "x", "x:", "x:secret!", "x:c2hvcnQ=", ":" + OLD.partition(":")[2]])
def test_a_key_that_is_none_is_refused_and_not_quoted(keys: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AesGcmSealer.parse(keys)
    assert "secret" not in str(caught.value)
    assert base64.b64encode(b"short").decode() not in str(caught.value)


def store_of(dsn: str, keys: str | None) -> PostgresMemoryStore:
    sealer = AesGcmSealer.parse(keys) if keys else None
    return PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(), sealer=sealer)


def everything(dsn: str) -> str:
    with psycopg.connect(dsn) as conn:
        tables = ("memory", "memory_version", "operation_batch")
        return str([conn.execute(f"SELECT * FROM memgraph_plugin.{t}".encode()).fetchall() for t in tables])


def fill(store: PostgresMemoryStore) -> None:
    store.apply(
        ANN,
        [
            Insert(key="a", text="walks her canary", value={"where": "canary wharf"}, reason="canary said"),
            Insert(key="gone", text="a canary that is to be forgotten"),
            NoOp(reason="the canary again"),
        ],
        idempotency_key="turn-1",
    )
    store.apply(ANN, [Update(key="a", text="walks her dog", mode="supersede"), Delete(key="gone")])
    store.put(ANN, "put", {"text": "a canary by put", "n": 1})


def test_the_database_sees_no_text_and_the_store_all_of_it(dsn: str) -> None:
    with store_of(dsn, OLD) as store:
        fill(store)
        assert "canary" not in everything(dsn)
        assert store.get(ANN, "put").value == {"text": "a canary by put", "n": 1}
        lines = store.history(ANN, "a")
        assert [line.memory.text for line in lines] == ["walks her canary", "walks her dog"]
        assert lines[0].memory.value == {"where": "canary wharf"}
        assert lines[0].reason == "canary said"
        replayed = store.apply(ANN, [], idempotency_key="turn-1")
        assert replayed.receipts[2].reason == "the canary again"
        assert {hit.memory.text for hit in store.recall(ANN, "")} == {"walks her dog", "a canary by put"}
        best = store.recall(ANN, "canary by put")[0]
        assert (best.memory.key, best.bm25) == ("put", None)
        assert best.cosine
        assert store.search(ANN, query="walks her dog")[0].value == {"where": "canary wharf"}


async def test_the_async_store_seals_too(dsn: str) -> None:
    sealer = AesGcmSealer.parse(OLD)
    async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings(), sealer=sealer) as store:
        await store.aput(ANN, "k", {"text": "a canary"})
        assert (await store.arecall(ANN, "canary"))[0].memory.text == "a canary"
    assert "canary" not in everything(dsn)


def test_what_the_database_cannot_do_is_refused(dsn: str) -> None:
    with store_of(dsn, OLD) as store:
        store.put(ANN, "k", {"text": "tea", "n": 1})
        with pytest.raises(ConfigurationError, match="cannot filter"):
            store.search(ANN, filter={"n": 1})
        with pytest.raises(ConfigurationError, match="cannot filter"):
            store.recall(ANN, "tea", filter={"n": 1})
    with pytest.raises(ConfigurationError, match="embeddings"):
        PostgresMemoryStore(dsn, sealer=AesGcmSealer.parse(OLD))


def test_without_the_key_nothing_is_read_and_nothing_overwritten(dsn: str) -> None:
    with store_of(dsn, OLD) as store:
        fill(store)
    for keys in (None, NEW):
        with store_of(dsn, keys) as store:
            with pytest.raises(SealBroken):
                store.recall(ANN, "canary")
            with pytest.raises(SealBroken):
                store.apply(ANN, [Update(key="a", text="walks a cat")])
    with store_of(dsn, OLD) as store:
        assert store.recall(ANN, "dog")[0].memory.text == "walks her dog"


def test_a_sealed_memory_that_was_moved_does_not_open(dsn: str) -> None:
    with store_of(dsn, OLD) as store:
        fill(store)
        with psycopg.connect(dsn) as conn:
            conn.execute("UPDATE memgraph_plugin.memory SET namespace = 'memories.bob' WHERE key = 'put'")
        with pytest.raises(SealBroken, match="changed or moved"):
            store.get(("memories", "bob"), "put")


def test_what_was_clear_is_sealed_and_keys_are_changed(dsn: str) -> None:
    with store_of(dsn, None) as store:
        fill(store)
        before = store.history(ANN, "a")
    assert "canary" in everything(dsn)
    seen: list[tuple[int, int]] = []
    assert reseal(dsn, "memgraph_plugin", AesGcmSealer.parse(OLD), progress=lambda *now: seen.append(now))
    assert seen[-1][0] == seen[-1][1]
    assert "canary" not in everything(dsn)
    with pytest.raises(SealBroken, match="not given"):
        reseal(dsn, "memgraph_plugin", AesGcmSealer.parse(NEW))
    both = AesGcmSealer.parse(f"{NEW},{OLD}")
    assert reseal(dsn, "memgraph_plugin", both)
    assert reseal(dsn, "memgraph_plugin", both) == 0
    with store_of(dsn, NEW) as store:
        assert store.history(ANN, "a") == before
        assert store.apply(ANN, [], idempotency_key="turn-1").receipts[2].reason == "the canary again"
        store.apply(ANN, [Update(key="a", text="walks a cat")])
        assert store.recall(ANN, "cat")[0].memory.text == "walks a cat"


@pytest.mark.parametrize("keys", [None, OLD])
def test_the_mark_of_sealed_memories_cannot_be_written(dsn: str, keys: str | None) -> None:
    with store_of(dsn, keys) as store:
        with pytest.raises(InvalidValue, match="marks sealed"):
            store.put(ANN, "k", {"$sealed": "x"})
        with pytest.raises(InvalidValue, match="marks sealed"):
            store.apply(ANN, [NoOp(reason="$sealed:x")])
