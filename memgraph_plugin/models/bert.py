"""A BERT sentence encoder on bare torch: to import transformers takes longer than to embed and search.

It gives what sentence-transformers gives (to 1e-5) for models of its usual make: BERT, mean or CLS pooling.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    heads: int
    epsilon: float
    max_tokens: int
    pool: str


class BertEncoder:
    """`directory` holds config.json, tokenizer.json, model.safetensors and sentence-transformers' modules."""

    def __init__(self, directory: Path, device: str) -> None:
        self._shape = _shape(directory)
        self._weights = {
            name.removeprefix("bert."): tensor.float()
            for name, tensor in load_file(directory / "model.safetensors", device=device).items()
        }
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._shape.max_tokens)
        self._device = device

    @property
    def dimensions(self) -> int:
        return self._weights["embeddings.word_embeddings.weight"].shape[1]

    @staticmethod
    def fits(directory: Path) -> bool:
        """Whether the model in this directory is of the make that is encoded here."""
        needed = (
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "1_Pooling/config.json",
            "modules.json",
        )
        if not all((directory / name).is_file() for name in needed):
            return False
        config, pooling = _read(directory / "config.json"), _read(directory / "1_Pooling/config.json")
        modules = [module["type"].rsplit(".", 1)[-1] for module in _read(directory / "modules.json")]
        return (
            config.get("architectures") == ["BertModel"]
            and config.get("hidden_act") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and modules in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
            and _pool(pooling) is not None
        )

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, cut to the longest that the model reads."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    @torch.inference_mode()
    def encode(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """Unit vectors of a batch of token ids."""
        longest = max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch], device=self._device)
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in batch])
        mask = mask.to(self._device)
        hidden = self._embed(ids)
        for layer in range(self._shape.layers):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden, mask)
        if self._shape.pool == "cls":
            pooled = hidden[:, 0]
        else:
            pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        vectors: list[list[float]] = F.normalize(pooled, dim=-1).cpu().tolist()
        return vectors

    def _embed(self, ids: Tensor) -> Tensor:
        weights = self._weights
        words = F.embedding(ids, weights["embeddings.word_embeddings.weight"])
        positions = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", words + positions + segment)

    def _layer(self, layer: str, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        query, key, value = (
            self._linear(f"{layer}attention.self.{name}", hidden)
            .view(batch, length, self._shape.heads, width // self._shape.heads)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        attended = attended.transpose(1, 2).reshape(batch, length, width)
        attended = self._linear(f"{layer}attention.output.dense", attended)
        hidden = self._norm(f"{layer}attention.output.LayerNorm", attended + hidden)
        inner = F.gelu(self._linear(f"{layer}intermediate.dense", hidden))
        return self._norm(f"{layer}output.LayerNorm", self._linear(f"{layer}output.dense", inner) + hidden)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self._shape.epsilon)


def _shape(directory: Path) -> _Shape:
    config = _read(directory / "config.json")
    sentence = directory / "sentence_bert_config.json"
    longest = (_read(sentence) if sentence.is_file() else {}).get("max_seq_length")
    return _Shape(
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
        max_tokens=longest or config["max_position_embeddings"],
        pool=_pool(_read(directory / "1_Pooling/config.json")) or "mean",
    )


def _pool(config: dict[str, Any]) -> str | None:
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    return {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get("".join(modes))


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
