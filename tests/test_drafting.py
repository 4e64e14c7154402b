"""Who drafts clues about documents: from gists and memories in the store, read once for each version."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import BaseMessage

from memgraph_plugin import drafting
from memgraph_plugin.drafting import DocumentsDrafter, Opened
from memgraph_plugin.errors import FingerprintMismatch
from memgraph_plugin.memorag.clues import Ask
from memgraph_plugin.memorag.compressor import Compressor
from memgraph_plugin.memorag.gist import FORMAT, Gist, from_bytes, to_bytes
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.memorizing import compress, document_records, forget_documents, keep_gists
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import ScriptedChatModel
from memgraph_plugin.types import Document, Insert, KVRecord
from tests.tiny_models import tiny

WHERE = ("memories", "ana", "documents")
ASK = Ask(query="Where is the seal?", scenario="vague")
SPEC = MemorySpec(window=32, ratio=4, scorer="keydiff", sinks=2)
ABOUT = {"memory_model": "test"}
CLUES = '{"spans": ["The seal is in a tin."], "questions": [], "entities": [], "time": []}'


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[MemoryStore]:
    if request.param == "memory":
        yield InMemoryMemoryStore()
        return
    with PostgresMemoryStore(request.getfixturevalue("shared_dsn")) as store:
        yield store


def chapters(numbers: Any) -> str:
    return "\n\n".join(f"Chapter {n}. " + f"Ann walked to town number {n}. " * 12 for n in numbers)


def echo(messages: list[BaseMessage]) -> str:
    """A gist that names its chapter; a "Z" says who was asked."""
    return "About " + messages[0].text.split("Chapter ")[1].partition(".")[0]


def teller(*replies: Any) -> ScriptedChatModel:
    return ScriptedChatModel(replies=list(replies) or [echo], repeat_last=True)


def document(text: str, name: str = "book.txt") -> Document:
    return Document(id=f"/{name}", name=name, pages=(text,))


def keep(store: MemoryStore, text: str, model: ScriptedChatModel, **changes: Any) -> KVRecord:
    how: dict[str, Any] = {"about": ABOUT, "tokens": 110, **changes}
    return keep_gists(store, WHERE, document(text), model, **how)


def told(store: MemoryStore) -> list[str]:
    (record,) = document_records(store, WHERE)
    return [gist.text for gist in from_bytes(store.kv_parts(WHERE, record.key), record.header["digests"])]


def test_gists_are_kept_once_and_follow_their_document(store) -> None:
    model, progress = teller(), list[tuple[int, int]]()
    first = keep(store, chapters(range(6)), model, progress=lambda *each: progress.append(each))
    assert told(store) == [f"About {n}" for n in range(6)]
    assert progress[-1] == (6, 6)
    again = keep(store, chapters(range(6)), model)
    assert (again.version, model.calls) == (first.version, 6)
    changed = keep(store, chapters([9, 0, 1, 3, 4, 5, 10]), model)
    assert told(store) == [f"About {n}" for n in (9, 0, 1, 3, 4, 5, 10)]
    assert (changed.windows, model.calls) == (7, 8), "only what is new is asked for, and nothing stale stays"
    assert forget_documents(store, WHERE, "/book.txt") == ["/book.txt"]
    assert document_records(store, WHERE) == []


def test_gists_that_were_stopped_go_on_though_the_document_has_changed(store) -> None:
    stopped = teller(echo, echo, echo, echo, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        keep(store, chapters(range(6)), stopped)
    assert told(store) == [f"About {n}" for n in range(4)]
    model = teller()
    keep(store, chapters([0, 2, 3, 4, 5]), model)
    assert told(store) == [f"About {n}" for n in (0, 2, 3, 4, 5)]
    assert model.calls == 2


def test_the_gists_of_another_model_are_made_anew_and_the_log_says_so(store, caplog) -> None:
    keep(store, chapters(range(3)), teller())
    other = teller("Other.")
    keep(store, chapters(range(3)), other, about={"memory_model": "other"})
    assert (told(store), other.calls) == (["Other."] * 3, 3)
    assert "by another model" in caplog.text
    compress(store, WHERE, document(chapters(range(2))), Compressor(tiny(), SPEC))
    keep(store, chapters(range(2)), teller())
    assert told(store) == ["About 0", "About 1"]


def test_broken_gists_are_made_anew(store, monkeypatch, caplog) -> None:
    keep(store, chapters(range(2)), teller())
    with monkeypatch.context() as broken:
        broken.setattr(store, "kv_parts", lambda *_, **__: iter([b"\xff", b"{}"]))
        keep(store, chapters(range(3)), teller())
    assert "no gists" in caplog.text
    assert told(store) == ["About 0", "About 1", "About 2"]
    with pytest.raises(FingerprintMismatch):
        from_bytes([b"[1]"], [])
    strange = Gist(0, "d", "half a \ud83d letter")
    assert from_bytes([to_bytes(strange)], ["d"])[0].text.startswith("half a ")


async def test_a_chat_model_drafts_from_the_gists_of_what_is_found_first(store, monkeypatch) -> None:
    monkeypatch.setattr(drafting, "MOST_NOTES", 60)
    for name, word in (("a.txt", "ash"), ("b.txt", "seal"), ("c.txt", "cup")):
        store.apply(WHERE, [Insert(text=f"The {word} of {name}", kind="passage", session=f"/{name}")])
        text = f"The {word}. " + chapters(range(2))
        gist = f"The gist of {name} in a sentence."
        keep_gists(store, WHERE, document(text, name), teller(gist), about=ABOUT)
    compress(store, WHERE, document("Coal. " * 30, "d.txt"), Compressor(tiny(), SPEC))
    chat = teller(CLUES)
    drafter = DocumentsDrafter(store, document_records(store, WHERE), never, lambda _: chat)
    assert [clue.text for clue in await drafter.adraft(ASK)] == ["The seal is in a tin."]
    assert drafter.draft(ASK)[0].kind == "span"
    for prompt in chat.prompts:
        assert "The gist of b.txt" in prompt[-1].text
        assert "The gist of c.txt" not in prompt[-1].text, "there is room for one"


def never(_: Any) -> Compressor:
    raise AssertionError


def test_memories_are_read_and_the_model_hashed_once_until_a_version_changes(store, monkeypatch) -> None:
    read: list[str] = []
    parts, given = store.kv_parts, list[list[int]]()

    class Spied:
        def __init__(self, _: Any, memory: Any, near: float) -> None:
            given.append(memory.tail)

        def draft(self, _: Ask) -> list[Any]:
            return []

    monkeypatch.setattr(drafting, "MemoryModelDrafter", Spied)
    monkeypatch.setattr(
        store, "kv_parts", lambda where, key, **how: read.append(key) or parts(where, key, **how)
    )
    compressor = Compressor(tiny(), SPEC)
    for name, word in (("a.txt", "a"), ("b.txt", "b")):
        store.apply(WHERE, [Insert(text=f"seal {word}", kind="passage", session=f"/{name}")])
        compress(store, WHERE, document(word * 40, name), compressor)
    opened = Opened[Any](1 << 20)

    def ask(query: str) -> None:
        records = document_records(store, WHERE)
        DocumentsDrafter(store, records, lambda _: compressor, never, opened).draft(replace(ASK, query=query))

    ask("seal a")
    ask("seal b")
    tails = [compressor.frame.text(word * 8) for word in "ab"]
    assert given == [[*tails[0], *tails[1]], [*tails[1], *tails[0]]], "the best found first"
    assert len(read) == 2
    compress(store, WHERE, document("a" * 41, "a.txt"), compressor)
    read.clear()
    ask("seal a")
    assert len(read) == 1
    assert given[-1][:9] == compressor.frame.text("a" * 9)


def record(key: str, version: int = 1, size: int = 40, **header: Any) -> KVRecord:
    return KVRecord(
        namespace=WHERE,
        key=key,
        header=header,
        version=version,
        windows=1,
        bytes=size,
        updated_at=datetime.now(UTC),
    )


def test_what_stays_open_is_bounded_and_of_this_version_and_header() -> None:
    opened, read = Opened[int](100), list[int]()

    def get(wanted: KVRecord) -> int:
        return opened.get(wanted, lambda: read.append(len(read)) or len(read))

    assert [get(record("a")), get(record("b")), get(record("a"))] == [1, 2, 1]
    assert get(record("c")) == 3, "b was used longest ago"
    assert [get(record("a")), get(record("b"))] == [1, 4]
    assert get(record("b", version=2)) == 5
    assert get(record("b", version=2, digest="of another database")) == 6
    assert get(record("large", size=1000)) == 7
    assert get(record("large", size=1000)) == 7, "one stays, however large it is"
    assert get(record("b", version=2, digest="of another database")) == 8


def test_many_threads_share_what_one_of_them_reads() -> None:
    opened, read, together = Opened[object](1000), list[str](), threading.Barrier(8)

    def get(key: str) -> object:
        together.wait()
        return opened.get(record(key), lambda: read.append(key) or object())

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(get, "aaaabbbb"))
    assert sorted(read) == ["a", "b"]
    assert len(set(found[:4])) == len(set(found[4:])) == 1


def test_a_read_that_fails_is_tried_again() -> None:
    opened = Opened[int](100)
    with pytest.raises(FingerprintMismatch):
        opened.get(record("a"), fail)
    assert opened.get(record("a"), lambda: 1) == 1


def fail() -> int:
    raise FingerprintMismatch("broken")


def test_the_format_of_gists_says_what_they_are(store) -> None:
    header = keep(store, chapters(range(2)), teller()).header
    assert (header["format"], header["memory_model"], header["name"]) == (FORMAT, "test", "book.txt")
