"""How far a figure may be trusted: its interval over samples drawn again from the same units."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

Unit = TypeVar("Unit")

RESAMPLES = 2_000


def interval(units: Sequence[Unit], measure: Callable[[Sequence[Unit]], float]) -> tuple[float, float]:
    """95 % bootstrap interval of a measure over independent units; the same every time."""
    if not units:
        return 0.0, 0.0
    draw = random.Random(0)  # noqa: S311 - resampling
    found = sorted(measure(draw.choices(units, k=len(units))) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES) - 1]
