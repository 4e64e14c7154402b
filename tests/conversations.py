"""How the tests of the graph talk to it."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph

from memgraph_plugin.errors import (
    DatabaseUnavailable,
)
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import ScriptedChatModel
from memgraph_plugin.types import Hit, Receipts

ANN = MemoryContext(user_id="ann")


HERS = ("memories", "ann")


class BrokenStore(InMemoryMemoryStore):
    """A database that is not there."""

    def recall(self, *args: Any, **kwargs: Any) -> list[Hit]:
        raise DatabaseUnavailable("secret: Lisbon")

    async def arecall(self, *args: Any, **kwargs: Any) -> list[Hit]:
        raise DatabaseUnavailable("secret: Lisbon")

    def apply(self, *args: Any, **kwargs: Any) -> Receipts:
        raise DatabaseUnavailable

    async def aapply(self, *args: Any, **kwargs: Any) -> Receipts:
        raise DatabaseUnavailable


def compiled(model: Any, store: Any, **options: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    return build_memory_graph(model, **options).compile(store=store, checkpointer=InMemorySaver())


def say(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    text: Any,
    *,
    thread: str = "1",
    context: MemoryContext | None = ANN,
) -> dict[str, Any]:
    return graph.invoke(
        {"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": thread}}, context=context
    )


def texts(store: InMemoryMemoryStore, *kinds: Any, namespace: tuple[str, ...] = HERS) -> list[str]:
    return sorted(hit.memory.text for hit in store.recall(namespace, "", k=1000, kinds=kinds or None))


def everything_sent(model: ScriptedChatModel, call: int = -1) -> str:
    return "\n".join(message.text for message in model.prompts[call])
