"""Questions to a memory: its model reads them behind a fork of it, and answers; the memory stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memorag.kv_memory import KVMemory
from memgraph_plugin.models.weights import Weights

logger = logging.getLogger(__name__)


def answers(
    weights: Weights, memory: KVMemory, questions: Sequence[Sequence[int]], *, max_tokens: int
) -> list[list[int]]:
    """The replies' ids, without what ends them: greedy, all in one pass over the memory.

    The memory's tail is read before the questions, once. Where the device is too small for all, half are
    asked at a time.

    Raises:
        ConfigurationError: memory, question and reply together are longer than the model reads.
    """
    longest = max(map(len, questions), default=0) + len(memory.tail)
    if memory.entries + longest + max_tokens > weights.max_tokens:
        raise ConfigurationError(
            f"{weights.name} reads {weights.max_tokens} positions: a memory of {memory.entries} entries, a "
            f"question of {longest} tokens and {max_tokens} of reply are too many"
        )
    try:
        return _answers(weights, memory, [list(question) for question in questions], max_tokens)
    except torch.cuda.OutOfMemoryError:
        if len(questions) == 1:
            raise
        torch.cuda.empty_cache()
        logger.warning("No room to ask %d questions at once; asking half of them", len(questions))
        half = len(questions) // 2
        return [
            *answers(weights, memory, questions[:half], max_tokens=max_tokens),
            *answers(weights, memory, questions[half:], max_tokens=max_tokens),
        ]


@torch.inference_mode()
def _answers(
    weights: Weights, memory: KVMemory, prompts: list[list[int]], max_tokens: int
) -> list[list[int]]:
    if not prompts:
        return []
    device, longest = weights.model.device, max(map(len, prompts))
    if not min(map(len, prompts)):
        raise ConfigurationError("there is nothing to read: the question is empty")
    cache = memory.fork()
    if memory.tail:
        tail = torch.tensor([memory.tail], device=device)
        weights.model.base_model(input_ids=tail, past_key_values=cache, use_cache=True)
    before = memory.entries + len(memory.tail)
    pad = min(weights.end_tokens, default=0)
    padding = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor(
        [[pad] * n + prompt for n, prompt in zip(padding, prompts, strict=True)], device=device
    )
    # Without a mask over the memory, too, `generate` takes its entries off the question's length.
    mask = torch.ones(len(prompts), before + longest, dtype=torch.long, device=device)
    for row, n in enumerate(padding):
        mask[row, before : before + n] = 0
    cache.batch_repeat_interleave(len(prompts))
    out = weights.model.generate(
        ids,
        attention_mask=mask,
        past_key_values=cache,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_tokens,
        eos_token_id=sorted(weights.end_tokens) or None,
        pad_token_id=pad,
    )
    return [_until_end(row, weights.end_tokens) for row in out[:, longest:].tolist()]


def _until_end(ids: list[int], ends: frozenset[int]) -> list[int]:
    return next((ids[:n] for n, i in enumerate(ids) if i in ends), ids)
