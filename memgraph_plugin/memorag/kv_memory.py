"""A compressed memory: keys and values of each layer, and the ids of what was not compressed yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memorag.rotary import moved
from memgraph_plugin.memorag.spec import MemorySpec

Layer: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys and values [1, H_kv, m, d]; the keys turned to positions 0 to m - 1."""

Cache: TypeAlias = Any
"""A `DynamicCache` of `DynamicLayer`s; transformers' own types allow for layers that have no keys."""


@dataclass
class KVMemory:
    """What a model keeps of a text. `Compressor.append` makes it grow; nothing else changes it.

    Args:
        spec: how it was compressed.
        fingerprint: of model, tokenizer and settings; another's memory is of no use, see `fingerprint.check`.
        layers: one for each layer of the model; none before the first window.
        tail: ids that do not fill a window; read anew with each question.
        windows: how many were compressed.
        digest: sha256 over the ids of all windows, chained.
    """

    spec: MemorySpec
    fingerprint: Mapping[str, str]
    layers: list[Layer] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    windows: int = 0
    digest: str = ""

    @property
    def entries(self) -> int:
        """Entries in each layer (m)."""
        return self.layers[0][0].shape[-2] if self.layers else 0

    @property
    def seen(self) -> int:
        """Tokens of text that were taken in, those of the tail too."""
        return self.windows * self.spec.window + len(self.tail)

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for layer in self.layers for t in layer)

    def fork(self) -> Cache:
        """A cache that begins with this memory. It shares the tensors and never writes into them."""
        return cache_of(self.layers)


def cache_of(layers: Sequence[Layer]) -> Cache:
    """A cache that holds these tensors themselves: what it is updated with is put together with them anew."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()  # type: ignore[no-untyped-call]
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def chained(digest: str, ids: Sequence[int]) -> str:
    """The digest after a further window."""
    return hashlib.sha256(digest.encode() + b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()


def joined(memories: Sequence[KVMemory], frequencies: torch.Tensor) -> KVMemory:
    """One memory of several that were formed apart, in this order, to be read from; they stay as they are.

    Each part's keys move behind those before it. Sinks are the first part's alone; tails come last, in order.

    Raises:
        ConfigurationError: there is none, or they were made differently.
    """
    if not memories:
        raise ConfigurationError("no memories to join")
    spec, fingerprint = memories[0].spec, memories[0].fingerprint
    if any(dict(memory.fingerprint) != dict(fingerprint) for memory in memories):
        raise ConfigurationError("memories of different models or settings cannot be joined")
    whole = KVMemory(spec, fingerprint, tail=[i for memory in memories for i in memory.tail])
    for memory in memories:
        if memory.layers:
            parts = _behind(memory, whole.entries, frequencies) if whole.layers else memory.layers
            before = whole.layers or [(k[..., :0, :], v[..., :0, :]) for k, v in parts]
            whole.layers = [
                (torch.cat([k, more_k], dim=-2), torch.cat([v, more_v], dim=-2))
                for (k, v), (more_k, more_v) in zip(before, parts, strict=True)
            ]
            whole.windows += memory.windows
    return whole


def _behind(memory: KVMemory, offset: int, frequencies: torch.Tensor) -> list[Layer]:
    """The layers of a memory without its sinks, moved to begin at `offset`."""
    sinks = memory.spec.entries(1) - memory.spec.kept
    keys = memory.layers[0][0]
    by = torch.full((keys.shape[1], memory.entries - sinks), offset - sinks, device=keys.device)
    return [(moved(k[..., sinks:, :], by, frequencies), v[..., sinks:, :]) for k, v in memory.layers]
