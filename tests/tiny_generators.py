"""Tiny generators with random weights, and sentences to train them on for a moment."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from transformers import MarianConfig, MarianMTModel

from memgraph_plugin.selfmem.network import Network
from memgraph_plugin.selfmem.seq2seq import Decoding, DualSeq2Seq, JointSeq2Seq, Seq2Seq
from memgraph_plugin.selfmem.tokens import Tokens
from memgraph_plugin.selfmem.train_generator import Shape, new_generator
from memgraph_plugin.types import Example

NOUNS = {
    "file": "Datei",
    "table": "Tabelle",
    "role": "Rolle",
    "index": "Index",
    "view": "Sicht",
    "row": "Zeile",
}
ENDS = {
    "not found": "nicht gefunden",
    "was dropped": "wurde entfernt",
    "is locked": "ist gesperrt",
    "is %s": "ist %s",
}

EXAMPLES = [
    Example(source=f'{noun} "%s" {end}', target=f"{NOUNS[noun]} »%s« {ENDS[end]}", key=f"{noun}-{end}")
    for noun in NOUNS
    for end in ENDS
]


def tiny(kind: Literal["joint", "dual"], seed: int = 9, **decoding: Any) -> Seq2Seq:
    """Two layers of width 32; the same numbers every time, and nobody else's."""
    made = new_generator(kind, EXAMPLES, Shape(width=32, heads=2, vocabulary=300, positions=96), seed=seed)
    made.decoding = Decoding(**{"max_tokens": 12, **decoding})
    return made


def tiny_marian(kind: Literal["joint", "dual"]) -> Seq2Seq:
    """The same as a Marian, whose positions are sines and whose embedding has no norm."""
    tokens = _tokens()
    config = MarianConfig(
        vocab_size=len(tokens.tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=96,
        scale_embedding=True,
        pad_token_id=tokens.tokenizer.pad_token_id,
        eos_token_id=tokens.tokenizer.eos_token_id,
        decoder_start_token_id=tokens.tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    torch.manual_seed(3)
    make = DualSeq2Seq if kind == "dual" else JointSeq2Seq
    return make(Network(MarianMTModel(config), kind == "dual"), tokens, Decoding(max_tokens=12))


@functools.cache
def _tokens() -> Tokens:
    return tiny("joint").tokens
