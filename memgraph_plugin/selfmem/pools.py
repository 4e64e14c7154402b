"""Pools: what a selector learns from and is measured on, the candidates of a source beside its reference.

A pool of the generator's own training set looks better than any it will meet, since it has seen the
references there; the paper does not say how it gets around that. `cross_fitted` has each part written by a
generator that was trained without it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Literal

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.selfmem.metrics import Metric
from memgraph_plugin.selfmem.protocols import Generator
from memgraph_plugin.selfmem.selectors import best
from memgraph_plugin.types import Candidate, Example, Request


@dataclass(frozen=True, slots=True)
class Pool:
    """A request, its candidates, and what it should have been; the reference goes to metrics alone."""

    request: Request
    candidates: tuple[Candidate, ...]
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a selector picks, beside the bounds; the scores are the metric's over all pools together.

    Args:
        picked: of its picks.
        random: of a pick by chance.
        oracle: of the best candidates.
        regret: what a pick loses to the best of its pool, a mean.
        rank: of the pick among its pool by the metric, a mean; 1 is the best.
    """

    picked: float
    random: float
    oracle: float
    regret: float
    rank: float


def labels(pools: Sequence[Pool], metric: Metric) -> list[list[float]]:
    """Delta of each candidate, 0..1."""
    texts = [candidate.text for pool in pools for candidate in pool.candidates]
    references = [pool.reference for pool in pools for _ in pool.candidates]
    each = iter(metric.sentences(texts, references))
    return [[next(each) / 100 for _ in pool.candidates] for pool in pools]


def target(
    labels: Sequence[float], tau: float, normalize: Literal["minmax", "none"] = "minmax"
) -> list[float] | None:
    """What a selector is to say of a pool: exp(Delta / tau), its sum made 1. None where it teaches nothing.

    With "minmax" the labels are first spread over 0..1 within the pool, as the paper does for translation:
    the best then weighs exp(1 / tau) times as much as the worst. A pool of equal labels teaches nothing, nor
    does one with a label that is no number.
    """
    if not labels or not all(map(math.isfinite, labels)):
        return None
    values = spread(labels)
    if not any(values):
        return None
    if normalize == "none":
        values = list(labels)
    top = max(values)
    weights = [math.exp((each - top) / tau) for each in values]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def spread(values: Sequence[float]) -> list[float]:
    """The values of a pool spread over 0..1; all 0 where they are equal."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    width = high - low
    return [(value - low) / width if width > 1e-12 else 0.0 for value in values]


def quality(
    pools: Sequence[Pool], scores: Sequence[Sequence[float]], metric: Metric, seed: int = 1
) -> Quality:
    """Measure picks against the references; pools without candidates are left out.

    Raises:
        ConfigurationError: no pool has a candidate.
    """
    kept = [(pool, row) for pool, row in zip(pools, scores, strict=True) if pool.candidates]
    if not kept:
        raise ConfigurationError("There is nothing to measure: no pool has a candidate.")
    draw = random.Random(seed)  # noqa: S311 - a baseline
    deltas = labels([pool for pool, _ in kept], metric)
    picks = [best(row) for _, row in kept]
    choices = {
        "picked": picks,
        "random": [draw.randrange(len(pool.candidates)) for pool, _ in kept],
        "oracle": [best(delta) for delta in deltas],
    }
    references = [pool.reference for pool, _ in kept]
    together = {
        name: metric.corpus(
            [pool.candidates[n].text for (pool, _), n in zip(kept, chosen, strict=True)], references
        )
        for name, chosen in choices.items()
    }
    return Quality(
        **together,
        regret=fmean(100 * (max(delta) - delta[n]) for delta, n in zip(deltas, picks, strict=True)),
        rank=fmean(
            1 + sum(each > delta[n] for each in delta) for delta, n in zip(deltas, picks, strict=True)
        ),
    )


def build(
    generator: Generator,
    requests: Sequence[Request],
    references: Sequence[str],
    *,
    n: int = 50,
    seed: int = 0,
) -> list[Pool]:
    """The pools of one generation pass; with at most `n` candidates each."""
    drafted = generator.candidates(requests, n, seed=seed)
    return [
        Pool(request, tuple(candidates), reference)
        for request, candidates, reference in zip(requests, drafted, references, strict=True)
    ]


def folds(examples: Sequence[Example], count: int, seed: int = 1) -> list[list[int]]:
    """The places of examples in `count` parts; equal sources come into the same part.

    Raises:
        ConfigurationError: fewer than two parts, or fewer different sources than parts.
    """
    sources = list(dict.fromkeys(example.source for example in examples))
    if not 2 <= count <= len(sources):
        raise ConfigurationError(f"{len(sources)} different sources cannot be had in {count} parts.")
    random.Random(seed).shuffle(sources)  # noqa: S311 - a split
    part_of = {source: n % count for n, source in enumerate(sources)}
    parts: list[list[int]] = [[] for _ in range(count)]
    for place, example in enumerate(examples):
        parts[part_of[example.source]].append(place)
    return parts


def cross_fitted(
    examples: Sequence[Example],
    requests: Sequence[Request],
    trained: Callable[[list[int], int], Generator],
    *,
    parts: int = 3,
    n: int = 50,
    seed: int = 1,
) -> Iterator[Pool]:
    """The pools of a training set, each written by a generator that did not see its reference.

    `requests` are those of the examples, in their order. `trained` is given the places to train on and the
    number of the part that is left out, by which it can keep what it made.

    Raises:
        ConfigurationError: as `folds`.
    """
    for number, part in enumerate(folds(examples, parts, seed)):
        left_out = set(part)
        generator = trained([place for place in range(len(examples)) if place not in left_out], number)
        asked = [requests[place] for place in part]
        yield from build(generator, asked, [examples[place].target for place in part], n=n, seed=seed)


def write(pools: Iterable[Pool], path: Path) -> int:
    """Pools as JSON lines; how many. What was there before stays until all are written."""
    count, partial = 0, path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for pool in pools:
            file.write(json.dumps(asdict(pool), ensure_ascii=False) + "\n")
            count += 1
    partial.replace(path)
    return count


def read(path: Path) -> list[Pool]:
    """The pools of a file that `write` made.

    Raises:
        ConfigurationError: a line is none; it says which.
    """
    pools = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                pools.append(_pool(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise ConfigurationError(f"{path}, line {number}: no pool ({error}).") from error
    return pools


def _pool(record: dict[str, object]) -> Pool:
    request, candidates = record["request"], record["candidates"]
    if not isinstance(request, dict) or not isinstance(candidates, list):
        raise TypeError("request and candidates are missing")
    examples = tuple(Example(**each) for each in request.pop("examples", ()))
    return Pool(
        Request(**request, examples=examples),
        tuple(Candidate(**each) for each in candidates),
        str(record["reference"]),
    )


def digest(pools: Sequence[Pool]) -> str:
    """A hash of the sources, candidates and references, by which a selector tells what it learned from."""
    found = sha256()
    for pool in pools:
        texts = [pool.request.source, pool.reference, *(candidate.text for candidate in pool.candidates)]
        found.update(json.dumps(texts).encode())
    return found.hexdigest()
