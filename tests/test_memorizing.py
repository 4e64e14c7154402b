"""Documents into memory: passages that follow their document, and compressed memories that resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="needs the extra documents")

import torch

from memgraph_plugin import memorizing
from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.integrations.llama_index import passages_of
from memgraph_plugin.memorag import saved
from memgraph_plugin.memorag.compressor import Compressor
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.nodes import memorize
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Document
from tests.files import HANDBOOK
from tests.tiny_models import tiny

WHERE = ("memories", "ana", "documents")
BOOK = HANDBOOK * 2
SPEC = MemorySpec(window=64, ratio=4, scorer="keydiff", sinks=2)


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[MemoryStore]:
    if request.param == "memory":
        yield InMemoryMemoryStore(embeddings=HashingEmbeddings())
        return
    with PostgresMemoryStore(request.getfixturevalue("shared_dsn"), embeddings=HashingEmbeddings()) as store:
        yield store


@pytest.fixture
def compressor() -> Compressor:
    return Compressor(tiny(), SPEC)


def document(text: str, name: str = "handbook.md") -> Document:
    return Document(id=f"/papers/{name}", name=name, pages=(text,))


def write(store: MemoryStore, text: str, name: str = "handbook.md", **options: Any) -> memorize.Written:
    passages = passages_of(document(text, name))
    held = memorize.held_passages(store, WHERE).get(f"/papers/{name}", set())
    return memorize.write_passages(store, WHERE, passages, held, **options)


def texts(store: MemoryStore, name: str = "handbook.md") -> list[str]:
    found = [hit.memory for hit in store.recall(WHERE, "", k=10_000)]
    ours = [memory for memory in found if memory.session == f"/papers/{name}"]
    return [memory.text for memory in sorted(ours, key=lambda memory: memory.position or 0)]


# Passages


def test_the_same_document_again_writes_nothing(store) -> None:
    first = write(store, HANDBOOK * 5)
    assert first.new == first.passages > 3
    batches = len(store.log(WHERE, limit=100))
    again = write(store, HANDBOOK * 5)
    assert (again.passages, again.new, again.gone) == (first.passages, 0, 0)
    assert len(store.log(WHERE, limit=100)) == batches


def test_a_changed_document_replaces_only_its_own_passages(store) -> None:
    write(store, HANDBOOK * 3)
    write(store, HANDBOOK, "other.md")
    other = texts(store, "other.md")
    changed = HANDBOOK * 2 + HANDBOOK.replace("parrots are", "cats are")
    done = write(store, changed)
    assert 0 < done.new == done.gone < done.passages
    assert texts(store) == [passage.text for passage in passages_of(document(changed))]
    assert texts(store, "other.md") == other
    back = write(store, HANDBOOK * 3)
    assert back.new == back.gone == done.new
    assert texts(store) == [passage.text for passage in passages_of(document(HANDBOOK * 3))]


def test_a_document_that_was_forgotten_is_not_found_and_its_neighbours_are(store, compressor) -> None:
    for name in ("a.md", "b/c.md", "b/d.md", "bb.md"):
        write(store, HANDBOOK, name)
    memorizing.compress(store, WHERE, document(HANDBOOK, "b/c.md"), compressor)
    memorizing.compress(store, WHERE, document(HANDBOOK, "bb.md"), compressor)
    assert memorizing.forget_documents(store, WHERE, "/papers/b") == ["/papers/b/c.md", "/papers/b/d.md"]
    assert memorize.held_passages(store, WHERE).keys() == {"/papers/a.md", "/papers/bb.md"}
    assert [record.header["document"] for record in store.list_kv(WHERE)] == ["/papers/bb.md"]
    assert memorizing.forget_documents(store, WHERE, "/papers/b") == []


def test_writing_that_was_stopped_goes_on(store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorize, "BATCH", 2)
    text = HANDBOOK * 6

    def stop(done: int, _: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(store, text, progress=stop)
    there = len(texts(store))
    told: list[tuple[int, int]] = []
    done = write(store, text, progress=lambda *each: told.append(each))
    assert there == 4
    assert done.new == done.passages - 4
    assert told[0] == (0, done.new)
    assert told[-1] == (done.new, done.new)


def test_two_who_write_the_same_document_write_it_once(store) -> None:
    passages = passages_of(document(HANDBOOK * 3))
    memorize.write_passages(store, WHERE, passages, set())
    late = memorize.write_passages(store, WHERE, passages, set())
    assert (late.new, late.gone) == (0, 0)
    assert len(texts(store)) == len(passages)


# Compressed memories


def kept(store: MemoryStore, compressor: Compressor, name: str = "handbook.md") -> Any:
    record = store.load_kv(WHERE, memorizing.memory_key(f"/papers/{name}"))
    assert record is not None
    return saved.opened(record.header, store.kv_parts(WHERE, record.key), compressor.fingerprint)


def same(one: Any, other: Any) -> bool:
    return one.tail == other.tail and all(
        torch.equal(x, y)
        for a, b in zip(one.layers, other.layers, strict=True)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("length", [1, 63, 64, 65, 300])
def test_a_stored_memory_is_the_one_that_was_formed_bit_for_bit(store, compressor, length: int) -> None:
    text = BOOK[:length]
    record = memorizing.compress(
        store, WHERE, document(text), compressor, about={"memory_model": "local:tiny"}
    )
    assert same(kept(store, compressor), compressor.memorize(text))
    assert record.header["seen"] == length
    assert record.header["memory_model"] == "local:tiny"
    assert record.header["name"] == "handbook.md"


def test_stopped_in_the_middle_it_resumes_at_the_same_window(store, compressor) -> None:
    text = BOOK[:600]

    def stop(done: int, _: int) -> None:
        if done == 4 * 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memorizing.compress(store, WHERE, document(text), compressor, progress=stop)
    read: list[int] = []
    memorizing.compress(store, WHERE, document(text), compressor, progress=lambda done, _: read.append(done))
    assert read == [256, 320, 384, 448, 512, 576, 600]
    assert same(kept(store, compressor), compressor.memorize(text))


def test_done_it_is_not_done_again_and_a_grown_document_is_gone_on_from(
    store, compressor, monkeypatch
) -> None:
    before = memorizing.compress(store, WHERE, document(BOOK[:300]), compressor)
    assert memorizing.compress(store, WHERE, document(BOOK[:300]), compressor).version == before.version
    read: list[int] = []
    memorizing.compress(
        store, WHERE, document(BOOK[:500]), compressor, progress=lambda done, _: read.append(done)
    )
    assert read[0] == 256
    assert same(kept(store, compressor), compressor.memorize(BOOK[:500]))


@pytest.mark.parametrize("text", [BOOK[:200], BOOK[:256], "!" + BOOK[1:500], BOOK[:460] + "!" * 40])
def test_a_changed_document_has_the_memory_of_what_it_is_now(store, compressor, text: str) -> None:
    memorizing.compress(store, WHERE, document(BOOK[:500]), compressor)
    memorizing.compress(store, WHERE, document(BOOK[:300], "other.md"), compressor)
    memorizing.compress(store, WHERE, document(text), compressor)
    assert same(kept(store, compressor), compressor.memorize(text))
    assert same(kept(store, compressor, "other.md"), compressor.memorize(BOOK[:300]))


def test_a_foreign_memory_is_replaced_and_the_log_says_so(store, compressor, caplog) -> None:
    memorizing.compress(store, WHERE, document(BOOK[:300]), compressor)
    other = Compressor(tiny("qwen2"), replace(SPEC, ratio=8))
    memorizing.compress(store, WHERE, document(BOOK[:300]), other)
    assert "made with another model" in caplog.text
    assert same(kept(store, other), other.memorize(BOOK[:300]))
    with pytest.raises(FingerprintMismatch, match="another model"):
        kept(store, compressor)


def test_a_memory_whose_bytes_are_broken_is_made_anew(store, compressor, caplog, monkeypatch) -> None:
    memorizing.compress(store, WHERE, document(BOOK[:300]), compressor)
    whole = store.kv_parts
    with monkeypatch.context() as broken:
        broken.setattr(store, "kv_parts", lambda *a, **k: (part[:-9] for part in whole(*a, **k)))
        memorizing.compress(store, WHERE, document(BOOK[:500]), compressor)
    assert "not whole" in caplog.text
    assert same(kept(store, compressor), compressor.memorize(BOOK[:500]))


def test_what_looks_like_a_chat_template_is_text(store, compressor) -> None:
    text = "<end><pad><|im_start|>system\n" * 20
    memorizing.compress(store, WHERE, document(text), compressor)
    ids = kept(store, compressor).tail
    assert not {0, 1} & set(ids)
    assert compressor.weights.tokenizer.decode(ids) == text[-len(ids) :]


def test_a_document_that_no_memory_holds_says_what_would(store) -> None:
    small = Compressor(tiny(max_position_embeddings=2048), SPEC)
    with pytest.raises(ConfigurationError, match="--ratio 8 reaches"):
        memorizing.compress(store, WHERE, document("x" * 6_000), small)
    with pytest.raises(ConfigurationError, match="several files"):
        memorizing.compress(store, WHERE, document("x" * 100_000), small)
    assert store.list_kv(WHERE) == []
