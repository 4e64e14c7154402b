"""The whole way of a message: real store, real rules, a scripted model."""

from __future__ import annotations

import asyncio
import json
import logging
import operator
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt

from memgraph_plugin.errors import (
    ConfigurationError,
)
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.types import Insert, Memory, NoOp
from tests.conversations import ANN, HERS, compiled, everything_sent, say, texts


@pytest.fixture
def store() -> InMemoryMemoryStore:
    return InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=256))


@pytest.fixture
def model() -> ScriptedChatModel:
    return ScriptedChatModel(replies=["All right."], repeat_last=True)


def test_a_second_session_knows_what_the_first_was_told(store, model) -> None:
    graph = compiled(model, store)
    say(graph, "I live in Lisbon.", thread="1")
    say(graph, "Where do I live?", thread="2")
    assert "Lisbon" not in everything_sent(model, 0).replace("I live in Lisbon.", "")
    assert "Lisbon" in everything_sent(model)


async def test_a_second_session_knows_it_async_too(store, model) -> None:
    graph = compiled(model, store)
    for thread, text in [("1", "I live in Lisbon."), ("2", "Where do I live?")]:
        await graph.ainvoke(
            {"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": thread}}, context=ANN
        )
    assert "Lisbon" in everything_sent(model)


def test_another_user_knows_nothing(store, model) -> None:
    graph = compiled(model, store)
    say(graph, "I live in Lisbon.")
    say(graph, "Where do I live?", thread="2", context=MemoryContext(user_id="bob"))
    assert "Lisbon" not in everything_sent(model)


def test_every_turn_is_kept_word_for_word_with_its_place(store, model) -> None:
    when = datetime(2024, 5, 1, 12, tzinfo=UTC)
    graph = compiled(model, store)
    say(graph, "Good morning", context=MemoryContext(user_id="ann", session_id="monday", now=when))
    hits = store.recall(HERS, "", k=10, kinds=("turn",))
    turns = sorted((hit.memory for hit in hits), key=lambda memory: memory.position or 0)
    assert [(turn.text, turn.source, turn.position) for turn in turns] == [
        ("Good morning", "user", 0),
        ("All right.", "assistant", 1),
    ]
    assert {turn.session for turn in turns} == {"monday"}
    assert {turn.valid_from for turn in turns} == {when}
    assert turns[0].value["role"] == "user"


def test_recalled_memory_stands_marked_before_the_last_message_and_never_in_the_state(store, model) -> None:
    store.apply(HERS, [Insert(text="The user lives in Lisbon.")])
    graph = compiled(model, store)
    result = say(graph, "Where do I live?")
    system, block, question = model.prompts[-1]
    assert (system.type, block.type, question.text) == ("system", "human", "Where do I live?")
    assert block.additional_kwargs == {"memgraph_plugin": "memory"}
    assert "Lisbon" in block.text
    assert [message.text for message in result["messages"]] == ["Where do I live?", "All right."]


def test_what_the_thread_still_shows_is_not_recalled(store, model) -> None:
    graph = compiled(model, store, policy="none")
    say(graph, "My dog is called Rex.")
    say(graph, "What is my dog called?")
    assert everything_sent(model).count("Rex") == 1
    say(graph, "What is my dog called?", thread="2")
    assert "Rex" in everything_sent(model)


def test_recall_stays_within_its_tokens(store, model) -> None:
    long_fact = "The user knows Lisbon " + "very well " * 500
    store.apply(HERS, [Insert(text=long_fact), Insert(text="The user lives in Lisbon.")])
    say(compiled(model, store, token_budget=50), "Lisbon?")
    assert "very well" not in everything_sent(model)
    assert "The user lives in Lisbon." in everything_sent(model)


def test_a_correction_replaces_what_was_known(store, model) -> None:
    graph = compiled(model, store)
    say(graph, "I live in Lisbon.")
    say(graph, "Actually, I live in Porto now.", thread="2")
    facts = texts(store, "semantic", "core", "episodic")
    assert any("Porto" in fact for fact in facts)
    assert not any("Lisbon" in fact for fact in facts)


STORY = [
    "I live in Lisbon.",
    "I like green tea.",
    "Actually, I live in Porto now.",
    "My name is Lis\0a.",
    "Forget that I like green tea.",
    "Where do I live?",
    "x" * 1_100_000,
]


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_on_postgres_it_is_the_same(dsn: str, model, store, colour: str) -> None:
    options = {"embeddings": HashingEmbeddings(dimensions=256)}
    for number, text in enumerate(STORY):
        say(compiled(model, store), text, thread=str(number))

    async def tell(kept: Any) -> Any:
        graph = compiled(model, kept)
        for number, text in enumerate(STORY):
            run = {"messages": [HumanMessage(text)]}, {"configurable": {"thread_id": str(number)}}
            if colour == "async":
                await graph.ainvoke(*run, context=ANN)
            else:
                await asyncio.to_thread(graph.invoke, *run, context=ANN)
        assert "Porto" in everything_sent(model, -2)
        return await kept.arecall(HERS, "", k=1000)

    if colour == "async":
        async with AsyncPostgresMemoryStore(dsn, **options) as asynchronous:
            hits = await tell(asynchronous)
    else:
        with PostgresMemoryStore(dsn, **options) as synchronous:
            hits = await tell(synchronous)
    assert sorted(hit.memory.text for hit in hits) == texts(store)


def test_the_answer_is_streamed_before_anything_is_decided(store, model) -> None:
    graph = compiled(model, store)
    order = []
    for mode, chunk in graph.stream(
        {"messages": [HumanMessage("I live in Lisbon.")]},
        {"configurable": {"thread_id": "1"}},
        context=ANN,
        stream_mode=["messages", "updates", "custom"],
    ):
        if mode == "messages" and isinstance(chunk[0], AIMessageChunk) and chunk[0].text:
            order.append("token")
        elif mode == "updates":
            order += list(chunk)
        elif mode == "custom":
            order.append(chunk["type"])
    assert order.count("token") == 2
    assert [step for step in order if step != "token"] == [
        "memgraph_plugin.retrieve",
        "retrieve",
        "generate",
        "memgraph_plugin.decide",
        "decide",
        "memgraph_plugin.apply",
        "apply",
    ]
    last_token = len(order) - 1 - order[::-1].index("token")
    assert last_token < order.index("memgraph_plugin.decide")


async def test_custom_events_tell_counts_and_keys_but_no_text(store, model) -> None:
    store.apply(HERS, [Insert(text="The user lives in Lisbon.", key="home")])
    events = [
        chunk
        async for chunk in compiled(model, store).astream(
            {"messages": [HumanMessage("I moved from Lisbon to Porto.")]},
            {"configurable": {"thread_id": "1"}},
            context=ANN,
            stream_mode="custom",
        )
    ]
    assert events[0]["count"] == 1
    assert events[0]["keys"] == ["home"]
    assert "Lisbon" not in str(events)
    assert "Porto" not in str(events)


def test_a_step_that_runs_twice_writes_once(store, model) -> None:
    graph = compiled(model, store)
    say(graph, "I live in Lisbon.")
    before = texts(store)
    config = {"configurable": {"thread_id": "1"}}
    at_apply = next(state for state in graph.get_state_history(config) if state.next == ("apply",))
    first = graph.get_state(config).values["receipts"]
    assert graph.invoke(None, at_apply.config, context=ANN)["receipts"] == first
    assert texts(store) == before


def test_an_exchange_is_decided_on_once_whoever_decides(store) -> None:
    model = ScriptedChatModel(replies=["All right.", DECISION, "I would rather not."], repeat_last=True)
    graph = compiled(model, store, policy="model")
    say(graph, "Lisbon is my home. I like tea.")
    before = texts(store)
    config = {"configurable": {"thread_id": "1"}}
    at_decide = next(state for state in graph.get_state_history(config) if state.next == ("decide",))
    graph.invoke(None, at_decide.config, context=ANN)
    assert graph.get_state(config).values["policy"] == "rules"
    assert texts(store) == before


def test_a_thread_resumes_after_a_stop_between_any_two_steps(store, model) -> None:
    graph = build_memory_graph(model).compile(
        store=store, checkpointer=InMemorySaver(), interrupt_after=["retrieve", "generate", "decide"]
    )
    config = {"configurable": {"thread_id": "1"}}
    store.apply(HERS, [Insert(text="The user has a dog in Lisbon.")])
    graph.invoke({"messages": [HumanMessage("I live in Lisbon.")]}, config, context=ANN)
    for _ in range(3):
        result = graph.invoke(None, config, context=ANN)
    assert graph.get_state(config).next == ()
    assert "dog" in everything_sent(model)
    assert any(receipt["operation"] == "insert" for receipt in result["receipts"])
    assert model.calls == 1


def test_checkpoints_need_no_class_of_ours(store, model, caplog: pytest.LogCaptureFixture) -> None:
    graph = compiled(model, store)
    store.apply(HERS, [Insert(text="The user lives in Lisbon.", valid_from=datetime.now(UTC))])
    with caplog.at_level(logging.WARNING):
        say(graph, "I live in Porto now.")
        state = graph.get_state({"configurable": {"thread_id": "1"}}).values
    assert state["memories"][0]["memory"]["namespace"] == ["memories", "ann"]
    assert not caplog.records


def test_without_a_model_the_answer_quotes_and_says_so(store) -> None:
    graph = compiled(None, store)
    assert "nothing is remembered" in say(graph, "Where do I live?")["messages"][-1].text
    say(graph, "I live in Lisbon.", thread="2")
    answer = say(graph, "Where do I live?", thread="3")["messages"][-1].text
    assert answer.startswith("No model is configured")
    assert "Lisbon" in answer
    assert not [text for text in texts(store) if text.startswith("No model")]


@pytest.mark.parametrize(
    ("off", "steps"),
    [
        ({}, ["retrieve", "generate", "decide", "apply"]),
        ({"recall": False}, ["generate", "decide", "apply"]),
        ({"policy": "none"}, ["retrieve", "generate", "apply"]),
        ({"remember": False}, ["retrieve", "generate"]),
        ({"recall": False, "remember": False}, ["generate"]),
    ],
)
def test_each_step_can_be_left_out(model, off: dict[str, Any], steps: list[str]) -> None:
    assert list(build_memory_graph(model, **off).nodes) == steps


def test_servers_can_show_what_goes_in_and_out(model) -> None:
    graph = build_memory_graph(model).compile()
    assert list(graph.get_input_jsonschema()["properties"]) == ["messages"]
    assert list(graph.get_output_jsonschema()["properties"]) == ["messages", "receipts"]
    assert "user_id" in graph.get_context_jsonschema()["properties"]


def test_with_everything_off_it_is_a_call_of_the_model(model) -> None:
    graph = build_memory_graph(model, recall=False, remember=False, system_prompt="").compile()
    graph.invoke({"messages": [HumanMessage("Hello")]})
    assert [message.text for message in model.prompts[0]] == ["Hello"]


DECISION = json.dumps(
    {"ops": [{"op": "insert", "kind": "semantic", "text": "The user lives in Lisbon.", "evidence": ["t1"]}]}
)


def test_the_model_may_decide_itself_unheard_by_the_reader(store) -> None:
    made = []

    def make() -> ScriptedChatModel:
        made.append(ScriptedChatModel(replies=["All right.", DECISION]))
        return made[-1]

    graph = compiled(make, store, policy="model")
    assert made == []
    streamed = graph.stream(
        {"messages": [HumanMessage("Lisbon is my home.")]},
        {"configurable": {"thread_id": "1"}},
        context=ANN,
        stream_mode="messages",
    )
    assert "".join(chunk.text for chunk, _ in streamed) == "All right."
    assert len(made) == 1
    assert texts(store, "semantic") == ["The user lives in Lisbon."]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_policy_that_fails_leaves_the_decision_to_the_rules(store, colour: str, caplog) -> None:
    model = ScriptedChatModel(replies=["All right.", "I would rather not."], repeat_last=True)
    graph = compiled(model, store, policy="model")
    run = {"messages": [HumanMessage("I live in Lisbon.")]}, {"configurable": {"thread_id": "1"}}
    if colour == "sync":
        graph.invoke(*run, context=ANN)
    else:
        asyncio.run(graph.ainvoke(*run, context=ANN))
    (fact,) = store.recall(HERS, "", k=9, kinds=("semantic",))
    assert store.history(HERS, fact.memory.key)[0].policy == "rules"
    assert "the rules decide" in caplog.text


def test_a_policy_may_ask_a_human_first(store, model) -> None:
    class Careful(RulePolicy):
        def propose(self, turns: Any, memories: Any) -> Any:
            return super().propose(turns, memories) if interrupt("remember this?") else [NoOp()]

    graph = compiled(model, store, policy=Careful())
    assert say(graph, "I live in Lisbon.")["__interrupt__"][0].value == "remember this?"
    assert texts(store) == []
    graph.invoke(Command(resume=True), {"configurable": {"thread_id": "1"}}, context=ANN)
    assert "The user lives in Lisbon." in texts(store)


def test_deciding_by_model_needs_one() -> None:
    with pytest.raises(ConfigurationError, match="needs a model"):
        build_memory_graph(None, policy="model")


class Fan(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    receipts: Annotated[list[dict[str, Any]], operator.add]


def test_the_graph_is_a_node_of_another_graph_many_times_over(store, model) -> None:
    outer = StateGraph(Fan, context_schema=MemoryContext)
    outer.add_node("remembering", build_memory_graph(model).compile())
    outer.add_conditional_edges(
        START,
        lambda _: [
            Send("remembering", {"messages": [HumanMessage(f"I own a {pet}.")]}) for pet in ("cat", "dog")
        ],
        ["remembering"],
    )
    outer.add_edge("remembering", END)
    result = outer.compile(store=store).invoke({"messages": []}, context=ANN)
    assert sum(isinstance(message, AIMessage) for message in result["messages"]) == 2
    assert {"I own a cat.", "I own a dog."} <= set(texts(store, "turn"))


def test_parallel_runs_of_one_user_lose_nothing(store, model) -> None:
    graph = compiled(model, store)

    async def all_at_once() -> None:
        await asyncio.gather(
            *(
                graph.ainvoke(
                    {"messages": [HumanMessage(f"Number {number}")]},
                    {"configurable": {"thread_id": str(number)}},
                    context=ANN,
                )
                for number in range(20)
            )
        )

    asyncio.run(all_at_once())
    assert len([text for text in texts(store, "turn") if text.startswith("Number")]) == 20


def test_memories_of_other_hands_are_recalled(store, model) -> None:
    store.put(HERS, "note", {"text": "The user lives in Lisbon."})
    say(compiled(model, store), "Where do I live?")
    assert "Lisbon" in everything_sent(model)
    assert isinstance(store.recall(HERS, "Lisbon", k=1)[0].memory, Memory)
