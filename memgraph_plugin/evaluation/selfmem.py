"""Does self-memory help? The same frozen generator with other memories, and round by round.

What is measured (after arXiv 2305.02437, tables 1, 3 and 12, figure 3), on sources whose references nobody
but this file sees: the `ladder`, outputs with no memory, a random, the retrieved one and the reference;
`curves`, the output after each round by selector, and mean and best of the pools, also with an `oracle` that
picks by the reference; the `gain` of self-memory over retrieved memory, by paired bootstrap; the same by
`buckets` of how good the retrieved memory was; and where the time goes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.evaluation.bootstrap import Gain, paired
from memgraph_plugin.evaluation.oracle import OracleSelector
from memgraph_plugin.selfmem.loop import Pass, Plan, hypothesize, passes
from memgraph_plugin.selfmem.metrics import Metric
from memgraph_plugin.selfmem.protocols import Generator, Selector
from memgraph_plugin.types import Request

if TYPE_CHECKING:
    from rich.table import Table

BUCKETS = (0, 20, 40, 60, 80)
"""Where the buckets of memory quality begin; the last one reaches to 100."""

TIMED = 32
"""Sources that times are taken on, at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where all sources stand after so many rounds.

    Args:
        memory, output: the metric of the memories and of the outputs, over all.
        pool_mean, pool_best: means over sources of their pools' mean and best; None before the first round.
    """

    memory: float
    output: float
    pool_mean: float | None = None
    pool_best: float | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sources whose retrieved memory scores `low` or more, below the next bucket: outputs by memory."""

    low: int
    count: int
    retrieved: float
    own: float


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds a source in one round, beside one plain output.

    `multiple` is what all of it takes of plain generation; the paper, whose sources come one by one, has 4.6
    to 6.0 on a CPU, 2.8 to 3.4 on a GPU.
    """

    plain: float
    candidates: float
    select: float
    hypothesis: float
    multiple: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found.

    Args:
        times: of sources "one by one", as a reader waits, and "together", as a set is worked through.
        outputs: "reference", and what was written with the "retrieved" memory and after the last round of
            each selector: what it takes to compare this run with another one's.
    """

    metric: str
    plan: Plan
    sources: int
    ladder: Mapping[str, Step]
    curves: Mapping[str, tuple[Step, ...]]
    gains: Mapping[str, Gain]
    buckets: Mapping[str, tuple[Bucket, ...]]
    times: Mapping[str, Times]
    outputs: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"benchmark": "selfmem", **asdict(self)}


def evaluate(
    generator: Generator,
    selectors: Mapping[str, Selector],
    requests: Sequence[Request],
    references: Sequence[str],
    targets: Sequence[str],
    *,
    metric: Metric,
    plan: Plan,
    timed: Generator | None = None,
    run: str = "evaluate",
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """Measure on requests of round 0 (`loop.begin`).

    Args:
        selectors: by name; the oracle is added.
        targets: of the corpus, to draw random memories from.
        plan: its rounds are K, as calibrated; at least one is made.
        timed: times are taken of this one, where `generator` gives what it has kept.

    Raises:
        ConfigurationError: there is nothing to measure on, or not as many references as requests.
    """
    if not requests or len(requests) != len(references) or not targets:
        raise ConfigurationError("An evaluation needs sources, a reference for each, and a corpus.")
    plan = replace(plan, rounds=max(plan.rounds, 1), early=None)
    oracle = OracleSelector({each.source: r for each, r in zip(requests, references, strict=True)}, metric)
    curves, outputs = {}, {}
    for name, selector in {**selectors, "oracle": oracle}.items():
        curves[name], outputs[name] = _curve(generator, selector, requests, references, metric, plan, run)
    plain = next(iter(outputs.values()))[0]
    retrieved, rows = metric.over(plain, references), range(len(requests))
    gains, buckets = {}, {}
    quality = metric.sentences([each.memory for each in requests], references)
    for name, written in outputs.items():
        own = metric.over(written[-1], references)
        gains[name] = paired(len(rows), own, retrieved)
        buckets[name] = tuple(
            Bucket(low, len(chosen), retrieved(chosen), own(chosen))
            for low, high in zip(BUCKETS, (*BUCKETS[1:], 101), strict=True)
            if (chosen := [row for row in rows if low <= quality[row] < high])
        )
    return Report(
        metric=metric.name,
        plan=plan,
        sources=len(requests),
        ladder=_ladder(generator, requests, references, targets, metric, run),
        curves=curves,
        gains=gains,
        buckets=buckets,
        times={
            how: times(timed or generator, next(iter(selectors.values()), oracle), requests, plan, size)
            for how, size in (("one by one", 1), ("together", TIMED))
        },
        outputs={
            "reference": references,
            "retrieved": plain,
            **{name: written[-1] for name, written in outputs.items()},
        },
        settings=settings or {},
    )


def times(
    generator: Generator, selector: Selector, requests: Sequence[Request], plan: Plan, together: int
) -> Times:
    """Where the time of one round goes, on the first sources, so many at once: the least of three, after one
    that warms up."""
    some = requests[:TIMED]
    groups = [some[start : start + together] for start in range(0, len(some), together)]
    hypothesize(generator, some)
    taken = []
    for _ in range(3):
        plain = sum(_seconds(generator, group) for group in groups)
        ends = [list(passes(generator, selector, group, replace(plan, rounds=1)))[-1] for group in groups]
        written = sum(_seconds(generator, each.requests) for each in ends)
        made = sum(each.candidates_seconds for each in ends)
        chosen = sum(each.select_seconds for each in ends)
        taken.append((plain, made, chosen, written))
    plain, made, chosen, written = (min(each) / len(some) for each in zip(*taken, strict=True))
    return Times(plain, made, chosen, written, multiple=(made + chosen + written) / plain)


def _seconds(generator: Generator, requests: Sequence[Request]) -> float:
    began = time.perf_counter()
    hypothesize(generator, requests)
    return time.perf_counter() - began


def selfmem_tables(report: Report) -> list[Table]:
    """The report as people read it."""
    from rich.table import Table

    ladder = Table(
        "memory", "memory's own", "output", caption=f"{report.metric} of {report.sources:,} sources"
    )
    for name, step in report.ladder.items():
        ladder.add_row(name, f"{step.memory:.2f}", f"{step.output:.2f}")
    rounds = Table("selector", "round", "memory", "output", "pool mean", "pool best", "gain", "p")
    for name, steps in report.curves.items():
        for number, step in enumerate(steps):
            last, gain = number == len(steps) - 1, report.gains[name]
            rounds.add_row(
                name,
                str(number),
                f"{step.memory:.2f}",
                f"{step.output:.2f}",
                "" if step.pool_mean is None else f"{step.pool_mean:.2f}",
                "" if step.pool_best is None else f"{step.pool_best:.2f}",
                f"{gain.gain:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})" if last else "",
                f"{gain.p:.3f}" if last else "",
            )
    buckets = Table("selector", "retrieved memory from", "sources", "retrieved", "self")
    for name, found in report.buckets.items():
        for each in found:
            figures = (str(each.low), str(each.count), f"{each.retrieved:.2f}", f"{each.own:.2f}")
            buckets.add_row(name, *figures)
    took = Table(
        "sources", "plain", "candidates", "select", "hypothesis", "times plain", caption="seconds a source"
    )
    for how, taken in report.times.items():
        *seconds, multiple = asdict(taken).values()
        took.add_row(how, *(f"{figure:.3f}" for figure in seconds), f"{multiple:.1f}")
    for table in (ladder, rounds, buckets, took):
        table.columns[0].no_wrap = True
    return [ladder, rounds, buckets, took]


def _ladder(
    generator: Generator,
    requests: Sequence[Request],
    references: Sequence[str],
    targets: Sequence[str],
    metric: Metric,
    run: str,
) -> dict[str, Step]:
    draw = random.Random(run)  # noqa: S311 - a baseline
    memories = {
        "none": [""] * len(requests),
        "random": [draw.choice(targets) for _ in requests],
        "retrieved": [each.memory for each in requests],
        "reference": list(references),
    }
    return {
        name: _step(
            generator,
            [replace(each, memory=memory) for each, memory in zip(requests, own, strict=True)],
            references,
            metric,
            run,
        )[0]
        for name, own in memories.items()
    }


def _curve(
    generator: Generator,
    selector: Selector,
    requests: Sequence[Request],
    references: Sequence[str],
    metric: Metric,
    plan: Plan,
    run: str,
) -> tuple[tuple[Step, ...], list[list[str]]]:
    """The steps after 0, 1, ... rounds, and the outputs of each."""
    steps, outputs = [], []
    for each in passes(generator, selector, requests, plan, run=run):
        step, written = _step(generator, each.requests, references, metric, run)
        mean, best = _pools(each, references, metric)
        steps.append(replace(step, pool_mean=mean, pool_best=best))
        outputs.append(written)
    return tuple(steps), outputs


def _step(
    generator: Generator, requests: Sequence[Request], references: Sequence[str], metric: Metric, run: str
) -> tuple[Step, list[str]]:
    written = [each.text for each in hypothesize(generator, requests, run=run)]
    memory = metric.corpus([each.memory for each in requests], references)
    return Step(memory, metric.corpus(written, references)), written


def _pools(each: Pass, references: Sequence[str], metric: Metric) -> tuple[float | None, float | None]:
    found = (
        [
            metric.sentences([candidate.text for candidate in pool], [reference] * len(pool))
            for pool, reference in zip(each.pools, references, strict=True)
            if pool
        ]
        if each.pools
        else []
    )
    if not found:
        return None, None
    return fmean(fmean(scores) for scores in found), fmean(max(scores) for scores in found)
