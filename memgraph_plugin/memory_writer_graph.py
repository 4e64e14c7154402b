"""Writing memory as a LangGraph graph of its own: what a conversation changes, decided on once it pauses.

    START -> decide -> apply -> END
               ^          |
               +-- next --+

It goes through the exchanges of a conversation that it has not decided on yet, oldest first. Run on the
thread of the conversation, it reads the messages there; how far it came is kept in the thread. A server waits
for the pause itself: `client.runs.create(thread, "memory_writer", after_seconds=30,
multitask_strategy="rollback")` after each answer; a run that was rolled back left its exchanges to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NotRequired, cast

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END, START, StateGraph

from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock
from memgraph_plugin.memalpha.safety import SAFETY, Safety
from memgraph_plugin.nodes.apply import apply
from memgraph_plugin.nodes.decide import PolicySource, decide
from memgraph_plugin.nodes.transcript import is_answer
from memgraph_plugin.state import MemoryContext, MemoryInput, MemoryOutput, MemoryState


def _newest(_: str, new: str) -> str:
    return new


class WriterState(MemoryState):
    """What the writer carries: `decided` is the id of the last message of what it has decided on."""

    decided: NotRequired[Annotated[str, _newest]]


def build_memory_writer_graph(
    policy: PolicySource = None,
    *,
    namespace: Sequence[str] | None = None,
    core: Sequence[CoreBlock] = (PROFILE,),
    safety: Safety = SAFETY,
) -> StateGraph[WriterState, MemoryContext, MemoryInput, MemoryOutput]:
    """A conversation written to memory. Compile it with a store of ours, and with a checkpointer for threads.

    The same messages again change nothing. Its receipts are those of the last exchange.

    Args:
        policy: who decides; by default the rules.
        namespace: where all runs of this graph keep their memories; by default the run's context says.
        core: the blocks of the profile, as the conversation has them; by default one, "profile".
        safety: what is done with instructions, secrets and personal data that would become memories.
    """
    graph = StateGraph(
        WriterState, context_schema=MemoryContext, input_schema=MemoryInput, output_schema=MemoryOutput
    )
    as_far: Runnable[WriterState, MemoryState] = RunnableLambda(_as_far)
    graph.add_node("decide", as_far | decide(policy, namespace=namespace, core=core, safety=safety))
    graph.add_node("apply", as_far | apply(namespace=namespace))
    graph.add_node("next", _done)
    graph.add_conditional_edges(START, _is_left, {True: "decide", False: END})
    graph.add_edge("decide", "apply")
    graph.add_edge("apply", "next")
    graph.add_conditional_edges("next", _is_left, {True: "decide", False: END})
    return graph


def _as_far(state: WriterState) -> MemoryState:
    """The state as of the end of the exchange that comes next."""
    return cast("MemoryState", {**state, "messages": state["messages"][: _end(state)]})


def _done(state: WriterState) -> dict[str, str]:
    return {"decided": state["messages"][_end(state) - 1].id or ""}


def _is_left(state: WriterState) -> bool:
    return _end(state) > _begin(state)


def _begin(state: WriterState) -> int:
    ids = [message.id for message in state.get("messages", [])]
    decided = state.get("decided")
    return ids.index(decided) + 1 if decided in ids else 0


def _end(state: WriterState) -> int:
    """Where the next exchange ends: after its answer, or with the messages where none came."""
    messages, begin = state.get("messages", []), _begin(state)
    for index in range(begin, len(messages)):
        if is_answer(messages[index]):
            return index + 1
    return len(messages)
