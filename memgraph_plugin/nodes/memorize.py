"""The step that takes documents in: as passages that can be found and cited."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.nodes.scope import documents_scope
from memgraph_plugin.nodes.transcript import storable
from memgraph_plugin.state import AskState, MemoryContext, Plain
from memgraph_plugin.store.base import MAX_RESULTS, MemoryStore
from memgraph_plugin.types import Delete, Document, Hit, Insert, MemoryKind, Namespace, Operation, Receipt

PASSAGES: tuple[MemoryKind, ...] = ("passage",)

BATCH = 128
"""Passages in one transaction."""

ACTOR = "memorize"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Written:
    """Of a document's passages, how many there are, were new, and were gone from it and deleted."""

    passages: int
    new: int
    gone: int


def memorize(
    split: Callable[[Document], list[Insert]], *, namespace: Sequence[str] | None = None
) -> RunnableLambda[AskState, dict[str, list[Plain]]]:
    """A node that takes in the documents that a request brings along.

    Each is {"name": ..., "text": ...}, or has "pages", a list of texts. One of the same "id" (by default its
    name) as one that is there replaces it; what has not changed is not written again. `split` makes passages,
    as `integrations.llama_index.passages_of` does.

    Reads: documents.
    Writes: memorized, documents (none are left).
    Paper: none.

    Raises (when it runs):
        ConfigurationError: a document has no name or no text, or the namespace cannot work.
        MissingNamespaceError: nobody said whose documents these are.
        StoreError: the database failed; what was written before stays.
    """

    def memorize_now(state: AskState) -> dict[str, list[Plain]]:
        documents = [document_from(plain) for plain in state.get("documents", [])]
        scope, done = documents_scope(get_runtime(MemoryContext), namespace=namespace), []
        held = held_passages(scope.store, scope.namespace) if documents else {}
        for document in documents:
            passages, before = split(document), held.get(document.id, set())
            written = write_passages(scope.store, scope.namespace, passages, before)
            done.append({"document": document.id, **asdict(written)})
            scope.emit({"type": "memgraph_plugin.memorize", **done[-1]})
        return {"memorized": done, "documents": []}

    async def amemorize_now(state: AskState) -> dict[str, list[Plain]]:
        documents = [document_from(plain) for plain in state.get("documents", [])]
        scope, done = documents_scope(get_runtime(MemoryContext), namespace=namespace), []
        held = await aheld_passages(scope.store, scope.namespace) if documents else {}
        for document in documents:
            passages, before = await asyncio.to_thread(split, document), held.get(document.id, set())
            written = await awrite_passages(scope.store, scope.namespace, passages, before)
            done.append({"document": document.id, **asdict(written)})
            scope.emit({"type": "memgraph_plugin.memorize", **done[-1]})
        return {"memorized": done, "documents": []}

    return RunnableLambda(memorize_now, amemorize_now, name="memorize")


def document_from(plain: Plain) -> Document:
    """A document that a request brings along.

    Raises:
        ConfigurationError: it has no name or no text.
    """
    pages, name = plain.get("pages", [plain.get("text")]), plain.get("name")
    whole = isinstance(pages, list) and all(isinstance(page, str) for page in pages)
    if not (whole and isinstance(name, str) and name):
        raise ConfigurationError('a document is {"name": ..., "text": ...}, or has "pages", a list of texts')
    if not any(page.strip() for page in pages):
        raise ConfigurationError(f"{name} has no text")
    return Document(
        id=storable(str(plain.get("id") or name)),
        name=storable(name),
        pages=tuple(map(storable, pages)),
        paged="pages" in plain,
    )


def held_passages(store: MemoryStore, namespace: Namespace) -> dict[str, set[str]]:
    """The keys of all passages of a namespace, by their documents' ids; reads all of them."""
    return _by_document(store.recall(namespace, "", k=MAX_RESULTS, kinds=PASSAGES))


async def aheld_passages(store: MemoryStore, namespace: Namespace) -> dict[str, set[str]]:
    """Async twin of `held_passages`."""
    return _by_document(await store.arecall(namespace, "", k=MAX_RESULTS, kinds=PASSAGES))


def write_passages(
    store: MemoryStore,
    namespace: Namespace,
    passages: Sequence[Insert],
    held: set[str],
    progress: Progress | None = None,
) -> Written:
    """Make a document's passages these: what is new is inserted, then what is there no more is deleted.

    Args:
        passages: all of the document's, as `integrations.llama_index` makes them.
        held: the keys that `held_passages` gave for it.
        progress: called with the operations that are done, and all of them, around each transaction.

    Raises:
        StoreError: the batches before were written; a second run goes on from there.
    """
    operations, applied = _changes(passages, held), list[Receipt]()
    for start in _starts(operations, progress):
        applied += store.apply(namespace, operations[start : start + BATCH], actor=ACTOR).applied
    return _written(passages, applied)


async def awrite_passages(
    store: MemoryStore,
    namespace: Namespace,
    passages: Sequence[Insert],
    held: set[str],
    progress: Progress | None = None,
) -> Written:
    """Async twin of `write_passages`."""
    operations, applied = _changes(passages, held), list[Receipt]()
    for start in _starts(operations, progress):
        applied += (await store.aapply(namespace, operations[start : start + BATCH], actor=ACTOR)).applied
    return _written(passages, applied)


def _by_document(hits: Iterable[Hit]) -> dict[str, set[str]]:
    held: dict[str, set[str]] = defaultdict(set)
    for hit in hits:
        held[hit.memory.session or ""].add(hit.memory.key)
    return dict(held)


def _changes(passages: Sequence[Insert], held: set[str]) -> list[Operation]:
    gone = held - {str(passage.key) for passage in passages}
    deletions = [Delete(key=key, reason="document_changed") for key in sorted(gone)]
    return [*(passage for passage in passages if passage.key not in held), *deletions]


def _starts(operations: Sequence[Operation], progress: Progress | None) -> Iterator[int]:
    """Where each batch begins; tells of the progress in between."""
    for start in range(0, len(operations), BATCH):
        if progress:
            progress(start, len(operations))
        yield start
    if progress and operations:
        progress(len(operations), len(operations))


def _written(passages: Sequence[Insert], applied: Sequence[Receipt]) -> Written:
    # What was refused, another run has written or deleted meanwhile.
    new = sum(receipt.operation == "insert" for receipt in applied)
    return Written(len(passages), new, len(applied) - new)
