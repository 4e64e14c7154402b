"""Positions of keys: which models turn them so that they can be turned again, and turning them.

Rotary position embedding (Su et al., arXiv 2104.09864) turns a key at position p by angles p * f. Turning it
by (q - p) * f moves it to position q: rotations are a group. A memory moves each key once, from where it was
read to its compact place, so that a stock forward pass, which counts what is in its cache, is right.
"""

from __future__ import annotations

from typing import Any

import torch

from memgraph_plugin.errors import ConfigurationError

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma")
"""Architectures with full attention, one projection each for queries, keys and values, and halves rotated."""

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding whose frequencies do not change with the length of what is read."""


def check_supported(config: Any) -> None:
    """Make sure that a model's keys can be moved and its layers hold everything.

    Raises:
        ConfigurationError: they cannot; it says what is in the way.
    """
    text = config.get_text_config()
    name = f"a memory of a {text.model_type!r} model"
    if text.model_type not in MODEL_TYPES:
        raise ConfigurationError(
            f"{name} is not supported: its attention may be fused, sliding or turned otherwise. "
            f"These are: {', '.join(MODEL_TYPES)}."
        )
    kinds = {kind for kind in getattr(text, "layer_types", None) or () if kind != "full_attention"}
    if kinds or (getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)):
        raise ConfigurationError(
            f"{name} whose layers have a sliding window is not supported: they let go of what was read long "
            "ago. Choose a model with full attention, or set sliding_window to None where it allows that."
        )
    rope = getattr(text, "rope_parameters", None) or {}
    if (kind := rope.get("rope_type", "default")) not in ROPE_TYPES:
        raise ConfigurationError(
            f"{name} with rotary embedding of type {kind!r} is not supported: its frequencies change with "
            f"the length of what is read. These are: {', '.join(ROPE_TYPES)}."
        )
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigurationError(f"{name} that turns only a part of each key is not supported.")


def moved(keys: torch.Tensor, by: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Keys [..., H, T, d] moved by so many positions [H, T]; computed in float32, rounded once.

    An attention factor (yarn's) is in the keys already, and a rotation keeps it.
    """
    angles = by[..., None].double() * frequencies.to(by.device).double()
    cos, sin = angles.cos().float(), angles.sin().float()
    first, second = keys.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(keys.dtype)


def turned(states: torch.Tensor, positions: torch.Tensor, rotary: Any) -> torch.Tensor:
    """Queries [..., T, d] turned to their positions [T], as the model itself does it."""
    cos, sin = rotary(states, positions[None])
    first, second = states.chunk(2, dim=-1)
    there: torch.Tensor = states * cos[0] + torch.cat([-second, first], dim=-1) * sin[0]
    return there
