"""LlamaIndex: its sentence splitter makes passages; its readers' documents and its parsers' nodes come in."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.nodes.transcript import storable
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Document, Insert

try:
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import BaseNode
except ImportError as error:
    raise MissingExtraError("documents", "Making passages of documents") from error

PASSAGE_TOKENS = 200
"""Tokens of a passage, by estimate: the packaged embedding model reads 256, and the estimate is rough."""

OVERLAP_TOKENS = 20


def passages_of(document: Document) -> list[Insert]:
    """The passages of a document, in order, none of them across pages.

    The same text at the same place has the same key, so that what has not changed can be told from what has.
    """
    chunks = [
        (number if document.paged else None, chunk)
        for number, page in enumerate(document.pages, 1)
        for chunk in _splitter().split_text(page)
        if chunk
    ]
    return _inserts(document.id, document.name, chunks)


def passages_of_nodes(nodes: Iterable[BaseNode]) -> dict[str, list[Insert]]:
    """The passages of nodes of any node parser of LlamaIndex, by their documents' ids, in the nodes' order.

    A document is the file of a node's metadata ("file_path"), else the document that it is a part of.

    Raises:
        ConfigurationError: a node says neither.
    """
    chunks: dict[str, list[tuple[int | None, str]]] = defaultdict(list)
    names: dict[str, str] = {}
    for node in nodes:
        document = storable(str(node.metadata.get("file_path") or node.ref_doc_id or ""))
        if not document:
            raise ConfigurationError(
                f'the node {node.node_id} is of no document: give its metadata "file_path"'
            )
        page = str(node.metadata.get("page_label", ""))
        names[document] = storable(str(node.metadata.get("file_name") or document))
        if text := storable(node.get_content()).strip():
            chunks[document].append((int(page) if page.isdecimal() else None, text))
    return {document: _inserts(document, names[document], found) for document, found in chunks.items()}


def documents_of(documents: Sequence[BaseNode]) -> list[Document]:
    """Ours of what a reader of LlamaIndex read (`reader.load_data()`): those of one file are its pages."""
    pages: dict[str, list[str]] = defaultdict(list)
    about: dict[str, tuple[str, bool]] = {}
    for each in documents:
        name = storable(str(each.metadata.get("file_path") or each.node_id))
        pages[name].append(storable(each.get_content()))
        about[name] = storable(str(each.metadata.get("file_name") or name)), "page_label" in each.metadata
    return [
        Document(id=name, name=about[name][0], pages=tuple(found), paged=about[name][1])
        for name, found in pages.items()
    ]


def _inserts(document: str, name: str, chunks: Sequence[tuple[int | None, str]]) -> list[Insert]:
    return [
        Insert(
            kind="passage",
            key=_key(document, position, page, text),
            text=text,
            value={"document": document, **({"page": page} if page else {})},
            session=document,
            position=position,
            source=f"{name}, page {page}" if page else name,
        )
        for position, (page, text) in enumerate(chunks)
    ]


def _key(document: str, position: int, page: int | None, text: str) -> str:
    whose = hashlib.sha256(document.encode()).hexdigest()[:16]
    what = hashlib.sha256(f"{page}\0{text}".encode()).hexdigest()[:12]
    return f"passage:{whose}:{position}:{what}"


@cache
def _splitter() -> SentenceSplitter:
    # `range` has the length that counts; LlamaIndex's own counter is a vocabulary of 50,000 words to load.
    return SentenceSplitter(
        chunk_size=PASSAGE_TOKENS,
        chunk_overlap=OVERLAP_TOKENS,
        tokenizer=lambda text: range(estimate_tokens(text)),
        paragraph_separator="\n\n",
    )
