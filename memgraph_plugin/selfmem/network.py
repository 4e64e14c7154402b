"""The network of a generator: a BART or a Marian whose decoder reads one text or two, many outputs at a time.

The decoder is run here, over the stock model's own layers, for two reasons. All outputs that are being
written for one source read the same keys and values of its encoding, which are neither computed nor stored
again for each; and a second attention, over the memory, has its place behind the first (dual encoder; Cheng
et al., arXiv 2305.02437, section 2.3). It computes what transformers' own forward pass does; a test compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from memgraph_plugin.errors import ConfigurationError

ARCHITECTURES = ("bart", "marian")

ROOM = 16
"""Places by which the keys and values of what was written grow at a time."""


@dataclass(slots=True)
class Reading:
    """A batch of texts as the decoder's layers read them.

    Args:
        layers: keys and values [B, heads, S, d] of each layer.
        mask: what is text, not padding [B, 1, 1, S]; None where all is.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    mask: torch.Tensor | None

    def rows(self, chosen: torch.Tensor) -> Reading:
        """Of only these texts."""
        layers = [(keys[chosen], values[chosen]) for keys, values in self.layers]
        return Reading(layers, None if self.mask is None else self.mask[chosen])


class Written:
    """Keys and values of what was written so far, in one tensor [2 x layers, N, heads, room, d]."""

    def __init__(self) -> None:
        self.length = 0
        self._all: torch.Tensor | None = None

    def add(self, number: int, keys: torch.Tensor, values: torch.Tensor, layers: int) -> Any:
        """Put a token's keys and values [N, heads, 1, d] of a layer behind the others, and give all."""
        if number == 0 and (self._all is None or self.length == self._all.shape[3]):
            count, heads, _, size = keys.shape
            more = keys.new_empty(2 * layers, count, heads, ROOM, size)
            self._all = more if self._all is None else torch.cat([self._all, more], dim=3)
        assert self._all is not None  # noqa: S101 - the first layer comes first
        self._all[2 * number, :, :, self.length : self.length + 1] = keys
        self._all[2 * number + 1, :, :, self.length : self.length + 1] = values
        until = self.length + 1
        if number == layers - 1:
            self.length += 1
        return self._all[2 * number, :, :, :until], self._all[2 * number + 1, :, :, :until]

    def rows(self, chosen: torch.Tensor) -> None:
        """Keep of each output that goes on what it is written behind [N']."""
        if self._all is not None:
            self._all = self._all.index_select(1, chosen)


class MemoryAttention(nn.Module):
    """The attention over the memory that a decoder layer of a dual model has besides, and its norm."""

    def __init__(self, width: int, spread: float) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            projection = nn.Linear(width, width)
            nn.init.normal_(projection.weight, std=spread)
            nn.init.zeros_(projection.bias)
            self.add_module(name, projection)
        self.layer_norm = nn.LayerNorm(width)


class Network(nn.Module):
    """A sequence-to-sequence model of transformers, run as described above.

    Args:
        base: a BART or a Marian with its head.
        dual: give each decoder layer an attention over a second text; it begins with random weights.

    Raises:
        ConfigurationError: the model is of another make.
    """

    def __init__(self, base: Any, dual: bool = False) -> None:
        super().__init__()
        config = base.config
        if config.model_type not in ARCHITECTURES:
            raise ConfigurationError(
                f"a generator is of {' or '.join(ARCHITECTURES)}; this model is a {config.model_type}"
            )
        self.base = base
        self.heads = config.decoder_attention_heads
        self.memory_attention = nn.ModuleList(
            MemoryAttention(config.d_model, config.init_std)
            for _ in range(config.decoder_layers if dual else 0)
        )

    @property
    def dual(self) -> bool:
        return len(self.memory_attention) > 0

    @property
    def device(self) -> torch.device:
        device: torch.device = self.base.device
        return device

    def read(self, texts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Reading]:
        """Encode the source, and the memory of a dual model: ids and mask [B, S] of each."""
        layers = self.base.get_decoder().layers
        attentions: list[Any] = [[layer.encoder_attn for layer in layers], list(self.memory_attention)]
        found = []
        for (ids, mask), attending in zip(texts, attentions, strict=False):
            states = self.base.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            pairs = [
                (self._split(each.k_proj(states)), self._split(each.v_proj(states))) for each in attending
            ]
            found.append(Reading(pairs, None if bool(mask.all()) else mask[:, None, None, :].bool()))
        return found

    def states(
        self, ids: torch.Tensor, readings: Sequence[Reading], written: Written | None = None
    ) -> torch.Tensor:
        """The last layer's states [N, T, width] of the ids [N, T]: all of the outputs, or a token of each.

        Args:
            readings: of B texts, where the N / B outputs for each stand side by side.
            written: what the token is written behind; None where the ids are whole outputs.
        """
        decoder, config = self.base.get_decoder(), self.base.config
        begin = written.length if written is not None else 0
        places = torch.arange(begin, begin + ids.shape[1], device=ids.device)
        x: torch.Tensor = decoder.embed_tokens(ids) * getattr(decoder, "embed_scale", 1.0)
        x = x + decoder.embed_positions(ids.shape, position_ids=places)
        if hasattr(decoder, "layernorm_embedding"):
            x = decoder.layernorm_embedding(x)
        x = self._drop(x)
        for number, layer in enumerate(decoder.layers):
            x = layer.self_attn_layer_norm(x + self._drop(self._behind(layer.self_attn, x, number, written)))
            x = layer.encoder_attn_layer_norm(
                x + self._drop(self._over(layer.encoder_attn, x, number, readings[0]))
            )
            if self.dual:
                memory: Any = self.memory_attention[number]
                x = memory.layer_norm(x + self._drop(self._over(memory, x, number, readings[1])))
            inner = layer.activation_fn(layer.fc1(x))
            inner = functional.dropout(inner, config.activation_dropout, self.training)
            x = layer.final_layer_norm(x + self._drop(layer.fc2(inner)))
        return x

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """What comes next [..., vocabulary] behind states [..., width]."""
        logits: torch.Tensor = self.base.lm_head(states) + self.base.final_logits_bias[0]
        return logits

    def digest(self) -> str:
        """A hash of all weights."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()

    def _behind(self, own: Any, x: torch.Tensor, number: int, written: Written | None) -> torch.Tensor:
        """Attention over what was written."""
        keys, values = self._split(own.k_proj(x)), self._split(own.v_proj(x))
        if written is not None:
            keys, values = written.add(number, keys, values, len(self.base.get_decoder().layers))
        return self._attend(own, x, keys, values, causal=written is None)

    def _over(self, own: Any, x: torch.Tensor, number: int, reading: Reading) -> torch.Tensor:
        """Attention over a text that was read, of all outputs for it at once."""
        keys, values = reading.layers[number]
        grouped = x.reshape(keys.shape[0], -1, x.shape[-1])
        return self._attend(own, grouped, keys, values, reading.mask).view_as(x)

    def _attend(
        self,
        own: Any,
        x: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        causal: bool = False,
    ) -> torch.Tensor:
        dropout = self.base.config.attention_dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(
            self._split(own.q_proj(x)), keys, values, mask, dropout, is_causal=causal
        )
        projected: torch.Tensor = own.out_proj(found.transpose(1, 2).flatten(2))
        return projected

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, width] by heads: [B, heads, T, d]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.base.config.dropout, self.training)
