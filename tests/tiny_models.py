"""Tiny language models with random weights, of each architecture that a memory can be made of."""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from memgraph_plugin.models.weights import Weights, quiet

VOCABULARY = 320
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma")


def tiny(kind: str = "llama", *, dtype: torch.dtype = torch.float32, **settings: Any) -> Weights:
    """Two layers, four heads on two of keys, in width 64; the same numbers every time."""
    return _tiny(kind, dtype, json.dumps(settings, sort_keys=True))


@functools.cache
def _tiny(kind: str, dtype: torch.dtype, settings: str) -> Weights:
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
            **({"sliding_window": None} if kind == "mistral" else {}),
            **json.loads(settings),
        },
    )
    torch.manual_seed(11)
    with quiet():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    return Weights(f"tiny-{kind}", model, _tokenizer())


@functools.cache
def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and two that a chat template would use."""
    letters = {char: 2 + n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({"<pad>": 0, "<end>": 1, **letters}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
