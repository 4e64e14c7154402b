"""The way of a source through Selfmem, as a LangGraph graph.

    START -> retrieve_examples -> candidates -> select -> hypothesis -> persist -> END
                                      ^           |
                                      +-- round --+

retrieve_examples: pairs like it, once · candidates: a pool of outputs in one batch, or in its place `sample`,
as often as the pool is large · select: the best becomes the memory, K times · hypothesis: the one output ·
persist: kept beside the pairs (only where it is to last). With a checkpointer, a run that is killed goes on
in the round that it was in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

from memgraph_plugin.nodes.candidates import GeneratorSource, candidates, hypothesis, sample, to_pool
from memgraph_plugin.nodes.draft import begin_draft, end_draft
from memgraph_plugin.nodes.examples import persist, retrieve_examples
from memgraph_plugin.nodes.select import SelectorSource, select
from memgraph_plugin.selfmem.loop import Plan
from memgraph_plugin.selfmem.protocols import Retriever, Selector
from memgraph_plugin.selfmem.sentences import DRAFT_WITH_SELF_MEMORY
from memgraph_plugin.state import (
    DraftInput,
    DraftOutput,
    DraftState,
    MemoryContext,
    SelfmemInput,
    SelfmemOutput,
    SelfmemState,
)


def build_selfmem_graph(
    generator: GeneratorSource,
    selector: SelectorSource,
    *,
    plan: Plan | None = None,
    retriever: Retriever | None = None,
    lasting: bool = False,
    namespace: Sequence[str] | None = None,
) -> StateGraph[SelfmemState, MemoryContext, SelfmemInput, SelfmemOutput]:
    """One source, drafted with self-memory. Compile it with a store of ours, and a checkpointer to resume by.

    Args:
        generator: writes; a call for each candidate where it is a `Sampler`, else a batch.
        selector: chooses.
        plan: rounds, pool, and what is retrieved; by default one round of eight candidates.
        retriever: finds the pairs, in place of the store.
        lasting: keep each hypothesis as a pair of the model's own, and find such pairs again.
        namespace: where the pairs are; by default below that of whoever the run's context names
            (`MemoryContext`).
    """
    chosen = plan or Plan()
    graph = StateGraph(
        SelfmemState, context_schema=MemoryContext, input_schema=SelfmemInput, output_schema=SelfmemOutput
    )
    graph.add_node(retrieve_examples(chosen, retriever=retriever, lasting=lasting, namespace=namespace))
    add_rounds(graph, generator, selector, chosen, before="retrieve_examples", after="hypothesis")
    graph.add_node(hypothesis(generator, chosen))
    graph.add_edge(START, "retrieve_examples")
    if lasting:
        graph.add_node(persist(namespace=namespace))
        graph.add_edge("hypothesis", "persist")
    graph.add_edge("persist" if lasting else "hypothesis", END)
    return graph


@cache
def _consensus() -> Selector:
    from memgraph_plugin.selfmem.selectors import ConsensusSelector

    return ConsensusSelector()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selfmem:
    """How the replies of an assistant are drafted before they are given (`build_memory_graph(selfmem=...)`).

    Args:
        selector: chooses the draft that the reply leans on; by default the one most like the others
            (chrF; the extra `selfmem`).
        plan: one round of four drafts by default. Each draft is a call of the model before the reply begins.
            Nothing is retrieved beside what the assistant recalls, so `examples` and `compete` do nothing.
    """

    selector: SelectorSource = _consensus
    plan: Plan = field(default_factory=lambda: Plan(pool=4, examples=0))


def build_draft_graph(
    generator: GeneratorSource, selfmem: Selfmem
) -> StateGraph[DraftState, MemoryContext, DraftInput, DraftOutput]:
    """The rounds of one reply: a conversation and what is remembered in, the chosen draft out."""
    graph = StateGraph(
        DraftState, context_schema=MemoryContext, input_schema=DraftInput, output_schema=DraftOutput
    )
    graph.add_node(begin_draft())
    add_rounds(graph, generator, selfmem.selector, selfmem.plan, before="begin_draft", after="end_draft")
    graph.add_node(end_draft())
    graph.add_edge(START, "begin_draft")
    graph.add_edge("end_draft", END)
    return graph


def add_rounds(
    graph: StateGraph[Any, Any, Any, Any],
    generator: GeneratorSource,
    selector: SelectorSource,
    plan: Plan,
    *,
    before: str,
    after: str,
) -> None:
    """Add the rounds to a graph whose state has the keys of `SelfmemState`, between two of its nodes."""
    graph.add_node("candidates", candidates(generator, plan))
    graph.add_node("sample", sample(generator))
    # Deferred: it waits until the last sample is there, however long each of them takes.
    graph.add_node("select", select(selector, plan), defer=True)
    onward = to_pool(generator, plan, after=after)
    for node in (before, "select"):
        graph.add_conditional_edges(node, onward, ["candidates", "sample", after])
    graph.add_edge("candidates", "select")
    graph.add_edge("sample", "select")


def draft_tool(
    graph: StateGraph[SelfmemState, MemoryContext, SelfmemInput, SelfmemOutput],
    *,
    store: BaseStore | None = None,
    name: str = "draft_with_self_memory",
    description: str = DRAFT_WITH_SELF_MEMORY,
) -> BaseTool:
    """Selfmem as a tool for an agent: a source in, the draft out.

    Whose pairs are used, the run it is called in says. Several calls may run at once, so it keeps no
    checkpoints of its own.

    Args:
        graph: of `build_selfmem_graph`.
        store: in place of the run's own.
    """
    compiled = graph.compile(store=store, checkpointer=False)

    def draft(source: str) -> str:
        return str(compiled.invoke({"source": source})["hypothesis"])

    async def adraft(source: str) -> str:
        return str((await compiled.ainvoke({"source": source}))["hypothesis"])

    return StructuredTool.from_function(draft, adraft, name=name, description=description)
