"""What the store remembers of documents, for clues to be drafted from: compressed memories, or gists.

Either is kept as a chain that grows at its end: of windows, or of one gist after another.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.memorag import gist
from memgraph_plugin.nodes.memorize import Progress, held_passages, write_passages
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Document, KVRecord, Namespace

if TYPE_CHECKING:
    from memgraph_plugin.memorag.compressor import Compressor
    from memgraph_plugin.memorag.kv_memory import KVMemory

logger = logging.getLogger(__name__)

ASKING = 1024
"""Positions that are kept free for a question and its reply."""


def forget_documents(store: MemoryStore, namespace: Namespace, path: str) -> list[str]:
    """Delete the passages and compressed memories of a document, or of all in a folder; their ids.

    Passages are ordinary deletions: their history stays until the namespace is forgotten.
    """
    held = held_passages(store, namespace)
    compressed = {str(record.header["document"]): record.key for record in document_records(store, namespace)}
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


def document_records(store: MemoryStore, namespace: Namespace) -> list[KVRecord]:
    """What is remembered of documents in a namespace, without those below it; one record a document."""
    records = store.list_kv(namespace)
    return [record for record in records if record.namespace == namespace and "document" in record.header]


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


def keep_gists(
    store: MemoryStore,
    namespace: Namespace,
    document: Document,
    model: BaseChatModel,
    *,
    about: Mapping[str, Any],
    tokens: int = gist.PIECE,
    progress: Progress | None = None,
) -> KVRecord:
    """Keep the gist of each piece of a document, each written as soon as the model gave it.

    What the same model made of a piece that is still there is not asked for again: after an interruption, and
    where the document has changed. Anything else under its key is replaced.

    Args:
        about: what the header says besides, as JSON: "memory_model", the model's name.
        tokens: of a piece, about.
        progress: called with the pieces that are done, and all of them.

    Raises:
        VersionConflict: another run writes the same memory.
        StoreError: the gists before were written.
        Exception: the model's own; the gists before were written.
    """
    key, digests = (
        memory_key(document.id),
        [gist.digest(piece) for piece in gist.pieces(document.text, tokens)],
    )
    fingerprint = gist.fingerprint(str(about["memory_model"]), tokens)
    record = store.load_kv(namespace, key)
    held, stored = _held_gists(store, record, fingerprint, digests)
    header = {
        **about,
        "format": gist.FORMAT,
        "fingerprint": fingerprint,
        "digests": digests,
        "document": document.id,
        "name": document.name,
    }
    known = {made.digest for made in held}

    def save(windows: Sequence[gist.Gist], after: int) -> KVRecord:
        version = record.version if record else None
        stored = map(gist.to_bytes, windows)
        return store.save_kv(namespace, key, header, stored, after=after, version=version)

    if record is None or record.header != header:
        record = save([], after=stored)
    made = []
    for each in gist.gists(model, document.text, done=held, tokens=tokens):
        made.append(each)
        if each.digest not in known:
            known.add(each.digest)
            record = save([each], after=record.windows)
        if progress:
            progress(len(made), len(digests))
    wanted = {each.digest: each for each in made}
    return record if record.windows == len(wanted) else save(list(wanted.values()), after=0)


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


def _held_gists(
    store: MemoryStore, record: KVRecord | None, fingerprint: Mapping[str, str], digests: Sequence[str]
) -> tuple[list[gist.Gist], int]:
    """The stored gists that are still of use, and how many there are with those that are not.

    Nothing is of use where somebody else made them: then both are none.
    """
    if record is None:
        return [], 0
    if record.header.get("fingerprint") != fingerprint:
        logger.warning("A document is memorized anew: its memory was made by another model, or otherwise")
        return [], 0
    try:
        parts = store.kv_parts(record.namespace, record.key, version=record.version)
        return gist.from_bytes(parts, digests), record.windows
    except FingerprintMismatch as error:
        logger.warning("A document is memorized anew. %s", error)
        return [], 0


def _digest(ids: Sequence[int], window: int) -> str:
    from memgraph_plugin.memorag.kv_memory import chained

    digest = ""
    for start in range(0, len(ids), window):
        digest = chained(digest, ids[start : start + window])
    return digest
