"""The graph that only writes: every exchange of a conversation once, however it is called."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memalpha.blocks import CoreBlock
from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memory_writer_graph import build_memory_writer_graph
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import ScriptedChatModel
from tests.test_chat_policy import call

ANA = ("memories", "ana")
CONTEXT = MemoryContext(user_id="ana")
CONFIG: Any = {"configurable": {"thread_id": "t"}}

TALK: list[AnyMessage] = [
    HumanMessage("I live in Lisbon.", id="1"),
    AIMessage("", id="2", tool_calls=[{"name": "look", "args": {}, "id": "c"}]),
    ToolMessage("sunny", id="3", tool_call_id="c"),
    AIMessage("Nice.", id="4"),
    HumanMessage("I moved to Porto.", id="5"),
    AIMessage("Good.", id="6"),
    HumanMessage("My dog is called Rex.", id="7"),
]


def facts(store: InMemoryMemoryStore) -> list[str]:
    return sorted(hit.memory.text for hit in store.recall(ANA, "", kinds=("semantic", "episodic")))


def test_all_exchanges_are_decided_on_in_order_and_once() -> None:
    store = InMemoryMemoryStore()
    graph = build_memory_writer_graph().compile(store=store, checkpointer=InMemorySaver())
    graph.invoke({"messages": TALK}, CONFIG, context=CONTEXT)
    assert facts(store) == ["The user lives in Porto.", "The user's dog is called Rex."]
    assert len(store.recall(ANA, "", k=100, kinds=("turn",))) == 5
    batches = len(store.log(ANA))
    more = [AIMessage("Woof.", id="8"), HumanMessage("I like tea.", id="9")]
    graph.invoke({"messages": more}, CONFIG, context=CONTEXT)
    assert "The user likes tea." in facts(store)
    assert len(store.log(ANA)) == batches + 1 + 1  # the late answer, and what came after it
    graph.invoke({"messages": []}, CONFIG, context=CONTEXT)
    assert len(store.log(ANA)) == batches + 2


async def test_without_a_thread_of_its_own_the_same_again_changes_nothing() -> None:
    store = InMemoryMemoryStore()
    graph = build_memory_writer_graph().compile(store=store)
    for _ in range(2):
        await graph.ainvoke({"messages": TALK}, CONFIG, context=CONTEXT)
        batches = len(store.log(ANA))
    assert batches == 3
    nothing = await graph.ainvoke({"messages": []}, CONFIG, context=CONTEXT)
    assert not any(nothing.values())


def test_it_reads_the_thread_of_the_conversation() -> None:
    store, saver = InMemoryMemoryStore(), InMemorySaver()
    talking = build_memory_graph(remember=False).compile(store=store, checkpointer=saver)
    for text in ("I live in Lisbon.", "My dog is called Rex."):
        talking.invoke({"messages": [HumanMessage(text)]}, CONFIG, context=CONTEXT)
    assert facts(store) == []
    writing = build_memory_writer_graph().compile(store=store, checkpointer=saver)
    writing.invoke({"messages": []}, CONFIG, context=CONTEXT)
    assert facts(store) == ["The user lives in Lisbon.", "The user's dog is called Rex."]


def test_it_writes_the_blocks_of_the_conversation() -> None:
    habits = CoreBlock("habits")
    told = {
        "op": "update",
        "handle": "core:habits",
        "mode": "refine",
        "text": "The user runs.",
        "evidence": ["t1"],
    }
    policy = ChatModelPolicy(ScriptedChatModel(replies=[call(told)]))
    store = InMemoryMemoryStore()
    graph = build_memory_writer_graph(policy, core=[habits]).compile(store=store)
    graph.invoke({"messages": [HumanMessage("I run.")]}, CONFIG, context=CONTEXT)
    [hit] = store.recall(ANA, "", kinds=("core",))
    assert (hit.memory.key, hit.memory.text) == (habits.key, "The user runs.")
