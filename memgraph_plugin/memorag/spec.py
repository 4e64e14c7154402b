"""How a text is compressed into memory, and what follows from it in entries and bytes. No I/O, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from memgraph_plugin.errors import ConfigurationError

Scorer: TypeAlias = Literal[
    "reconstruction", "expected_attention", "window_attention", "keydiff", "norm", "random"
]
"""Who says which entries of a window stay; `scorers` has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySpec:
    """Of every `window` raw tokens, `window / ratio` entries of keys and values stay in each layer.

    Args:
        window: raw tokens that are read at a time (l).
        ratio: raw tokens for each entry that stays (beta); 1 keeps everything.
        mode: "evict" keeps the raw tokens' own entries that `scorer` prefers, and needs no training; "beacon"
            keeps those of memory tokens with projections of their own, which are trained.
        scorer: for "evict".
        sinks: entries of the first tokens that stay besides; models lean on them.
        seed: of the scorer "random".

    Raises:
        ConfigurationError: the window cannot be divided like that.
    """

    window: int = 1024
    ratio: int = 4
    mode: Literal["evict", "beacon"] = "evict"
    scorer: Scorer = "reconstruction"
    sinks: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ratio < 1 or self.window < 1 or self.window % self.ratio:
            raise ConfigurationError(
                f"a window of {self.window} tokens cannot be kept at a ratio of {self.ratio}: "
                "the ratio is a whole number that divides the window"
            )
        if not 0 <= self.sinks < self.window:
            raise ConfigurationError(f"sinks={self.sinks}: from 0 up to the window of {self.window} tokens")

    @property
    def kept(self) -> int:
        """Entries that stay of one window, in each layer (l / beta)."""
        return self.window // self.ratio

    def entries(self, windows: int) -> int:
        """Entries after so many windows: floor(n / l) * (l / beta) + s; where everything is kept, n."""
        extra = min(self.sinks, self.window - self.kept) if windows and self.mode == "evict" else 0
        return windows * self.kept + extra

    def reach(self, positions: int, room: int = 0) -> int:
        """Tokens of text that a memory takes in where a model has so many positions and `room` stay free.

        In whole windows; the last one is read behind all others: n <= beta * (P - l - room) + l.
        """
        free = positions - room - self.needed
        return (max(0, free - self.sinks) // self.kept + 1) * self.window if free >= 0 else 0

    @property
    def needed(self) -> int:
        """Positions that reading one more window takes up beyond the memory, for a short while."""
        if self.mode == "beacon":
            return self.window + self.kept
        return 2 * self.window + 64 if self.scorer == "reconstruction" else self.window


def kv_bytes(entries: int, layers: int, heads: int, dimension: int, itemsize: int) -> int:
    """Bytes of keys and values: 2 * L * H_kv * d * b for each entry."""
    return 2 * entries * layers * heads * dimension * itemsize
