"""What `export` and `import_` promise: the same again, all or nothing; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.store.base import InvalidNamespaceError, PutOp

from memgraph_plugin.errors import InvalidExport, NamespaceTaken
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing.embeddings import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, NoOp, Update

ANA = ("people", "ana")
ODD = ("people", "Ж 漢 %_'\"")


async def filled(store: MemoryStore) -> None:
    """Something of everything that a store keeps."""
    later = datetime.now(UTC) + timedelta(days=2)
    full = Insert(
        key="full",
        kind="episodic",
        text="Ana moved to Faro\u2028\x85 in 'May'; \\N \t",
        value={"b": 1.5, "a": [None, True, "\u2029"], "": {}, "n": 12345678901234567890},
        session="s1",
        position=3,
        importance=0.1,
        source="chat",
        language="simple",
        valid_from=datetime(2026, 5, 8, tzinfo=UTC),
        expires_at=later,
        evidence=("t1", "t2"),
        reason="she said so",
    )
    nothing = NoOp(reason="small talk")
    await store.aapply(ANA, [full, nothing], idempotency_key="turn-1", actor="graph", policy="r")
    await store.aapply(ANA, [Insert(key="gone", text="likes tea"), Insert(key="back", text="likes milk")])
    await store.aapply(ANA, [Update(key="full", text="Ana lives in Faro", mode="refine"), Delete(key="none")])
    await store.aapply(ANA, [Delete(key="gone", reason="asked to"), Delete(key="back")])
    await store.aapply(ANA, [Insert(key="back", text="likes milk again"), Insert(key="blank", text=" ")])
    await store.aapply(ODD, [Insert(key="k.\n'", text="a borzoi")])
    await store.abatch([PutOp((*ANA, "put"), "k", {"text": "by LangGraph"}, ttl=60)])


async def exported(store: MemoryStore, *, vectors: bool = False) -> list[str]:
    return [line async for line in store.aexport(vectors=vectors)]


def body(lines: list[str]) -> list[str]:
    """The lines that are the same wherever they come from."""
    return lines[1:-1]


class PortabilityContract:
    """export and import_."""

    @pytest.mark.parametrize("vectors", [False, True])
    async def test_an_export_imported_is_the_same_export_there_and_back(
        self, store: MemoryStore, vectors: bool
    ) -> None:
        await filled(store)
        there = InMemoryMemoryStore(embeddings=HashingEmbeddings())
        lines = await exported(store, vectors=vectors)
        done = await there.aimport(iter(lines))
        assert (done.batches, done.versions, done.memories, done.skipped) == (7, 10, 5, 0)
        assert done.embedded == (0 if vectors else 4)
        theirs = await exported(there, vectors=True)
        assert body(await exported(store, vectors=True)) == body(theirs)
        await store.aforget(("people",))
        assert (await store.aimport(iter(theirs))).memories == 5
        assert body(await exported(store, vectors=True)) == body(theirs)

    async def test_what_was_imported_works_as_before(self, store: MemoryStore) -> None:
        await filled(store)
        lines, history = await exported(store), await store.ahistory(ANA, "back")
        hits = await store.arecall(ANA, "where does Ana live")
        await store.aforget(("people",))
        await store.aimport(lines)
        assert await store.ahistory(ANA, "back") == history
        again = await store.arecall(ANA, "where does Ana live")
        assert [hit.memory for hit in again] == [hit.memory for hit in hits]
        assert [hit.score for hit in again] == pytest.approx([hit.score for hit in hits])
        assert (await store.aapply(ANA, [], idempotency_key="turn-1")).replayed
        await store.aapply(ANA, [Update(key="full", text="Ana lives in Porto")])
        assert [line.version for line in await store.ahistory(ANA, "full")] == [1, 2, 3]
        await store.aapply(ANA, [Insert(key="gone", text="likes tea again")])
        assert (await store.ahistory(ANA, "gone"))[-1].version == 3

    async def test_the_past_comes_along(self, store: MemoryStore) -> None:
        end = datetime(2026, 8, 1, tzinfo=UTC)
        await store.aapply(ANA, [Insert(key="home", text="lives in Faro", valid_to=end, language="simple")])
        moved = datetime(2026, 3, 1, tzinfo=UTC)
        await store.aapply(
            ANA, [Update(key="home", text="lives in Porto", mode="supersede", valid_from=moved)]
        )
        wrong = await store.aapply(ANA, [Update(key="home", text="lives in Lisbon", mode="correct")])
        await store.aundo(ANA, wrong.batch_id, actor="support")
        soon = datetime.now(UTC) + timedelta(hours=1)
        await store.aapply(ANA, [Insert(key="code", text="the code is 7", expires_at=soon)])
        gone = await store.aapply(ANA, [Delete(key="code", reason="used")])
        told = [batch.recorded_at for batch in await store.alog(ANA)]

        async def past() -> list[Any]:
            asked = [None, moved - timedelta(days=1), moved, end, soon]
            return [
                await store.ahistory(ANA, "home"),
                await store.ahistory(ANA, "code"),
                await store.alog(ANA),
                [await store.aas_of(ANA, valid_at=at, known_at=known) for at in asked for known in told],
            ]

        before, lines = await past(), await exported(store)
        assert before[0][0].superseded_by == 4
        assert before[0][-1].restores == 2
        there = InMemoryMemoryStore(embeddings=HashingEmbeddings())
        await there.aimport(lines)
        await store.aforget(ANA)
        await store.aimport(there.aexport())
        assert await past() == before
        assert body(await exported(store)) == body(lines)
        assert [receipt.status for receipt in (await store.aundo(ANA, gone.batch_id)).receipts] == ["applied"]
        back = (await store.ahistory(ANA, "code"))[-1].memory
        assert back is not None
        assert (back.text, back.expires_at) == ("the code is 7", soon)

    async def test_an_import_again_does_nothing_and_other_memories_are_not_mixed(
        self, store: MemoryStore
    ) -> None:
        await filled(store)
        lines = await exported(store)
        done = await store.aimport(lines)
        assert (done.batches, done.versions, done.memories, done.skipped) == (0, 0, 0, 17)
        await store.aapply(ODD, [Insert(key="new", text="said since")])
        await store.aforget(ANA)
        with pytest.raises(NamespaceTaken, match=r"people\.Ж 漢"):
            await store.aimport(lines)
        assert await store.alist_namespaces() == [ODD]

    async def test_a_part_is_exported_by_its_prefix(self, store: MemoryStore) -> None:
        await filled(store)
        lines = [json.loads(line) async for line in store.aexport((*ANA, "put"))]
        assert lines[0]["namespace"] == [*ANA, "put"]
        assert [next(iter(line)) for line in lines[1:]] == ["batch", "version", "end"]
        assert [line async for line in store.aexport(("nobody",))][1:][0].startswith('{"end"')
        with pytest.raises(InvalidNamespaceError):
            _ = [line async for line in store.aexport(("a.b",))]

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda lines: lines[:-1], "breaks off after line 18"),
            (lambda lines: [*lines[:-1], lines[-1][:20]], "Line 19: is not JSON"),
            (lambda lines: lines[:0], "no lines"),
            (lambda lines: ["", *lines], "Line 1: is not JSON"),
            (lambda lines: ['{"text": "hi"}', *lines], "Line 1: .*not an export"),
            (lambda lines: [lines[0].replace('"number":1', '"number":2'), *lines[1:]], "format 2.*upgrade"),
            (lambda lines: [*lines[:3], *lines[4:]], "Line 18: the lines before"),
            (lambda lines: [*lines[:4], lines[3], *lines[4:]], "Line 5: is out of order, or there twice"),
            (lambda lines: [*lines, lines[3]], "Line 20: comes after the end"),
            (
                lambda lines: [line.replace("likes tea", "likes rum") for line in lines],
                "Line 19: the lines before",
            ),
        ],
        ids=[
            "no end",
            "half a line",
            "empty",
            "blank",
            "foreign",
            "newer",
            "lost",
            "twice",
            "more",
            "changed",
        ],
    )
    async def test_what_is_no_whole_export_is_refused_by_its_line(
        self, store: MemoryStore, spoil: Callable[[list[str]], list[str]], said: str
    ) -> None:
        other = InMemoryMemoryStore(embeddings=HashingEmbeddings())
        await filled(other)
        with pytest.raises(InvalidExport, match=said):
            await store.aimport(spoil(await exported(other)))
        assert await exported(store) != []
        assert len(await exported(store)) == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"key": "x" * 2_000},
            {"key": "nul\0"},
            {"key": None},
            {"version": 0},
            {"version": 2**31},
            {"version": True},
            {"namespace": ["people.ana"]},
            {"namespace": []},
            {"namespace": "people"},
            {"evidence": "text"},
            {"evidence": [1]},
            {"mode": "rewrite"},
            {"operation": ["insert"]},
            {"recorded_at": "2026-01-01"},
            {"recorded_at": 7},
            {"recorded_at": "0001-01-01T00:00:00+14:00"},
            {"batch": "not-a-uuid"},
            {"batch": 7},
            {"batch": "00000000-0000-0000-0000-000000000000"},
            {"reason": "$sealed:x"},
            {"memory": None},
            {"memory": {}},
            {"extra": 1},
            {"value": []},
            {"value": {"$sealed": "x"}},
            {"importance": 1e300},
            {"position": 2**40},
            {"text": "\ud800"},
            {"created_at": None},
            {"ttl": "soon"},
            {"restores": 1},
            {"valid_to": "9999-12-31T23:59:59+00:00"},
            {"vector": "AAAA?"},
        ],
        ids=repr,
    )
    async def test_nothing_in_an_export_is_believed(self, store: MemoryStore, change: dict[str, Any]) -> None:
        other = InMemoryMemoryStore(embeddings=HashingEmbeddings())
        await other.aapply(("people", "ana"), [Insert(key="k", text="likes tea")])
        lines = await exported(other)
        with pytest.raises(InvalidExport, match=r"Nothing was imported\."):
            await store.aimport(forged(lines, change))
        assert len(await exported(store)) == 2


def forged(lines: list[str], change: dict[str, Any]) -> list[str]:
    """The export of one memory with something changed in its version, and a footer that fits."""
    line = json.loads(lines[2])
    version = line["version"]
    for name, value in change.items():
        parts = (version, version["memory"], version["current"] | {"vector": ""})
        home = next((part for part in parts if name in part), version)
        (version["current"] if home is parts[2] else home)[name] = value
    changed = [*lines[:2], json.dumps(line)]
    digest = hashlib.sha256("".join(f"{each}\n" for each in changed).encode("utf-8", "replace")).hexdigest()
    end = {"batches": 1, "versions": 1, "memories": 1, "sha256": digest}
    return [*changed, json.dumps({"end": end})]
