"""Who says which entries of a window stay in memory: a score a token, head and layer; the highest stay.

None of them sees a question, so that one memory serves all. What they cost and keep is measured in the docs;
`random` is the baseline that a scorer has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from memgraph_plugin.memorag.kv_memory import Cache
from memgraph_plugin.memorag.recording import recorded
from memgraph_plugin.memorag.rotary import turned
from memgraph_plugin.memorag.spec import MemorySpec, Scorer

OBSERVED = 64
"""Last queries of a window by which `window_attention` looks (SnapKV's observation window)."""

FUTURE = 512
"""Positions ahead over which `expected_attention` takes the mean of where queries will be."""

ROWS = 256
"""Queries for which attention is computed at a time, to bound what it takes."""


@dataclass(frozen=True)
class Window:
    """A window just read: where it lies, and what each layer saw of it.

    Args:
        decoder: the model without its head.
        cache: entries of the memory and, from `start` on, of the window's T tokens.
        hidden: for each layer, what its attention was given [T, hidden].
        ids: the window's token ids.
        again: ids of the words that ask to say it again, for `reconstruction`.
        number: which window of its text.
    """

    decoder: Any
    cache: Cache
    hidden: Sequence[torch.Tensor]
    ids: torch.Tensor
    again: torch.Tensor
    start: int
    number: int
    spec: MemorySpec

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def keys(self, layer: int) -> torch.Tensor:
        """Keys of the window [H_kv, T, d], turned to their positions."""
        return self._part(self.cache.layers[layer].keys)

    def values(self, layer: int) -> torch.Tensor:
        """Values of the window [H_kv, T, d]."""
        return self._part(self.cache.layers[layer].values)

    def _part(self, states: Any) -> torch.Tensor:
        part: torch.Tensor = states[0, :, self.start : self.start + self.tokens]
        return part


def norm(window: Window) -> list[torch.Tensor]:
    """Small keys stay: they tend to be attended to (Devoto et al., arXiv 2406.11430)."""
    return [-window.keys(layer).float().norm(dim=-1) for layer in range(len(window.hidden))]


def keydiff(window: Window) -> list[torch.Tensor]:
    """Keys unlike the mean key stay (KeyDiff, arXiv 2504.15364)."""
    scores = []
    for layer in range(len(window.hidden)):
        keys = nn.functional.normalize(window.keys(layer).float(), dim=-1)
        scores.append(-nn.functional.cosine_similarity(keys, keys.mean(dim=-2, keepdim=True), dim=-1))
    return scores


def random(window: Window) -> list[torch.Tensor]:
    """Chance, the same for the same seed and window."""
    generator = torch.Generator().manual_seed(window.spec.seed * 1_000_003 + window.number)
    device = window.ids.device
    return [
        torch.rand(window.keys(layer).shape[:-1], generator=generator).to(device)
        for layer in range(len(window.hidden))
    ]


def window_attention(window: Window) -> list[torch.Tensor]:
    """What the window's last queries attend to, smoothed over neighbours (SnapKV, arXiv 2404.14469)."""
    scores = []
    seen = min(OBSERVED, window.tokens)
    at = window.start + torch.arange(window.tokens - seen, window.tokens, device=window.ids.device)
    for layer, hidden in enumerate(window.hidden):
        attention = window.decoder.layers[layer].self_attn
        asked = turned(_queries(attention, hidden[-seen:]), at, window.decoder.rotary_emb)
        share = _attention(asked, window.keys(layer), attention.scaling, window.tokens - seen).mean(dim=-2)
        scores.append(nn.functional.max_pool1d(share[None], 7, stride=1, padding=3)[0])
    return scores


def expected_attention(window: Window) -> list[torch.Tensor]:
    """What queries to come will attend to, if normal with this window's moments, times the norm of values.

    E[exp(q k / sqrt(d))] = exp(mu k / sqrt(d) + k' Sigma k / 2d), with mu and Sigma turned by the mean
    rotation of the next positions (Expected Attention, arXiv 2510.00636).
    """
    scores = []
    ahead = window.start + window.tokens + torch.arange(FUTURE, device=window.ids.device)
    units = torch.eye(window.keys(0).shape[-1], device=ahead.device)
    # Row i: what the i-th unit vector becomes on average.
    rotation = torch.stack(
        [turned(unit.expand(FUTURE, -1), ahead, window.decoder.rotary_emb).mean(dim=0) for unit in units]
    )
    for layer, hidden in enumerate(window.hidden):
        attention = window.decoder.layers[layer].self_attn
        queries = _queries(attention, hidden).float()
        mean = queries.mean(dim=1)
        centred = (queries - mean[:, None]) @ rotation
        covariance = centred.transpose(-1, -2) @ centred / window.tokens
        keys = window.keys(layer).float()
        group = len(queries) // len(keys)
        keys = keys.repeat_interleave(group, dim=0)
        logits = (keys @ (mean @ rotation)[..., None])[..., 0] * attention.scaling
        logits += ((keys @ covariance) * keys).sum(dim=-1) * attention.scaling**2 / 2
        share = logits.softmax(dim=-1).view(-1, group, window.tokens).mean(dim=1)
        scores.append((share + 0.02) * window.values(layer).float().norm(dim=-1))
    return scores


def reconstruction(window: Window) -> list[torch.Tensor]:
    """What is attended to while the window is said once more, times the norm of values; one pass more.

    After KVzip (arXiv 2505.23416), and departs from it: attention goes over all that came before, it is
    weighted by what it brings (without that, half of the needles more were lost), each head keeps the same
    number, and what is not kept is dropped rather than masked.
    """
    ids = torch.cat([window.again, window.ids])
    with recorded(window.decoder) as hidden:
        window.decoder(input_ids=ids[None], past_key_values=window.cache, use_cache=True)
    scores = []
    before = window.start + window.tokens
    at = before + torch.arange(len(ids), device=ids.device)
    for layer, seen in enumerate(hidden):
        attention = window.decoder.layers[layer].self_attn
        states = window.cache.layers[layer]
        asked = turned(_queries(attention, seen), at, window.decoder.rotary_emb)
        share = _attention(asked, states.keys[0], attention.scaling, before, most=True)[0]
        scores.append(share[:, window.start : before] * window.values(layer).float().norm(dim=-1))
        # What was read a second time is not to stay.
        states.keys, states.values = states.keys[:, :, :before], states.values[:, :, :before]
    return scores


SCORERS: Mapping[Scorer, Callable[[Window], list[torch.Tensor]]] = MappingProxyType(
    {
        "reconstruction": reconstruction,
        "expected_attention": expected_attention,
        "window_attention": window_attention,
        "keydiff": keydiff,
        "norm": norm,
        "random": random,
    }
)
"""By the name that a `MemorySpec` gives: scores [H_kv, T] for each layer."""


def _queries(attention: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Queries [H, T, d] of an attention, before they are turned."""
    states = attention.q_proj(hidden).view(len(hidden), -1, attention.head_dim)
    normed = attention.q_norm(states) if hasattr(attention, "q_norm") else states
    queries: torch.Tensor = normed.transpose(0, 1)
    return queries


def _attention(
    queries: torch.Tensor, keys: torch.Tensor, scaling: float, first: int, *, most: bool = False
) -> torch.Tensor:
    """Attention of queries [H, R, d] over keys [H_kv, T, d]; query r sees the keys up to `first` + r.

    Returns: for each head of keys the mean over its queries' heads [H_kv, R, T]; with `most`, the greatest
    share that any query of any head gives [1, H_kv, T].
    """
    groups = queries.view(keys.shape[0], -1, *queries.shape[1:])
    places = torch.arange(keys.shape[1], device=keys.device)
    rows, greatest = [], torch.zeros(keys.shape[:2], device=keys.device)
    for begin in range(0, groups.shape[2], ROWS):
        some = groups[:, :, begin : begin + ROWS]
        logits = (some @ keys[:, None].transpose(-1, -2)).float() * scaling
        until = first + begin + torch.arange(some.shape[2], device=keys.device)
        share = logits.masked_fill_(places > until[:, None], float("-inf")).softmax(dim=-1)
        if most:
            greatest = torch.maximum(greatest, share.amax(dim=(1, 2)))
        else:
            rows.append(share.mean(dim=1))
    return greatest[None] if most else torch.cat(rows, dim=1)
