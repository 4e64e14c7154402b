"""Memory tokens: after every beta raw tokens stands one with its own projections, and only it stays.

The compact global memory of MemoRAG (section 2.2), which is Activation Beacon (Zhang et al., arXiv
2401.03462) with interleaved tokens. The model's own code is not touched: hooks on the three projections put
in, at the memory tokens' places, what a projection of their own gives; elsewhere the base model is left as it
is, bit for bit.

Departs from it: the projections may be a low-rank change (LoRA) instead of copies, and keys are stored turned
to their compact positions, not before they are turned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.memorag.kv_memory import Cache
from memgraph_plugin.models.weights import weights_hash

PROJECTIONS = ("q_proj", "k_proj", "v_proj")

FORMAT = "memgraph-memory-tokens/1"


class MemoryTokens(nn.Module):
    """The embedding and the projections of memory tokens: the only things that are trained.

    Args:
        model: the model they are for; it is not kept.
        rank: of a low-rank change of each projection; 0 for whole copies, as in the paper.
    """

    def __init__(self, model: Any, rank: int = 0) -> None:
        super().__init__()
        self.rank = rank
        self.base = weights_hash(model)
        decoder = model.base_model
        end = model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end or 0]
        with torch.no_grad():
            start = decoder.embed_tokens(torch.tensor(ends[:1], device=model.device))[0]
        self.embedding = nn.Parameter(start.float().clone())
        last = len(decoder.layers) - 1
        self.projections = nn.ModuleDict()
        for number, layer in enumerate(decoder.layers):
            for name in PROJECTIONS:
                if not (number == last and name == "q_proj"):  # nothing reads what it leads to
                    own = getattr(layer.self_attn, name)
                    self.projections[f"{number}_{name}"] = _Change(own, rank) if rank else _Copy(own)

    @cached_property
    def digest(self) -> str:
        """A hash of what was learned."""
        return weights_hash(self)

    def read(
        self, model: Any, cache: Cache, ids: torch.Tensor, ratio: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a window [B, T] and its memory tokens behind the cache.

        Returns: the last layer's states [B, T + T / ratio, hidden], and which of them are the memory tokens'.
        """
        decoder = model.base_model
        raw = decoder.embed_tokens(ids).unflatten(1, (-1, ratio))
        own = self.embedding.to(raw.dtype).expand(*raw.shape[:2], 1, -1)
        laid = torch.cat([raw, own], dim=2).flatten(1, 2)
        mask = torch.zeros(laid.shape[1], dtype=torch.bool, device=ids.device)
        mask[ratio :: ratio + 1] = True
        with self.at(decoder, mask):
            out = decoder(inputs_embeds=laid, past_key_values=cache, use_cache=True)
        return out.last_hidden_state, mask

    @contextmanager
    def at(self, decoder: Any, mask: torch.Tensor) -> Iterator[None]:
        """While this lasts, this thread's reading is projected by these at the places of `mask` [T]."""
        reader = get_ident()  # others may use the same weights meanwhile

        def instead(own: nn.Module) -> Any:
            def hook(_: Any, args: tuple[torch.Tensor], base: torch.Tensor) -> torch.Tensor | None:
                if get_ident() != reader:
                    return None
                changed = own(args[0][:, mask].float(), base[:, mask].float())
                return base.masked_scatter(mask[None, :, None], changed.to(base.dtype))

            return hook

        with ExitStack() as undone:
            for key, own in self.projections.items():
                number, _, name = key.partition("_")
                projection = getattr(decoder.layers[int(number)].self_attn, name)
                undone.callback(projection.register_forward_hook(instead(own)).remove)
            yield

    def save(self, path: Path) -> None:
        """Write them as one safetensors file."""
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state_dict().items()},
            path,
            {"format": FORMAT, "rank": str(self.rank), "base": self.base},
        )


def load(path: Path, model: Any) -> MemoryTokens:
    """The memory tokens in a file.

    Raises:
        ConfigurationError: there is no such file, or it holds something else.
        FingerprintMismatch: they were trained with another model.
    """
    try:
        with safe_open(path, "pt") as file:
            about: Mapping[str, str] = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except Exception as error:  # safetensors' own errors have no common name
        raise ConfigurationError(f"{path} holds no memory tokens: {error}") from error
    if about.get("format") != FORMAT:
        raise ConfigurationError(f"{path} holds no memory tokens ({FORMAT})")
    tokens = MemoryTokens(model, int(about["rank"]))
    if about["base"] != tokens.base:
        raise FingerprintMismatch(f"The memory tokens in {path} were trained with another model.")
    tokens.load_state_dict(state)
    return tokens.to(model.device).eval()


class _Change(nn.Module):
    """A low-rank change of a projection, nothing at first: base(x) + B A x (Hu et al., arXiv 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, states: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        return base + states @ self.a.T @ self.b.T


class _Copy(nn.Module):
    """A projection in place of the base model's, equal to it at first."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(base.weight.detach().float().clone())
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().float().clone())

    def forward(self, states: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(states, self.weight, self.bias)
