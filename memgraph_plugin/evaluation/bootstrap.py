"""How far a figure may be trusted: its interval over samples drawn again from the same units."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Unit = TypeVar("Unit")

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much one system is better than another on the same units.

    Args:
        gain: the difference of the measure over all of them.
        low, high: its 95 % interval.
        p: how likely a difference as large, either way, were there none (Riezler and Maxwell, 2005).
    """

    gain: float
    low: float
    high: float
    p: float


def interval(units: Sequence[Unit], measure: Callable[[Sequence[Unit]], float]) -> tuple[float, float]:
    """95 % bootstrap interval of a measure over independent units; the same every time."""
    if not units:
        return 0.0, 0.0
    return _middle(_drawn(units, measure, RESAMPLES))


def paired(
    count: int,
    ours: Callable[[Sequence[int]], float],
    theirs: Callable[[Sequence[int]], float],
    *,
    resamples: int = RESAMPLES,
) -> Gain:
    """The paired bootstrap of two systems' measures over rows 0..count-1; the same every time.

    `ours` and `theirs` measure any choice of rows, as `Metric.over` gives them.
    """
    rows = range(count)
    if not rows:
        return Gain(0.0, 0.0, 0.0, 1.0)
    gain = ours(rows) - theirs(rows)
    found = _drawn(rows, lambda drawn: ours(drawn) - theirs(drawn), resamples)
    centre = sum(found) / len(found)
    as_large = sum(abs(each - centre) >= abs(gain) for each in found)
    return Gain(gain, *_middle(found), p=(as_large + 1) / (len(found) + 1))


def _drawn(units: Sequence[Unit], measure: Callable[[Sequence[Unit]], float], resamples: int) -> list[float]:
    draw = random.Random(0)  # noqa: S311 - resampling
    return sorted(measure(draw.choices(units, k=len(units))) for _ in range(resamples))


def _middle(found: Sequence[float]) -> tuple[float, float]:
    """The bounds of the middle 95 % of sorted figures."""
    return found[int(0.025 * len(found))], found[int(0.975 * len(found)) - 1]
