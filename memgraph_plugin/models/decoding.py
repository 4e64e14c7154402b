"""Decoding from a local language model, token by token: greedy or sampled, free or held to a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import llguidance
import numpy as np
import torch
from transformers import DynamicCache

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.models.weights import Weights


class Constraint:
    """Holds a reply to a JSON schema, by allowing at each step the tokens that can still lead to such JSON.

    Raises:
        ConfigurationError: the schema uses what llguidance does not know.
    """

    def __init__(self, weights: Weights, schema: dict[str, Any]) -> None:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(_closed(schema)),
            overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
        )
        self._matcher = llguidance.LLMatcher(weights.grammar_tokenizer, grammar, log_level=0)
        self._check()

    @property
    def complete(self) -> bool:
        return bool(self._matcher.is_stopped())

    def forced(self) -> list[int]:
        """The next tokens where the schema leaves no choice: the names of fields, for example."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        self.accept(tokens)
        return tokens

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = torch.from_numpy(bits[: logits.shape[-1]]).bool().to(logits.device)
        return logits.masked_fill(~allowed, float("-inf"))

    def accept(self, tokens: Sequence[int]) -> None:
        self._matcher.consume_tokens(list(tokens))
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConfigurationError(f"a reply cannot be held to this schema: {self._matcher.get_error()}")


def _closed(schema: Any) -> Any:
    """The schema without room for fields that it does not name; small models fill such room with nonsense."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


@dataclass(frozen=True, slots=True)
class Sampling:
    """Greedy at temperature 0. `seed` makes a sampled reply repeatable."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


def decode(
    weights: Weights,
    prompt: Sequence[int],
    max_tokens: int,
    sampling: Sampling,
    constraint: Constraint | None,
) -> Iterator[int]:
    """The reply's tokens, one by one, without the token that ends it."""
    generator = _generator(weights, sampling)
    cache, made = DynamicCache(config=weights.model.config), 0
    tokens = constraint.forced() if constraint else []
    feed = [*prompt, *tokens]
    while True:
        for token in tokens:
            if token in weights.end_tokens or made == max_tokens:
                return
            made += 1
            yield token
        if made == max_tokens or (constraint and constraint.complete):
            return
        logits = _forward(weights, feed, cache)
        token = _choose(constraint.mask(logits) if constraint else logits, sampling, generator)
        if constraint:
            constraint.accept([token])
        tokens = feed = [token, *(constraint.forced() if constraint else [])]


@torch.inference_mode()
def _forward(weights: Weights, feed: list[int], cache: DynamicCache) -> torch.Tensor:
    """The logits [vocabulary] after `feed`, in float32."""
    ids = torch.tensor([feed], device=weights.model.device)
    output = weights.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: torch.Tensor = output.logits[0, -1].float()
    return logits


def _generator(weights: Weights, sampling: Sampling) -> torch.Generator:
    generator = torch.Generator(weights.model.device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def _choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature <= 0.0:
        return int(logits.argmax())
    chances, order = torch.softmax(logits / sampling.temperature, -1).sort(descending=True)
    chances[chances.cumsum(-1) - chances > sampling.top_p] = 0.0
    return int(order[torch.multinomial(chances, 1, generator=generator)])
