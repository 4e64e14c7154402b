"""The step that chooses which candidate becomes the next round's memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.constants import TAG_NOSTREAM

from memgraph_plugin.nodes.candidates import candidates_in
from memgraph_plugin.selfmem.loop import Plan, ascore_pools, choose, pooled, score_pools
from memgraph_plugin.selfmem.protocols import AsyncSelector, Selector
from memgraph_plugin.state import SelfmemState, plain_request, plain_trace, request_from, trace_from
from memgraph_plugin.types import Candidate, Request

SelectorSource: TypeAlias = Selector | Callable[[], Selector]
"""A selector, or who has one; whoever loads one keeps it, for each round asks anew."""


def select(source: SelectorSource, plan: Plan) -> Runnable[SelfmemState, dict[str, Any]]:
    """A node that makes the best candidate the memory, and writes the line of the trace.

    Reads: request, pool, trace.
    Writes: request, trace.
    Paper: Selfmem (arXiv 2305.02437), the memory selector; it has only the source and the pool to go by.
    """

    def choose_now(state: SelfmemState) -> dict[str, Any]:
        began = time.perf_counter()
        request, pool = _asked(state, plan)
        (scores,) = score_pools(selector_of(source), [request], [pool])
        return _chosen(state, request, pool, scores, began)

    async def achoose_now(state: SelfmemState) -> dict[str, Any]:
        began = time.perf_counter()
        selector = await asyncio.to_thread(selector_of, source)
        request, pool = _asked(state, plan)
        if isinstance(selector, AsyncSelector):
            (scores,) = await ascore_pools(selector, [request], [pool])
        else:
            (scores,) = await asyncio.to_thread(score_pools, selector, [request], [pool])
        return _chosen(state, request, pool, scores, began)

    return RunnableLambda(choose_now, achoose_now, name="select").with_config(tags=[TAG_NOSTREAM])


def selector_of(source: SelectorSource) -> Selector:
    """The selector itself, or the one that there is."""
    return source() if callable(source) else source


def _asked(state: SelfmemState, plan: Plan) -> tuple[Request, list[Candidate]]:
    request = request_from(state["request"])
    return request, pooled(request, candidates_in(state.get("pool", [])), plan)


def _chosen(
    state: SelfmemState, request: Request, pool: list[Candidate], scores: list[float], began: float
) -> dict[str, Any]:
    # The calls of a pool ran side by side: it took as long as the longest.
    made = max((each["seconds"] for each in state.get("pool", [])), default=0.0)
    request, record = choose(request, pool, scores, seconds=made + time.perf_counter() - began)
    return {"request": plain_request(request), "trace": plain_trace([*trace_from(state["trace"]), record])}
