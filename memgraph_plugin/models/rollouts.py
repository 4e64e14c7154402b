"""Many replies to one prompt at once, each held to a JSON schema: what a policy is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from memgraph_plugin.models.decoding import Constraint
from memgraph_plugin.models.weights import Weights


@dataclass(slots=True)
class Rollout:
    """One reply.

    Args:
        tokens: without the one that ends it.
        chosen: for each token, whether it was the model's choice; others the schema left no choice about.
        whole: whether it came to its end within the allowed tokens.
    """

    tokens: list[int] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    whole: bool = False

    def add(self, token: int, *, chosen: bool) -> None:
        self.tokens.append(token)
        self.chosen.append(chosen)


@torch.no_grad()
def rollouts(
    weights: Weights,
    prompt: Sequence[int],
    count: int,
    schema: dict[str, Any],
    *,
    max_tokens: int,
    temperature: float = 0.0,
) -> list[Rollout]:
    """`count` replies to a prompt, which is read once; greedy at temperature 0.

    Draws from torch's own random state, so that a training that goes on from a checkpoint draws the same.

    Raises:
        ConfigurationError: the schema uses what llguidance does not know.
    """
    rows = [_Row(Constraint(weights, schema)) for _ in range(count)]
    read = [*prompt, *rows[0].reply.tokens]  # which all of them begin with
    cache = DynamicCache(config=weights.model.config)
    feed = torch.tensor([read], device=weights.model.device)
    cache, logits = _read(weights, feed, cache)
    cache.batch_repeat_interleave(count)
    logits = logits.expand(count, -1)
    live = rows
    while True:
        tokens = [row.step(line, temperature) for row, line in zip(live, logits, strict=True)]
        for row in live:
            row.settle(weights, max_tokens)
        kept = [place for place, row in enumerate(live) if not row.done]
        if not kept:
            return [row.reply for row in rows]
        if len(kept) < len(live):
            cache.batch_select_indices(torch.tensor(kept, device=weights.model.device))
            live = [live[place] for place in kept]
        feed = torch.tensor([[tokens[place]] for place in kept], device=weights.model.device)
        cache, logits = _read(weights, feed, cache)


class _Row:
    """One reply under way."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._forced: list[int] = []
        begun = constraint.forced()
        self.reply = Rollout(begun, [False] * len(begun))
        self.done = False

    def step(self, logits: torch.Tensor, temperature: float) -> int:
        """The next token, by the logits [vocabulary] or the schema."""
        if self._forced:
            token = self._forced.pop(0)
            self.reply.add(token, chosen=False)
            return token
        allowed = self._constraint.mask(logits.float())
        if temperature > 0:
            token = int(torch.multinomial(torch.softmax(allowed / temperature, -1), 1))
        else:
            token = int(allowed.argmax())
        self._constraint.accept([token])
        self._forced = self._constraint.forced()
        self.reply.add(token, chosen=True)
        return token

    def settle(self, weights: Weights, max_tokens: int) -> None:
        """Whether the reply ends here."""
        reply = self.reply
        if reply.tokens[-1] in weights.end_tokens:
            del reply.tokens[-1], reply.chosen[-1]
            reply.whole = True
        elif self._constraint.complete and not self._forced:
            reply.whole = True
        self.done = reply.whole or len(reply.tokens) >= max_tokens


def _read(weights: Weights, feed: torch.Tensor, cache: DynamicCache) -> tuple[DynamicCache, torch.Tensor]:
    """The cache after `feed` [rows, tokens], and the logits [rows, vocabulary] that follow."""
    output = weights.model(input_ids=feed, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return output.past_key_values, output.logits[:, -1]
