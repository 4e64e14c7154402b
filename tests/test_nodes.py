"""The steps one by one: each runs both ways and does the same; and the pure parts that they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph

from memgraph_plugin.nodes import apply, decide, generate, retrieve
from memgraph_plugin.nodes.forget import REQUEST_KEPT
from memgraph_plugin.nodes.generate import model_source
from memgraph_plugin.nodes.retrieve import fit
from memgraph_plugin.nodes.scope import time_of
from memgraph_plugin.nodes.transcript import exchange, question_of, turn_key, with_memory_block
from memgraph_plugin.state import (
    MemoryContext,
    MemoryState,
    hits_from,
    operations_from,
    plain_hits,
    plain_operations,
    plain_receipts,
    receipts_from,
)
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.types import (
    Delete,
    Hit,
    Insert,
    Memory,
    MemoryVersion,
    Namespace,
    NoOp,
    Operation,
    Receipt,
    Turn,
    Update,
)

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
ANN = MemoryContext(user_id="ann", session_id="monday", now=NOON)
HERS = ("memories", "ann")
ASKED = HumanMessage("I live in Lisbon.", id="h1")
ANSWERED = AIMessage("Lovely!", id="a1")
TOOL_CALL = AIMessage("Looking.", tool_calls=[tool_call(name="x", args={}, id="c")], id="t1")
TOOL_RESULT = ToolMessage("result", tool_call_id="c", id="t2")


def filled() -> InMemoryMemoryStore:
    store = InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=256))
    store.apply(HERS, [Insert(text="The user has a dog in Lisbon.", key="dog", valid_from=NOON)])
    return store


def alone(node: Any, store: Any) -> Any:
    graph = StateGraph(MemoryState, context_schema=MemoryContext)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph.compile(store=store)


def without_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in ("key", "created_at", "updated_at")}
    return value.text if isinstance(value, AIMessage) else value


PLAIN_HIT = plain_hits([Hit(Memory(namespace=HERS, key="dog", text="A dog."), 1.0)])
PLAIN_INSERT = plain_operations([Insert(text="The user lives in Lisbon.")])


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (retrieve, {"messages": [ASKED]}),
        (lambda: generate(None), {"messages": [ASKED], "memories": PLAIN_HIT}),
        (
            lambda: generate(ScriptedChatModel(replies=["Lovely!"])),
            {"messages": [ASKED], "memories": PLAIN_HIT},
        ),
        (decide, {"messages": [ASKED, ANSWERED]}),
        (apply, {"messages": [ASKED, ANSWERED], "operations": PLAIN_INSERT, "policy": "rules"}),
    ],
    ids=["retrieve", "generate without a model", "generate", "decide", "apply"],
)
async def test_a_node_does_the_same_both_ways(make: Callable[[], Any], state: dict[str, Any]) -> None:
    modes = ["updates", "custom"]
    sync = list(alone(make(), filled()).stream(state, context=ANN, stream_mode=modes))
    graph = alone(make(), filled())
    apart = [chunk async for chunk in graph.astream(state, context=ANN, stream_mode=modes)]
    updates = [[chunk for mode, chunk in run if mode == "updates"] for run in (sync, apart)]
    assert without_ids(updates[0]) == without_ids(updates[1])
    assert [mode for mode, _ in sync] == [mode for mode, _ in apart]
    assert updates[0][0]["node"]


# What was said


def said(*messages: AnyMessage) -> list[tuple[str, str, int]]:
    return [
        (each.turn.role, each.turn.text, each.position) for each in exchange(messages, thread="t", now=NOON)
    ]


def test_an_exchange_is_what_was_said_since_the_last_answer() -> None:
    again = HumanMessage("And you?", id="h2")
    assert said(ASKED, ANSWERED) == [("user", "I live in Lisbon.", 0), ("assistant", "Lovely!", 1)]
    assert said(ASKED, ANSWERED, again) == [("user", "And you?", 2)]
    assert [role for role, *_ in said(ASKED, again, ANSWERED)] == ["user", "user", "assistant"]
    assert said(SystemMessage("Be kind."), ASKED, TOOL_CALL, TOOL_RESULT, ANSWERED) == [
        ("user", "I live in Lisbon.", 1),
        ("assistant", "Lovely!", 4),
    ]
    assert said() == []
    assert said(ANSWERED) == []


def test_injected_memory_is_no_message_of_anybody() -> None:
    messages = with_memory_block([ASKED], "<recalled-memories>I like tea.</recalled-memories>")
    assert [message.type for message in messages] == ["human", "human"]
    assert messages[1] is ASKED
    assert said(*messages, ANSWERED) == [("user", "I live in Lisbon.", 1), ("assistant", "Lovely!", 2)]
    assert question_of(messages[:1]) == ""
    assert with_memory_block([ANSWERED], "block") == [ANSWERED]


def test_a_question_is_cut_at_both_ends() -> None:
    question = question_of([HumanMessage("a" * 5_000 + "?")])
    assert len(question) == 2_001
    assert question.endswith("a?")


def test_a_turns_key_is_its_own_in_every_thread() -> None:
    assert turn_key("1", "x") == turn_key("1", "x")
    assert len({turn_key("1", "x"), turn_key("2", "x"), turn_key(None, "1\0x"), turn_key("1\0x", "")}) == 4
    assert len(turn_key("t" * 10_000, "x" * 10_000)) < 64


def test_hits_are_taken_while_they_fit() -> None:
    def hit(key: str, tokens: int) -> Hit:
        return Hit(Memory(namespace=HERS, key=key, text="", tokens=tokens), 1.0)

    hits = [hit("a", 60), hit("shown", 1), hit("b", 60), hit("c", 40), hit("d", 0)]
    taken = fit(hits, frozenset({"shown"}), k=9, token_budget=100)
    assert [each.memory.key for each in taken] == ["a", "c", "d"]
    assert len(fit(hits, frozenset(), k=2, token_budget=1_000)) == 2


def test_times_have_a_zone() -> None:
    assert time_of(datetime(2024, 5, 1, 12)) == NOON
    assert time_of("2024-05-01T12:00:00") == NOON
    elsewhere = datetime(2024, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert time_of(elsewhere) == NOON
    assert time_of(None).tzinfo is UTC


# The state


def test_what_the_state_keeps_survives_a_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(namespace=HERS, key="k", text="é", value={"a": [1, None]}, valid_from=NOON, position=3)
    hits = [Hit(memory, 1.5, cosine=0.5), Hit(memory, 0.5, bm25=2.0)]
    operations: list[Operation] = [
        Insert(text="x", kind="episodic", evidence=("t1",), valid_from=NOON, value={"operation": "y"}),
        Update(key="k", text="y", mode="supersede", version=2),
        Delete(key="k", reason="user_request"),
        NoOp(reason="nothing_new", evidence=("t1",)),
    ]
    receipts = [Receipt(operation="insert", status="rejected", code="secret", reason="no")]
    serializer = JsonPlusSerializer()

    def kept(value: Any) -> Any:
        return serializer.loads_typed(serializer.dumps_typed(value))

    with caplog.at_level(logging.WARNING):
        assert hits_from(kept(plain_hits(hits))) == hits
        assert operations_from(kept(plain_operations(operations))) == operations
        assert receipts_from(kept(plain_receipts(receipts))) == receipts
    assert not caplog.records


# Models


def test_a_model_is_made_once_and_late() -> None:
    made = []

    def make() -> ScriptedChatModel:
        made.append(1)
        return ScriptedChatModel(replies=[])

    load = model_source(make)
    assert made == []
    assert load() is load()
    assert len(made) == 1
    assert model_source(None)() is None


# Writing


class Interrupted:
    """A policy during whose thinking somebody else changes the memory."""

    name = "interrupted"

    def __init__(self, store: InMemoryMemoryStore) -> None:
        self.store = store

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        (home,) = [memory for memory in memories if memory.key == "home"]
        self.store.apply(HERS, [Update(key="home", text="The user lives in Porto.")])
        return [
            Update(
                key="home",
                text="The user lives in Lisbon.",
                mode="supersede",
                version=home.version,
                evidence=(turns[0].key,),
            )
        ]

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return self.propose(turns, memories)


class Contested(InMemoryMemoryStore):
    """Somebody changes every memory right after its history was read."""

    reads = 0

    def history(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        versions = super().history(namespace, key)
        if key == "home":
            self.reads += 1
            super().apply(namespace, [Update(key=key, text=f"The user lives in Town {self.reads}.")])
        return versions

    async def ahistory(self, namespace: Namespace, key: str) -> list[MemoryVersion]:
        return self.history(namespace, key)


def decide_and_apply(store: InMemoryMemoryStore) -> Any:
    graph = StateGraph(MemoryState, context_schema=MemoryContext)
    graph.add_sequence([("decide", decide(Interrupted(store))), ("apply", apply())])
    graph.add_edge(START, "decide")
    return graph.compile(store=store)


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_a_change_meanwhile_is_looked_at_and_the_decision_holds(colour: str) -> None:
    store = filled()
    store.apply(HERS, [Insert(text="The user lives in Rome.", key="home")])
    graph = decide_and_apply(store)
    state = {"messages": [ASKED, ANSWERED]}
    result = graph.invoke(state, context=ANN) if colour == "sync" else await graph.ainvoke(state, context=ANN)
    assert {receipt["status"] for receipt in result["receipts"]} == {"applied"}
    texts = [version.memory.text for version in store.history(HERS, "home") if version.memory]
    assert texts == ["The user lives in Rome.", "The user lives in Porto.", "The user lives in Lisbon."]


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_after_three_changes_the_refusal_stands(colour: str) -> None:
    store = Contested()
    store.apply(HERS, [Insert(text="The user lives in Rome.", key="home")])
    graph = decide_and_apply(store)
    state = {"messages": [ASKED, ANSWERED]}
    result = graph.invoke(state, context=ANN) if colour == "sync" else await graph.ainvoke(state, context=ANN)
    assert [receipt["code"] for receipt in result["receipts"]] == [None, None, "version_conflict"]
    assert store.reads == 3


def test_a_turn_that_is_stored_already_is_no_refusal() -> None:
    store = filled()
    graph = alone(apply(), store)
    first = graph.invoke({"messages": [ASKED, ANSWERED], "policy": "rules"}, context=ANN)
    again = graph.invoke({"messages": [ASKED, ANSWERED], "policy": "another"}, context=ANN)
    assert again["receipts"] == first["receipts"]
    anew = [ASKED, AIMessage("Said in other words.", id="anew")]
    other = graph.invoke({"messages": anew, "policy": "rules"}, context=ANN)
    assert [receipt["status"] for receipt in other["receipts"]] == ["unchanged", "applied"]


def test_refused_proposals_come_back_as_receipts() -> None:
    class Careless(Interrupted):
        def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
            return [Insert(text="The user lives on Mars.", evidence=("nowhere",))]

    store = filled()
    graph = StateGraph(MemoryState, context_schema=MemoryContext)
    graph.add_sequence([("decide", decide(Careless(store))), ("apply", apply())])
    graph.add_edge(START, "decide")
    result = graph.compile(store=store).invoke({"messages": [ASKED, ANSWERED]}, context=ANN)
    assert [receipt["code"] for receipt in result["receipts"]] == [None, None, "unknown_evidence"]
    assert result["operations"] == []
    assert result["rejected"] == []


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_forgetting_takes_the_turns_and_the_reply_and_keeps_the_request_unspoken(colour: str) -> None:
    store = filled()
    told, replied, other = turn_key(None, "h0"), turn_key(None, "a0"), turn_key(None, "h9")
    store.apply(
        HERS,
        [
            Insert(
                text="My place is in Rome, you know",
                kind="turn",
                key=told,
                session="s",
                position=0,
                source="user",
            ),
            Insert(
                text="Molto bello!", kind="turn", key=replied, session="s", position=1, source="assistant"
            ),
            Insert(text="I flew over Rome.", kind="turn", key=other, session="s", position=9, source="user"),
            Insert(text="The user lives in Rome.", key="home", evidence=(told,)),
        ],
    )
    forget = HumanMessage("Forget that I live in Rome.", id="h2")
    operations = plain_operations([Delete(key="home", version=1, evidence=(turn_key("monday", "h2"),))])
    state = {"messages": [forget, AIMessage("Rome is gone.", id="a2")], "operations": operations}
    graph = alone(apply(), store)
    await graph.ainvoke(state, context=ANN) if colour == "async" else graph.invoke(state, context=ANN)
    left = {hit.memory.text for hit in store.recall(HERS, "", k=99)}
    assert left == {"I flew over Rome.", REQUEST_KEPT, "The user has a dog in Lisbon."}
    assert store.history(HERS, told)[-1].operation == "delete"


def test_forgetting_keeps_the_words_of_what_else_was_said() -> None:
    store = filled()
    store.apply(HERS, [Insert(text="The user lives in Rome.", key="home")])
    said = [HumanMessage("My aunt sails.", id="h1"), HumanMessage("Forget that I live in Rome.", id="h2")]
    operations = plain_operations([Delete(key="home", version=1, evidence=(turn_key("monday", "h2"),))])
    alone(apply(), store).invoke({"messages": said, "operations": operations}, context=ANN)
    left = {hit.memory.text for hit in store.recall(HERS, "", k=99, kinds=("turn",))}
    assert left == {"My aunt sails.", REQUEST_KEPT}


def test_what_a_policy_tidies_away_takes_no_turns() -> None:
    store = filled()
    told = turn_key("1", "h0")
    store.apply(
        HERS,
        [
            Insert(text="I live in Rome.", kind="turn", key=told, source="user"),
            Insert(text="The user lives in Rome.", key="home", evidence=(told,)),
        ],
    )
    operations = plain_operations(
        [Delete(key="home", reason="duplicate", evidence=(turn_key("monday", "h1"),))]
    )
    alone(apply(), store).invoke({"messages": [ASKED, ANSWERED], "operations": operations}, context=ANN)
    turns = {hit.memory.text for hit in store.recall(HERS, "", k=99, kinds=("turn",))}
    assert turns == {"I live in Rome.", "I live in Lisbon.", "Lovely!"}
