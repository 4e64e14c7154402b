"""Compressed memories of documents in the store, one chain of windows each: what clues are drafted from."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.runtime import get_runtime

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch, MissingExtraError
from memgraph_plugin.memorag.clues import Ask, ClueDrafter
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.models.chat import local_path
from memgraph_plugin.nodes.memorize import PASSAGES, Progress, held_passages, write_passages
from memgraph_plugin.nodes.recall_clues import DrafterSource
from memgraph_plugin.nodes.scope import memory_store
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Clue, Document, KVRecord, Namespace

if TYPE_CHECKING:
    from memgraph_plugin.memorag.compressor import Compressor
    from memgraph_plugin.memorag.kv_memory import KVMemory

logger = logging.getLogger(__name__)

ASKING = 1024
"""Positions that are kept free for a question and its reply."""

FOUND = 20
"""Passages that say which documents a question is about."""


def forget_documents(store: MemoryStore, namespace: Namespace, path: str) -> list[str]:
    """Delete the passages and compressed memories of a document, or of all in a folder; their ids.

    Passages are ordinary deletions: their history stays until the namespace is forgotten.
    """
    held = held_passages(store, namespace)
    compressed = {str(record.header["document"]): record.key for record in store.list_kv(namespace)}
    forgotten = sorted(within({**held, **compressed}, path))
    for document in forgotten:
        write_passages(store, namespace, [], held.get(document, set()))
        if document in compressed:
            store.delete_kv(namespace, compressed[document])
    return forgotten


def within(documents: Iterable[str], path: str) -> set[str]:
    """The documents that are this file, or lie in this folder."""
    folder = path.rstrip(os.sep) + os.sep
    return {document for document in documents if document == path or document.startswith(folder)}


def compress(
    store: MemoryStore,
    namespace: Namespace,
    document: Document,
    compressor: Compressor,
    *,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> KVRecord:
    """Keep a compressed memory of a document, one chain of windows, each written as soon as it is made.

    What is there already and is of the same model, settings and beginning of the text is gone on from: after
    an interruption, and where the document has grown. Anything else under its key is replaced.

    Args:
        about: what the memory's header says besides, as JSON; it is read by whoever opens it.
        progress: called with the tokens that are done, and all of them.

    Raises:
        ConfigurationError: the document is longer than the model's memory reaches; nothing is written.
        VersionConflict: another run writes the same memory.
        StoreError: the windows before were written.
    """
    from memgraph_plugin.memorag import saved

    key, window = memory_key(document.id), compressor.spec.window
    ids = [*compressor.frame.before, *compressor.frame.text(document.text)]
    _check_reach(document, len(ids), compressor)
    record, memory = store.load_kv(namespace, key), compressor.new()
    if record and _continues(record.header, ids, compressor):
        if record.header["tail"] == ids[record.header["windows"] * window :]:
            return record
        memory = _opened(store, record, compressor) or memory
    extra = {**(about or {}), "document": document.id, "name": document.name}
    start = memory.windows * window
    if progress:
        progress(start, len(ids))
    while True:
        done = memory.windows
        compressor.append(memory, ids[start : start + window])
        record = store.save_kv(
            namespace,
            key,
            {**saved.header(memory), **extra},
            saved.windows(memory, after=done),
            after=done,
            version=record.version if record else None,
        )
        start = min(start + window, len(ids))
        if progress:
            progress(start, len(ids))
        if start == len(ids):
            return record


def load_compressor(header: Mapping[str, Any], *, cache_dir: Path) -> Compressor:
    """The compressor that a memory's header names: "memory_model" and "memory_tokens", which the command
    `memorize` writes there, and "spec".

    Raises:
        ConfigurationError: there is no such local model, or it can make no memory.
        FingerprintMismatch: the memory tokens were trained with another model.
        MissingExtraError: the extra `local` is not installed.
    """
    model, tokens = str(header.get("memory_model", "")), str(header.get("memory_tokens", ""))
    provider, _, name = model.partition(":")
    if provider != "local":
        raise ConfigurationError(f'a compressed memory needs a local model, as "local:NAME", not {model!r}')
    path = local_path(name, cache_dir)
    try:
        from memgraph_plugin.memorag import beacon
        from memgraph_plugin.memorag.compressor import Compressor
        from memgraph_plugin.models.weights import load_weights
    except ImportError as error:
        raise MissingExtraError("local", "A compressed memory") from error
    weights = load_weights(path)
    trained = beacon.load(Path(tokens), weights.model) if tokens else None
    return Compressor(weights, MemorySpec(**header["spec"]), trained)


def drafters(load: Callable[[Mapping[str, Any]], Compressor]) -> DrafterSource:
    """Who drafts clues from the compressed memories that a run's store has: for `build_documents_graph`.

    Args:
        load: the compressor that made a memory, by its header, as `load_compressor` is.
    """

    def of(namespace: Namespace) -> ClueDrafter | None:
        store = memory_store(get_runtime(MemoryContext).store)
        records = [record for record in store.list_kv(namespace) if record.namespace == namespace]
        return DocumentsDrafter(store, records, load) if records else None

    return of


class DocumentsDrafter:
    """Drafts clues from the memories of the documents that a question's own words find, else of any.

    They are read as one, as many as their model has positions for, the best found first.

    Raises (when it drafts):
        FingerprintMismatch: a memory is not of the model that is here, or its bytes are broken.
    """

    name = "documents"

    def __init__(
        self,
        store: MemoryStore,
        records: Sequence[KVRecord],
        load: Callable[[Mapping[str, Any]], Compressor],
    ) -> None:
        self._store, self._records, self._load = store, records, load

    def draft(self, ask: Ask) -> list[Clue]:
        from memgraph_plugin.memorag import saved
        from memgraph_plugin.memorag.drafters import MemoryModelDrafter
        from memgraph_plugin.memorag.kv_memory import joined

        hits = self._store.recall(self._records[0].namespace, ask.query, k=FOUND, kinds=PASSAGES)
        ranks = {hit.memory.session: rank for rank, hit in reversed(list(enumerate(hits)))}
        ordered = sorted(self._records, key=lambda record: ranks.get(record.header["document"], FOUND))
        compressor = self._load(ordered[0].header)
        weights, room = compressor.weights, compressor.weights.max_tokens - ASKING
        memories: list[KVMemory] = []
        for record in ordered:
            needed = record.header["entries"] + len(record.header["tail"])
            alike = record.header["fingerprint"] == ordered[0].header["fingerprint"]
            if not memories or (alike and needed <= room):
                parts = self._store.kv_parts(record.namespace, record.key, version=record.version)
                device = weights.model.device
                memories.append(saved.opened(record.header, parts, compressor.fingerprint, device))
                room -= needed
        memory = memories[0]
        if len(memories) > 1:
            memory = joined(memories, weights.model.base_model.rotary_emb.inv_freq)
        return MemoryModelDrafter(weights, memory).draft(ask)

    async def adraft(self, ask: Ask) -> list[Clue]:
        """Async twin of `draft`."""
        return await asyncio.to_thread(self.draft, ask)


def memory_key(document: str) -> str:
    """The key of a document's compressed memory: short, whatever the document's id is."""
    return "document:" + hashlib.sha256(document.encode()).hexdigest()[:32]


def _check_reach(document: Document, tokens: int, compressor: Compressor) -> None:
    positions, spec = compressor.weights.max_tokens, compressor.spec
    if tokens <= (reach := spec.reach(positions, ASKING)):
        return
    ratios = (n for n in range(spec.ratio + 1, spec.window + 1) if spec.window % n == 0)
    enough = next((n for n in ratios if tokens <= replace(spec, ratio=n).reach(positions, ASKING)), None)
    advice = f"--ratio {enough} reaches" if enough else "no ratio reaches: cut it into several files"
    raise ConfigurationError(
        f"{document.name} has {tokens:,} tokens, and at a ratio of {spec.ratio} {compressor.weights.name} "
        f"remembers {reach:,}; {advice}. Its passages can be searched all the same."
    )


def _continues(header: Mapping[str, Any], ids: Sequence[int], compressor: Compressor) -> bool:
    """Whether a stored memory is of these settings, and of how this text begins."""
    from memgraph_plugin.memorag import fingerprint

    try:
        fingerprint.check(header.get("fingerprint", {}), compressor.fingerprint)
    except FingerprintMismatch as error:
        logger.warning("A document is memorized anew. %s", error)
        return False
    window = compressor.spec.window
    return bool(header["digest"] == _digest(ids[: header["windows"] * window], window))


def _opened(store: MemoryStore, record: KVRecord, compressor: Compressor) -> KVMemory | None:
    """A stored memory without its tail, which is read anew; None where its bytes are broken."""
    from memgraph_plugin.memorag import saved

    device = compressor.weights.model.device
    try:
        parts = store.kv_parts(record.namespace, record.key, version=record.version)
        memory = saved.opened(record.header, parts, compressor.fingerprint, device)
    except FingerprintMismatch as error:
        logger.warning("A document is memorized anew. %s", error)
        return None
    memory.tail = []
    return memory


def _digest(ids: Sequence[int], window: int) -> str:
    from memgraph_plugin.memorag.kv_memory import chained

    digest = ""
    for start in range(0, len(ids), window):
        digest = chained(digest, ids[start : start + window])
    return digest
