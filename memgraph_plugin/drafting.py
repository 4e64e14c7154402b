"""Who drafts clues about documents: models that read what the store remembers of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from langchain_core.language_models import BaseChatModel
from langgraph.runtime import get_runtime

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.memorag import gist
from memgraph_plugin.memorag.clues import Ask, ClueDrafter
from memgraph_plugin.memorag.drafters import MOST_NOTES, ChatModelDrafter, MemoryModelDrafter
from memgraph_plugin.memorag.router import GOOD
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.memorizing import ASKING, document_records
from memgraph_plugin.models.chat import load_chat_model, local_path
from memgraph_plugin.nodes.memorize import PASSAGES
from memgraph_plugin.nodes.recall_clues import DrafterSource
from memgraph_plugin.nodes.scope import memory_store
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Clue, KVRecord, Namespace

if TYPE_CHECKING:
    from memgraph_plugin.memorag.compressor import Compressor
    from memgraph_plugin.memorag.kv_memory import KVMemory

Header = Mapping[str, Any]
T = TypeVar("T")

FOUND = 20
"""Passages that say which documents a question is about."""

KEPT_OPEN = 512 * 1024 * 1024
"""Bytes of memories, as stored, that stay open between questions."""

MODELS = 8
"""Models, each with its settings, that stay loaded between questions."""


def load_compressor(header: Header, *, cache_dir: Path) -> Compressor:
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
        raise ConfigurationError(
            f'a compressed memory needs a local model, as "local:NAME", not {model!r}; any chat model makes '
            "gists: --mode gist"
        )
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


def load_gist_model(
    header: Header, *, name: str | None = None, base_url: str | None = None, cache_dir: Path | None = None
) -> BaseChatModel:
    """The chat model of this name; by default the one that made the gists, which their header names.

    Raises:
        ConfigurationError, MissingExtraError: as `load_chat_model`.
    """
    return load_chat_model(
        name or str(header.get("memory_model", "")), base_url=base_url, cache_dir=cache_dir
    )


def drafters(
    load: Callable[[Header], Compressor],
    chat: Callable[[Header], BaseChatModel] = load_gist_model,
    *,
    near: float | None = GOOD,
) -> DrafterSource:
    """Who drafts clues from the compressed memories and gists that a run's store has: for
    `build_documents_graph`.

    Models and memories stay open from one question to the next, memories up to `KEPT_OPEN` bytes, each until
    the store has another version of it.

    Args:
        load: the compressor that made a memory, by its header, as `load_compressor` is.
        chat: who reads gists, by their header, as `load_gist_model` is.
        near: from which cosine of its own best hit a question gets no clues from a compressed memory, whose
            models are small; None: each that the router sends.
    """
    load, chat = _once(load), _once(chat)
    opened = Opened[Any](KEPT_OPEN)

    def of(namespace: Namespace) -> ClueDrafter | None:
        store = memory_store(get_runtime(MemoryContext).store)
        records = document_records(store, namespace)
        return DocumentsDrafter(store, records, load, chat, opened, near) if records else None

    return of


class DocumentsDrafter:
    """Drafts clues from the memories of the documents that a question's own words find, else of any.

    They are read as one, as many as their model has room for, the best found first: compressed memories of
    one model and settings, or gists, whichever the first document has. `near` is `MemoryModelDrafter`'s.

    Raises (when it drafts):
        FingerprintMismatch: a memory is not of the model that is here, or its bytes are broken.
        Exception: the model's own.
    """

    name = "documents"

    def __init__(
        self,
        store: MemoryStore,
        records: Sequence[KVRecord],
        load: Callable[[Header], Compressor],
        chat: Callable[[Header], BaseChatModel] = load_gist_model,
        opened: Opened[Any] | None = None,
        near: float | None = GOOD,
    ) -> None:
        self._near = near
        self._store, self._records, self._load, self._chat = store, records, load, chat
        self._opened = opened or Opened(KEPT_OPEN)

    def draft(self, ask: Ask) -> list[Clue]:
        chosen = self._chosen(ask)
        return chosen.draft(ask) if chosen else []

    async def adraft(self, ask: Ask) -> list[Clue]:
        """Async twin of `draft`."""
        chosen = await asyncio.to_thread(self._chosen, ask)
        return await chosen.adraft(ask) if chosen else []

    def _chosen(self, ask: Ask) -> ClueDrafter | None:
        hits = self._store.recall(self._records[0].namespace, ask.query, k=FOUND, kinds=PASSAGES)
        ranks = {hit.memory.session: rank for rank, hit in reversed(list(enumerate(hits)))}
        ordered = sorted(self._records, key=lambda record: ranks.get(record.header["document"], FOUND))
        if ordered[0].header.get("format") == gist.FORMAT:
            return self._of_gists(ordered)
        # A model is not loaded, and a memory not opened, to say nothing.
        return None if ask.finds(self._near) else self._of_memories(ordered)

    def _of_gists(self, ordered: Sequence[KVRecord]) -> ChatModelDrafter:
        notes: list[str] = []
        for record in ordered:
            if record.header.get("format") != gist.FORMAT:
                continue
            told = self._opened.get(record, partial(self._gists, record))
            if notes and sum(map(len, [*notes, *told])) > MOST_NOTES:
                break
            notes += told
        return ChatModelDrafter(self._chat(ordered[0].header), notes=notes)

    def _gists(self, record: KVRecord) -> list[str]:
        parts = self._store.kv_parts(record.namespace, record.key, version=record.version)
        return [made.text for made in gist.from_bytes(parts, record.header["digests"])]

    def _of_memories(self, ordered: Sequence[KVRecord]) -> MemoryModelDrafter:
        from memgraph_plugin.memorag.kv_memory import joined

        compressor = self._load(ordered[0].header)
        weights, room = compressor.weights, compressor.weights.max_tokens - ASKING
        memories: list[KVMemory] = []
        for record in ordered:
            if record.header["fingerprint"] != ordered[0].header["fingerprint"]:
                continue
            needed = record.header["entries"] + len(record.header["tail"])
            if not memories or needed <= room:
                memories.append(self._opened.get(record, partial(self._memory, record, compressor)))
                room -= needed
        memory = memories[0]
        if len(memories) > 1:
            memory = joined(memories, weights.model.base_model.rotary_emb.inv_freq)
        return MemoryModelDrafter(weights, memory, near=self._near)

    def _memory(self, record: KVRecord, compressor: Compressor) -> KVMemory:
        from memgraph_plugin.memorag import saved

        parts = self._store.kv_parts(record.namespace, record.key, version=record.version)
        return saved.opened(record.header, parts, compressor.fingerprint, compressor.weights.model.device)


class Opened(Generic[T]):
    """What was read of the store's records, up to `most` bytes of them, the last used; for any thread.

    A record is read again where its version or its header is another. One is read at a time, so that several
    who ask for the same share it; nobody may change what they are given.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[Namespace, str], tuple[KVRecord, T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, record: KVRecord, read: Callable[[], T]) -> T:
        """What `read` made of this record, now or before."""
        place = (record.namespace, record.key)
        with self._lock:
            held = self._kept.pop(place, None)
            # The header as well: two databases may have the same version of what has the same name.
            same = held is not None and (held[0].version, held[0].header) == (record.version, record.header)
            value = held[1] if held is not None and same else read()
            self._kept[place] = (record, value)
            size = sum(kept.bytes for kept, _ in self._kept.values())
            while size > self._most and len(self._kept) > 1:
                size -= self._kept.popitem(last=False)[1][0].bytes
            return value


def _once(load: Callable[[Header], T]) -> Callable[[Header], T]:
    """`load`, called once for headers that name the same model and settings."""
    made: OrderedDict[str, T] = OrderedDict()
    lock = threading.Lock()

    def loaded(header: Header) -> T:
        named = [header.get(part) for part in ("memory_model", "memory_tokens", "fingerprint")]
        name = json.dumps(named, sort_keys=True)
        with lock:
            if name not in made:
                made[name] = load(header)
            made.move_to_end(name)
            while len(made) > MODELS:
                made.popitem(last=False)
            return made[name]

    return loaded
