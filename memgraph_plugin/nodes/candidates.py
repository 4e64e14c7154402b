"""The steps that write: a pool of candidates, all at once or a call each, and the hypothesis in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.constants import TAG_NOSTREAM
from langgraph.types import Send

from memgraph_plugin.selfmem.loop import Plan, hypothesize, seed_of, stopped
from memgraph_plugin.selfmem.protocols import Generator, Sampler
from memgraph_plugin.state import Plain, SelfmemState, request_from, trace_from
from memgraph_plugin.types import Candidate

T = TypeVar("T")

GeneratorSource: TypeAlias = Generator | Callable[[Mapping[str, Any]], Generator]
"""A generator, or who has one for a run's state; whoever loads one keeps it, for each step asks anew."""


def candidates(source: GeneratorSource, plan: Plan) -> Runnable[SelfmemState, dict[str, list[Plain]]]:
    """A node that has a whole pool written in one batch, as beams are.

    What is written is streamed to nobody: it is no answer yet.

    Reads: request, seed.
    Writes: pool.
    Paper: Selfmem (arXiv 2305.02437), the generator in candidate mode.
    """

    def make(state: SelfmemState) -> dict[str, list[Plain]]:
        request, began = request_from(state["request"]), time.perf_counter()
        seed = seed_of(state["seed"], request.round)
        (made,) = generator_of(source, state).candidates([request], plan.pool, seed=seed)
        return {"pool": _plain(state, enumerate(made), time.perf_counter() - began)}

    async def amake(state: SelfmemState) -> dict[str, list[Plain]]:
        return await asyncio.to_thread(make, state)

    return _unheard(make, amake, "candidates")


def sample(source: GeneratorSource) -> Runnable[Any, dict[str, list[Plain]]]:
    """A node that has one candidate written by a call of its own; `to_pool` sends it as many as there are.

    Reads: request, seed, and the number it was sent with.
    Writes: pool.
    Paper: Selfmem, the generator in candidate mode; for models that give no beams.

    Raises (when it runs):
        Exception: the model's own. A graph with a checkpointer that is resumed makes this call alone again.
    """

    def make(state: Any) -> dict[str, list[Plain]]:
        request, began = request_from(state["request"]), time.perf_counter()
        made = _sampler(source, state).sample(
            request, state["number"], seed=seed_of(state["seed"], request.round)
        )
        return {"pool": _plain(state, [(state["number"], made)] if made else [], time.perf_counter() - began)}

    async def amake(state: Any) -> dict[str, list[Plain]]:
        request, began = request_from(state["request"]), time.perf_counter()
        sampler = await asyncio.to_thread(_sampler, source, state)
        made = await sampler.asample(request, state["number"], seed=seed_of(state["seed"], request.round))
        return {"pool": _plain(state, [(state["number"], made)] if made else [], time.perf_counter() - began)}

    return _unheard(make, amake, "sample")


def to_pool(source: GeneratorSource, plan: Plan, *, after: str) -> RunnableLambda[Any, Any]:
    """Where a round goes: to `candidates`, to `sample` as often as the pool is large, or on to `after`."""

    # Not typed as SelfmemState: LangGraph would pass its keys alone, and a generator may be made of others.
    def onward(state: Any) -> str | list[Send]:
        if stopped(plan, trace_from(state["trace"])):
            return after
        if not isinstance(generator_of(source, state), Sampler):
            return "candidates"
        return [Send("sample", {**state, "number": number}) for number in range(plan.pool)]

    async def aonward(state: Any) -> str | list[Send]:
        return await asyncio.to_thread(onward, state)

    return RunnableLambda(onward, aonward, name="to_pool")


def hypothesis(source: GeneratorSource, plan: Plan) -> RunnableLambda[SelfmemState, dict[str, str]]:
    """A node that writes the one output, with the memory that was chosen last.

    Reads: request, trace, seed.
    Writes: hypothesis, stop.
    Paper: Selfmem, the generator in hypothesis mode.
    """

    def write(state: SelfmemState) -> dict[str, str]:
        request = request_from(state["request"])
        (made,) = hypothesize(generator_of(source, state), [request], run=state["seed"])
        return _written(made, state, plan)

    async def awrite(state: SelfmemState) -> dict[str, str]:
        found = await asyncio.to_thread(generator_of, source, state)
        if not isinstance(found, Sampler):
            return await asyncio.to_thread(write, state)
        request = request_from(state["request"])
        made = await found.ahypothesis(request, seed=seed_of(state["seed"], request.round))
        return _written(made, state, plan)

    return RunnableLambda(write, awrite, name="hypothesis")


def generator_of(source: GeneratorSource, state: Mapping[str, Any]) -> Generator:
    """The generator itself, or the one that there is for this state."""
    return source(state) if callable(source) else source


def candidates_in(pool: Iterable[Plain]) -> list[Candidate]:
    """The candidates of a pool in the state, in order."""
    return [Candidate(each["text"], each["logprob"]) for each in pool]


def _written(made: Candidate, state: SelfmemState, plan: Plan) -> dict[str, str]:
    return {"hypothesis": made.text, "stop": stopped(plan, trace_from(state["trace"])) or "rounds"}


def _sampler(source: GeneratorSource, state: Mapping[str, Any]) -> Sampler:
    found = generator_of(source, state)
    assert isinstance(found, Sampler), "to_pool sends here where it is one"  # noqa: S101
    return found


def _plain(state: Mapping[str, Any], made: Iterable[tuple[int, Candidate]], seconds: float) -> list[Plain]:
    pool = f"{state['seed']}:{state['request']['round']}"
    return [
        {"pool": pool, "number": number, "text": each.text, "logprob": each.logprob, "seconds": seconds}
        for number, each in made
    ]


def _unheard(make: Callable[[Any], T], amake: Callable[[Any], Awaitable[T]], name: str) -> Runnable[Any, T]:
    return RunnableLambda(make, amake, name=name).with_config(tags=[TAG_NOSTREAM])
