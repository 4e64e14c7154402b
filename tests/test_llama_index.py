"""Passages by LlamaIndex' splitter, and of its documents and nodes."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("llama_index.core", reason="needs the extra documents")

from llama_index.core.node_parser import MarkdownNodeParser
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import TextNode

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.integrations.llama_index import (
    PASSAGE_TOKENS,
    documents_of,
    passages_of,
    passages_of_nodes,
)
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Document
from tests.files import HANDBOOK


def document(*pages: str, paged: bool = False) -> Document:
    return Document(id="/papers/handbook.md", name="handbook.md", pages=pages, paged=paged)


def test_a_short_text_is_one_passage_that_says_where_it_is_from() -> None:
    (passage,) = passages_of(document("The fee is forty crowns."))
    assert passage.text == "The fee is forty crowns."
    assert (passage.kind, passage.session, passage.position) == ("passage", "/papers/handbook.md", 0)
    assert passage.source == "handbook.md"
    assert passage.value == {"document": "/papers/handbook.md"}


def test_pages_are_cited_and_no_passage_goes_across_them() -> None:
    passages = passages_of(document("One. " * 300, "", "Three.", paged=True))
    assert {passage.source for passage in passages} == {"handbook.md, page 1", "handbook.md, page 3"}
    assert [passage.position for passage in passages] == list(range(len(passages)))
    assert passages[-1].text == "Three."
    assert passages[-1].value["page"] == 3


def test_passages_are_of_a_size_and_lose_nothing() -> None:
    sentences = [f"Sentence number {n} is about the lantern of keeper {n}." for n in range(500)]
    passages = passages_of(document(" ".join(sentences)))
    assert all(estimate_tokens(passage.text) <= PASSAGE_TOKENS for passage in passages)
    joined = " ".join(passage.text for passage in passages)
    assert all(sentence in joined for sentence in sentences)


@pytest.mark.parametrize("text", ["東京は日本の首都です。" * 200, "x" * 20_000, "a,b;c\n" * 4_000])
def test_text_without_spaces_or_sentences_is_cut_too(text: str) -> None:
    passages = passages_of(document(text))
    assert len(passages) > 1
    assert all(estimate_tokens(passage.text) <= PASSAGE_TOKENS for passage in passages)


def test_a_key_is_the_same_for_the_same_text_at_the_same_place_and_only_then() -> None:
    before, again = passages_of(document(HANDBOOK * 3)), passages_of(document(HANDBOOK * 3))
    assert [passage.key for passage in before] == [passage.key for passage in again]
    changed = passages_of(document(HANDBOOK * 2 + HANDBOOK.replace("parrots", "cats")))
    kept = {passage.key for passage in before} & {passage.key for passage in changed}
    assert 0 < len(kept) < len(before)
    assert len({passage.key for passage in before}) == len(before)


def test_what_a_reader_of_llama_index_read_is_one_document_a_file() -> None:
    about = {"file_path": "/papers/a.pdf", "file_name": "a.pdf"}
    read = [LlamaDocument(text=f"Page {n}.", metadata={**about, "page_label": str(n)}) for n in (1, 2)]
    read.append(LlamaDocument(text="Alone.", id_="web-1"))
    first, second = documents_of(read)
    assert (first.id, first.name, first.pages, first.paged) == (
        "/papers/a.pdf",
        "a.pdf",
        ("Page 1.", "Page 2."),
        True,
    )
    assert (second.id, second.pages, second.paged) == ("web-1", ("Alone.",), False)


def test_nodes_of_any_parser_are_passages() -> None:
    read = LlamaDocument(text=HANDBOOK, metadata={"file_path": "/papers/h.md", "file_name": "h.md"})
    found = passages_of_nodes(MarkdownNodeParser().get_nodes_from_documents([read]))
    assert list(found) == ["/papers/h.md"]
    assert [passage.text.splitlines()[0] for passage in found["/papers/h.md"]] == [
        "# Handbook of the Lantern Society",
        "## Membership",
        "## Meetings",
    ]
    with pytest.raises(ConfigurationError, match="of no document"):
        passages_of_nodes([TextNode(text="Alone.")])


def test_ten_megabytes_are_split_in_time() -> None:
    text = "\n\n".join(
        f"Paragraph {n}. " + "The keeper writes down the weather. " * 12 for n in range(22_500)
    )
    assert len(text) > 10_000_000
    began = time.perf_counter()
    assert len(passages_of(document(text))) > 10_000
    assert time.perf_counter() - began < 60
