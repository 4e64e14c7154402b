"""The loop: the best of a pool of outputs becomes the memory that the next pool is made with.

Cheng et al., Selfmem (arXiv 2305.02437), algorithm 1, with generator and selector frozen. The functions on
one request are shared by the batch driver below and by the graph (`selfmem_graph`).

Departs from it: (1) the paper's last pool, which its final decode never reads, is not made: K rounds are K
pools, K choices and one hypothesis. Ours, and off by default: (2) the retrieved memory may compete in the
pool (`compete`); (3) a source may stop before its K rounds (`Early`). Pure; no I/O.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, TypeAlias

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.selfmem.protocols import AsyncSelector, Generator, Retriever, Selector
from memgraph_plugin.selfmem.selectors import best
from memgraph_plugin.types import Candidate, Example, Request

Stop: TypeAlias = Literal["rounds", "fixed_point", "collapsed", "no_gain", "time", "length"]
"""rounds: all K were made · fixed_point: the choice was the memory already · collapsed: the pool was one text
· no_gain: the choice scored no better than the one before · time, length: the budget was out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """When a source stops before its rounds are over; ours, not the paper's.

    It always stops at a fixed point and at a pool of one text: under beam search the next round could change
    nothing.

    Args:
        gain: stop where the chosen score is not higher by more than this than the one of the round before. It
            needs a selector whose scores mean the same in every pool.
        seconds: stop once pools and choices have taken so long.
        characters: stop once so many were generated.
    """

    gain: float | None = None
    seconds: float | None = None
    characters: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the loop runs.

    Args:
        rounds: K; `calibrate` finds it. 0 is plain retrieval-augmented generation.
        pool: candidates of a round, at most. The paper has 50, by beam search.
        examples: how many are retrieved; the first one's target is the first memory.
        compete: the retrieved memory is a candidate too, so that a near-perfect one need not be given up.
        early: None makes exactly `rounds` rounds, as the paper does.

    Raises:
        ConfigurationError: a number is too small.
    """

    rounds: int = 1
    pool: int = 8
    examples: int = 3
    compete: bool = False
    early: Early | None = None

    def __post_init__(self) -> None:
        for name, least in (("rounds", 0), ("pool", 1), ("examples", 0)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} must be {least} or more, not {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What happened to one source in one round: a line of the trace.

    Args:
        round: from 1.
        memory: what the next round leans on.
        origin: whether that text is one that was retrieved, or the model's own; "none" for no memory.
        changed: whether it is another one than before.
        pool: how many different candidates there were.
        score: the chosen one's; None where there was nothing to choose from, or no score was a number.
        mean: of the scores that are numbers.
        characters: generated in this round.
        seconds: in a batch, this source's share of the pass.
    """

    round: int
    memory: str
    origin: Literal["corpus", "self", "none"]
    changed: bool
    pool: int
    score: float | None = None
    mean: float | None = None
    characters: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one source."""

    hypothesis: Candidate
    request: Request
    trace: tuple[Round, ...]
    stop: Stop


# One source.


def begin(source: str, examples: Sequence[Example]) -> Request:
    """The request of round 0: the memory is the target of the nearest example, if there is one."""
    return Request(source=source, memory=examples[0].target if examples else "", examples=tuple(examples))


def pooled(request: Request, candidates: Iterable[Candidate], plan: Plan) -> list[Candidate]:
    """The different texts among the candidates, in order; with `compete`, what was retrieved comes last."""
    texts: dict[str, Candidate] = {}
    for each in candidates:
        if each.text.strip() and len(texts) < plan.pool:
            texts.setdefault(each.text, each)
    if plan.compete and request.examples and (kept := request.examples[0].target).strip():
        texts.setdefault(kept, Candidate(kept))
    return list(texts.values())


def choose(
    request: Request, pool: Sequence[Candidate], scores: Sequence[float], *, seconds: float = 0.0
) -> tuple[Request, Round]:
    """The request of the next round, whose memory is the best of the pool, and the line of the trace.

    The best is that of `selectors.best`. Where the pool is empty, the memory stays.

    Raises:
        ValueError: there are not as many scores as candidates.
    """
    if len(scores) != len(pool):
        raise ValueError(f"{len(scores)} scores for {len(pool)} candidates")
    chosen = best(scores) if pool else None
    memory = request.memory if chosen is None else pool[chosen].text
    finite = [score for score in scores if math.isfinite(score)]
    score = None if chosen is None or not math.isfinite(scores[chosen]) else scores[chosen]
    retrieved = {example.target for example in request.examples}
    record = Round(
        round=request.round + 1,
        memory=memory,
        origin="corpus" if memory in retrieved else "self" if memory else "none",
        changed=memory != request.memory,
        pool=len(pool),
        score=score,
        mean=fmean(finite) if finite else None,
        characters=sum(len(each.text) for each in pool),
        seconds=seconds,
    )
    return replace(request, memory=memory, round=record.round), record


def stopped(plan: Plan, trace: Sequence[Round]) -> Stop | None:
    """Why there is no further round, or None where there is one."""
    if len(trace) >= plan.rounds:
        return "rounds"
    if plan.early is None or not trace:
        return None
    last, early = trace[-1], plan.early
    if not last.changed:
        return "fixed_point"
    if last.pool == 1:
        return "collapsed"
    if early.gain is not None and len(trace) > 1 and not _gained(trace[-2], last, early.gain):
        return "no_gain"
    if early.seconds is not None and sum(each.seconds for each in trace) >= early.seconds:
        return "time"
    if early.characters is not None and sum(each.characters for each in trace) >= early.characters:
        return "length"
    return None


def seed_of(run: str, number: int) -> int:
    """The seed of a run's round: the same wherever and whenever it is made, 0..2**31-1."""
    digest = hashlib.sha256(f"{run}\0{number}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _gained(before: Round, last: Round, gain: float) -> bool:
    return before.score is not None and last.score is not None and last.score - before.score > gain


# Many sources.


@dataclass(frozen=True, slots=True)
class Pass:
    """Where all sources stand after a round, in their order.

    A source that has stopped keeps its request; its pool is then empty. `candidates_seconds` and
    `select_seconds` are what the round took for all of them.
    """

    requests: tuple[Request, ...]
    traces: tuple[tuple[Round, ...], ...]
    pools: tuple[tuple[Candidate, ...], ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()
    candidates_seconds: float = 0.0
    select_seconds: float = 0.0


@dataclass(slots=True)
class _Standing:
    request: Request
    trace: list[Round] = field(default_factory=list)
    pool: list[Candidate] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def passes(
    generator: Generator, selector: Selector, requests: Sequence[Request], plan: Plan, *, run: str = ""
) -> Iterator[Pass]:
    """The rounds over a whole set: first where it stands before any, then after each.

    `run` names the run: seeds come from it and the round. Whoever takes fewer passes makes fewer rounds.
    """
    standings = [_Standing(request) for request in requests]
    yield Pass(tuple(requests), tuple(() for _ in requests))
    for number in range(plan.rounds):
        going = [each for each in standings if stopped(plan, each.trace) is None]
        if not going:
            return
        asked = [each.request for each in going]
        began = time.perf_counter()
        made = generator.candidates(asked, plan.pool, seed=seed_of(run, number))
        pools = [pooled(each, own, plan) for each, own in zip(asked, made, strict=True)]
        generated = time.perf_counter()
        scores = score_pools(selector, asked, pools)
        selected = time.perf_counter()
        share = (selected - began) / len(going)
        for each in standings:
            each.pool, each.scores = [], []
        for each, pool, own in zip(going, pools, scores, strict=True):
            each.request, record = choose(each.request, pool, own, seconds=share)
            each.trace.append(record)
            each.pool, each.scores = pool, own
        yield Pass(
            requests=tuple(each.request for each in standings),
            traces=tuple(tuple(each.trace) for each in standings),
            pools=tuple(tuple(each.pool) for each in standings),
            scores=tuple(tuple(each.scores) for each in standings),
            candidates_seconds=generated - began,
            select_seconds=selected - generated,
        )


def drive(
    retriever: Retriever,
    generator: Generator,
    selector: Selector,
    sources: Sequence[str],
    plan: Plan,
    *,
    run: str = "",
    exclude: Sequence[str | None] | None = None,
) -> list[Outcome]:
    """Retrieve, make the rounds, and write one hypothesis for each source, in their order.

    `exclude` is the retriever's: the key of the example that a source is itself.
    """
    found = (
        retriever.retrieve(sources, plan.examples, exclude=exclude) if plan.examples else [[]] * len(sources)
    )
    requests = [begin(source, examples) for source, examples in zip(sources, found, strict=True)]
    *_, last = passes(generator, selector, requests, plan, run=run)
    return [
        Outcome(hypothesis=hypothesis, request=request, trace=trace, stop=stopped(plan, trace) or "rounds")
        for hypothesis, request, trace in zip(
            hypothesize(generator, last.requests, run=run), last.requests, last.traces, strict=True
        )
    ]


def hypothesize(generator: Generator, requests: Sequence[Request], *, run: str = "") -> list[Candidate]:
    """One output for each request; the seed is of the run and the round it comes after.

    A batch whose sources stopped in different rounds takes the last one's.
    """
    if not requests:
        return []
    return generator.hypotheses(requests, seed=seed_of(run, max(each.round for each in requests)))


def score_pools(
    selector: Selector, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]
) -> list[list[float]]:
    """The selector's scores, which it is asked for only where there is a choice; one candidate scores 0."""
    asked = _with_a_choice(pools)
    told = selector.scores([requests[i] for i in asked], [pools[i] for i in asked]) if asked else []
    return _all_scores(pools, asked, told)


async def ascore_pools(
    selector: AsyncSelector, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]
) -> list[list[float]]:
    """Async twin of `score_pools`."""
    asked = _with_a_choice(pools)
    told = await selector.ascores([requests[i] for i in asked], [pools[i] for i in asked]) if asked else []
    return _all_scores(pools, asked, told)


def _with_a_choice(pools: Sequence[Sequence[Candidate]]) -> list[int]:
    return [index for index, pool in enumerate(pools) if len(pool) > 1]


def _all_scores(
    pools: Sequence[Sequence[Candidate]], asked: Sequence[int], told: Sequence[Sequence[float]]
) -> list[list[float]]:
    scores = [[0.0] * len(pool) for pool in pools]
    for index, own in zip(asked, told, strict=True):
        scores[index] = list(own)
    return scores
