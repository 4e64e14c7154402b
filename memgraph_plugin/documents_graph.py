"""The way of a question through documents, as a LangGraph graph.

    START -> memorize -> retrieve_passages -> recall_clues -> answer -> END

memorize: documents that come with the question · retrieve_passages: the evidence · recall_clues: more of it,
where the question does not say what it needs (only where somebody drafts clues) · answer: from the evidence
alone, with citations, streamed. Where nothing is asked, it ends after the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langgraph.graph import END, START, StateGraph

from memgraph_plugin.nodes.answer import answer
from memgraph_plugin.nodes.generate import ModelLike
from memgraph_plugin.nodes.memorize import memorize
from memgraph_plugin.nodes.recall_clues import DrafterSource, Way, recall_clues
from memgraph_plugin.nodes.retrieve_passages import retrieve_passages
from memgraph_plugin.nodes.scope import documents_scope
from memgraph_plugin.nodes.transcript import question_of
from memgraph_plugin.state import AskInput, AskOutput, AskState, MemoryContext
from memgraph_plugin.types import Document, Insert


def build_documents_graph(
    model: ModelLike = None,
    *,
    split: Callable[[Document], list[Insert]] | None = None,
    clues: DrafterSource | None = None,
    k: int = 8,
    token_budget: int = 2400,
    system_prompt: str | None = None,
    namespace: Sequence[str] | None = None,
) -> StateGraph[AskState, MemoryContext, AskInput, AskOutput]:
    """Questions about documents. Compile it with a store of ours, and with a checkpointer for threads.

    Args:
        model: a chat model, its name, or who makes it; None answers by quoting passages.
        split: makes passages of the documents that come with a question, as `passages_of` in
            `integrations.llama_index` does; None leaves out `memorize`.
        clues: who drafts clues for questions that do not say what they need, or who has such a drafter for a
            namespace, as `drafting.drafters` has where documents have a compressed memory or gists.
        k: passages that an answer is made from, at most.
        token_budget: tokens of passages laid before the model, at most.
        system_prompt: in place of `ANSWER_PROMPT`; "" for none.
        namespace: where all runs of this graph have their passages; by default, the documents of whoever the
            run's context names (`MemoryContext`).
    """
    steps: dict[str, Any] = {
        "retrieve_passages": retrieve_passages(k=k, token_budget=token_budget, namespace=namespace)
    }
    if clues is not None:
        way = Way(k=k, token_budget=token_budget)
        steps["recall_clues"] = recall_clues(clues, way=way, namespace=namespace, scoped=documents_scope)
    steps["answer"] = answer(model, system_prompt=system_prompt)

    graph = StateGraph(AskState, context_schema=MemoryContext, input_schema=AskInput, output_schema=AskOutput)
    graph.add_sequence(list(steps.items()))
    graph.add_edge("answer", END)
    first = START
    if split:
        first = "memorize"
        graph.add_node(first, memorize(split, namespace=namespace))
        graph.add_edge(START, first)
    graph.add_conditional_edges(first, _is_asked, {True: "retrieve_passages", False: END})
    return graph


def _is_asked(state: AskState) -> bool:
    return bool(question_of(state.get("messages", [])))
