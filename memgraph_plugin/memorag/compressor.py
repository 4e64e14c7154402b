"""Compresses a text of any length into a memory of keys and values, window by window, on stock transformers.

Each window is read behind the memory as it stands; of its entries a few stay (by `scorers`, or those of
memory tokens, see `beacon`), move to compact positions, once and for ever, and the rest is dropped. Windows
are compressed only when they are full, so that text in pieces makes the same memory, bit for bit, as
text that comes whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memorag.fingerprint import fingerprint
from memgraph_plugin.memorag.framing import Frame
from memgraph_plugin.memorag.kv_memory import Cache, KVMemory, cache_of, chained
from memgraph_plugin.memorag.recording import recorded
from memgraph_plugin.memorag.rotary import check_supported, moved
from memgraph_plugin.memorag.scorers import SCORERS, Window
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.models.weights import Weights
from memgraph_plugin.prompts import RECONSTRUCT

if TYPE_CHECKING:
    from memgraph_plugin.memorag.beacon import MemoryTokens

logger = logging.getLogger(__name__)


class Compressor:
    """Makes memories with one model in one way.

    Args:
        weights: the model; not changed.
        spec: how much is kept, and by whose choice.
        tokens: the memory tokens of the mode "beacon" (`beacon.load` or `train_beacon`).

    Raises:
        ConfigurationError: the model is of an unsupported make, or the mode "beacon" has no trained tokens.
    """

    def __init__(self, weights: Weights, spec: MemorySpec, tokens: MemoryTokens | None = None) -> None:
        check_supported(weights.model.config)
        if spec.mode == "beacon" and tokens is None:
            raise ConfigurationError(
                'mode="beacon" needs trained memory tokens: give `tokens`, as `memgraph-plugin train '
                'memorag` makes them, or use mode="evict", which needs no training.'
            )
        self.weights = weights
        self.spec = spec
        self.tokens = tokens if spec.mode == "beacon" else None

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        return fingerprint(self.weights, self.spec, self.tokens.digest if self.tokens else "")

    @cached_property
    def frame(self) -> Frame:
        return Frame.of(self.weights.tokenizer)

    def new(self) -> KVMemory:
        """A memory of nothing."""
        return KVMemory(self.spec, self.fingerprint)

    def memorize(
        self,
        text: str,
        memory: KVMemory | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> KVMemory:
        """The memory of a text, laid before the model as the beginning of a user's message.

        Where a `memory` of the beginning of the same text is given, it is gone on with.
        """
        memory = memory or self.new()
        ids = [*self.frame.before, *self.frame.text(text)]
        self.append(memory, ids[memory.seen :], progress)
        return memory

    def append(
        self, memory: KVMemory, ids: Sequence[int], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Take in further tokens. Stopped in between, it holds whole windows: go on from `memory.seen`.

        `progress` is called after each window with the tokens of `ids` that are taken in, and all of them.

        Raises:
            ConfigurationError: the model has not enough positions; it says how far a memory reaches.
        """
        waiting = [*memory.tail, *ids]
        before, done = len(memory.tail), 0
        while len(waiting) - done >= self.spec.window:
            self._take(memory, waiting[done : done + self.spec.window])
            done += self.spec.window
            memory.tail = []
            if progress:
                progress(done - before, len(ids))
        memory.tail = waiting[done:]
        if progress:
            progress(len(ids), len(ids))

    def _take(self, memory: KVMemory, ids: list[int]) -> None:
        positions = self.weights.max_tokens
        if memory.entries + self.spec.needed > positions:
            raise ConfigurationError(
                f"{self.weights.name} reads {positions} positions: at a ratio of {self.spec.ratio} a memory "
                f"takes in {self.spec.reach(positions)} tokens at most. Choose a higher ratio, or "
                "memorize the text in parts."
            )
        try:
            self._compress(memory, ids)
        except torch.cuda.OutOfMemoryError:
            logger.warning("No more memory on %s; going on on the CPU, slowly", self.weights.model.device)
            self.weights.model.to("cpu")
            memory.layers = [(keys.cpu(), values.cpu()) for keys, values in memory.layers]
            torch.cuda.empty_cache()
            self._compress(memory, ids)
        memory.windows += 1
        memory.digest = chained(memory.digest, ids)

    @torch.inference_mode()
    def _compress(self, memory: KVMemory, ids: list[int]) -> None:
        """Add a window to the layers. The cache takes their tensors over: none is held twice."""
        start, read = memory.entries, torch.tensor(ids, device=self.weights.model.device)
        cache, memory.layers = cache_of(memory.layers), []
        try:
            if self.tokens is not None:
                _, mask = self.tokens.read(self.weights.model, cache, read[None], self.spec.ratio)
                heads = cache.layers[0].keys.shape[1]
                chosen = [mask.nonzero()[:, 0].expand(heads, -1)] * len(cache.layers)
            else:
                chosen = self._chosen(cache, read, start, memory.windows)
            frequencies = self.weights.model.base_model.rotary_emb.inv_freq
            for layer, stay in zip(cache.layers, chosen, strict=True):
                keep(layer, start, stay, frequencies)
        except BaseException:
            memory.layers = [
                (layer.keys[:, :, :start].clone(), layer.values[:, :, :start].clone())
                for layer in (cache.layers if start else [])
            ]
            raise
        memory.layers = [(layer.keys, layer.values) for layer in cache.layers]

    def _chosen(self, cache: Cache, ids: torch.Tensor, start: int, number: int) -> list[torch.Tensor]:
        """Read a window; for each layer and head [H_kv, k], which of its tokens stay, in order."""
        decoder = self.weights.model.base_model
        with recorded(decoder) as hidden:
            decoder(input_ids=ids[None], past_key_values=cache, use_cache=True)
        heads = cache.layers[0].keys.shape[1]
        if self.spec.ratio == 1:
            return [torch.arange(len(ids), device=ids.device).expand(heads, -1)] * len(cache.layers)
        window = Window(decoder, cache, hidden, ids, self._again, start, number, self.spec)
        scores = SCORERS[self.spec.scorer](window)
        sinks = 0 if number else self.spec.entries(1) - self.spec.kept
        return [_best(score, self.spec.kept, sinks) for score in scores]

    @cached_property
    def _again(self) -> torch.Tensor:
        ids = self.frame.text(RECONSTRUCT) if self.spec.scorer == "reconstruction" else []
        return torch.tensor(ids, device=self.weights.model.device, dtype=torch.long)


def _best(scores: torch.Tensor, kept: int, sinks: int) -> torch.Tensor:
    """The first `sinks` places and the `kept` highest of the rest [H_kv, sinks + kept], in order."""
    best = scores[:, sinks:].topk(kept, dim=-1).indices + sinks
    first = torch.arange(sinks, device=scores.device).expand(len(scores), -1)
    return torch.cat([first, best], dim=-1).sort(dim=-1).values


def keep(layer: Any, start: int, chosen: torch.Tensor, frequencies: torch.Tensor) -> None:
    """Leave in a layer what is before `start` and, of the rest, the chosen places [H_kv, k], moved up."""
    at = (start + chosen)[None, :, :, None].expand(-1, -1, -1, layer.keys.shape[-1])
    by = torch.arange(chosen.shape[-1], device=chosen.device) - chosen
    keys = moved(layer.keys.gather(2, at), by, frequencies)
    layer.keys = torch.cat([layer.keys[:, :, :start], keys], dim=2)
    layer.values = torch.cat([layer.values[:, :, :start], layer.values.gather(2, at)], dim=2)
