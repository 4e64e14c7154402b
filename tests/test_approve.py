"""A human is asked before chosen operations are written: by interrupt, resumed in either colour, and once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memalpha.blocks import PROFILE
from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.nodes.approve import answered
from memgraph_plugin.state import Pending
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.types import Delete, Insert, NoOp, Update
from tests.conversations import ANN, HERS, compiled, say, texts
from tests.test_chat_policy import call

THREAD: Any = {"configurable": {"thread_id": "1"}}


def inserted(text: str) -> dict[str, Any]:
    return {"op": "insert", "text": text, "evidence": ["t1"]}


@pytest.fixture
def store() -> InMemoryMemoryStore:
    return InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=64))


def graph_of(store: Any, *replies: Any, approve: Any = ("insert",), saver: Any = None) -> tuple[Any, Any]:
    asked = ScriptedChatModel(replies=list(replies))
    built = build_memory_graph(
        ScriptedChatModel(replies=["All right."], repeat_last=True),
        policy=ChatModelPolicy(asked),
        approve=approve,
    )
    return built.compile(store=store, checkpointer=saver or InMemorySaver()), asked


def test_what_waits_is_shown_and_nothing_of_it_written_but_the_turns_are(store: Any) -> None:
    graph, _ = graph_of(store, call(inserted("The user plays chess.")))
    result = say(graph, "I play chess.")
    [asked] = result["__interrupt__"]
    assert asked.value["type"] == "memgraph_plugin.approve"
    [operation] = asked.value["operations"]
    assert (operation["operation"], operation["text"]) == ("insert", "The user plays chess.")
    json.dumps(asked.value)
    assert texts(store, "semantic") == []
    assert texts(store, "turn") == ["All right.", "I play chess."]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("approve", ["The user plays chess.", "The user plays go."]),
        ("reject", []),
        (["reject", "approve"], ["The user plays go."]),
        ([{"text": "The user plays chess badly."}, "reject"], ["The user plays chess badly."]),
    ],
)
def test_a_human_approves_rejects_or_edits(store: Any, answer: Any, expected: list[str]) -> None:
    graph, asked = graph_of(store, call(inserted("The user plays chess."), inserted("The user plays go.")))
    say(graph, "I play chess, and I play go.")
    result = graph.invoke(Command(resume=answer), THREAD, context=ANN)
    assert texts(store, "semantic") == expected
    assert asked.calls == 1  # what was asked about is what is written: nobody decides again
    codes = [receipt["code"] for receipt in result["receipts"] if receipt["status"] == "rejected"]
    assert codes == ["not_approved"] * (2 - len(expected))
    assert not graph.get_state(THREAD).next


async def test_it_works_async(store: Any) -> None:
    graph, _ = graph_of(store, call(inserted("The user plays chess.")))
    result = await graph.ainvoke({"messages": [HumanMessage("I play chess.")]}, THREAD, context=ANN)
    assert result["__interrupt__"]
    await graph.ainvoke(Command(resume="approve"), THREAD, context=ANN)
    assert texts(store, "semantic") == ["The user plays chess."]


@pytest.mark.parametrize("answer", ["perhaps", [], ["approve", "approve"], [{"key": "k"}], 7])
def test_what_is_no_answer_is_asked_for_again(store: Any, answer: Any) -> None:
    graph, _ = graph_of(store, call(inserted("The user plays chess.")))
    say(graph, "I play chess.")
    result = graph.invoke(Command(resume=answer), THREAD, context=ANN)
    assert result["__interrupt__"][0].value["error"]
    graph.invoke(Command(resume="approve"), THREAD, context=ANN)
    assert texts(store, "semantic") == ["The user plays chess."]


def test_only_what_is_named_waits_and_a_deletion_says_what_would_go(store: Any) -> None:
    store.apply(HERS, [Insert(text="The user plays chess.", key="k")])
    delete = {"op": "delete", "handle": "s1", "evidence": ["t1"], "reason": "user_request"}
    graph, _ = graph_of(store, call(inserted("The user plays go."), delete), approve=("delete",))
    [asked] = say(graph, "I play go. I do not play chess anymore.")["__interrupt__"]
    assert [each["before"] for each in asked.value["operations"]] == ["The user plays chess."]
    assert texts(store, "semantic") == ["The user plays chess.", "The user plays go."]
    graph.invoke(Command(resume="approve"), THREAD, context=ANN)
    assert texts(store, "semantic") == ["The user plays go."]


def test_a_kind_or_a_function_may_name_what_waits(store: Any) -> None:
    core = {
        "op": "update",
        "handle": "core:profile",
        "mode": "refine",
        "text": "Plays chess.",
        "evidence": ["t1"],
    }
    graph, _ = graph_of(store, call(core, inserted("The user plays chess.")), approve=("core",))
    assert len(say(graph, "I play chess.")["__interrupt__"][0].value["operations"]) == 1
    graph, _ = graph_of(store, call(inserted("The user plays go.")), approve=lambda *_: False)
    assert "__interrupt__" not in say(graph, "I play go.", thread="3")


def test_what_nobody_answered_lapses_when_the_conversation_goes_on(store: Any) -> None:
    graph, _ = graph_of(store, call(inserted("The user plays chess.")), call())
    say(graph, "I play chess.")
    receipts = say(graph, "Good morning")["receipts"]
    assert "not_approved" in [receipt["code"] for receipt in receipts]
    assert texts(store, "semantic") == []


def test_no_edit_takes_a_block_past_its_limit_or_a_delete_anywhere() -> None:
    waiting = [Pending(PROFILE.insert("The user is a nurse."))]
    with pytest.raises(ConfigurationError, match="512 are allowed"):
        answered(waiting, [{"text": "nurse " * 1000}], "chat")
    with pytest.raises(ConfigurationError):
        answered([Pending(Delete(key="k"))], [{"text": "x"}], "chat")
    for wrong in ({"text": " "}, {"text": 7}, {"importance": "high"}, {}):
        with pytest.raises(ConfigurationError):
            answered(waiting, [wrong], "chat")
    [edited] = answered(waiting, [{"text": "The user is a doctor."}], "chat").operations
    assert isinstance(edited, Insert)
    assert (edited.key, edited.value) == (PROFILE.key, PROFILE.as_value())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"text": "a\0b"}, "NUL"),
        ({"text": "x" * 601}, "600 are allowed"),
        ({"importance": 7.0}, "between 0 and 1"),
        ({"importance": float("nan")}, "no operation"),
        ({"valid_from": "2020-01-01T00:00:00"}, "time zone"),
        ({"valid_from": "2020-01-01T00:00:00Z", "valid_to": "2010-01-01T00:00:00Z"}, "later"),
    ],
)
def test_an_edit_that_cannot_be_is_asked_for_again(store: Any, changes: Any, why: str) -> None:
    graph, _ = graph_of(store, call(inserted("The user plays chess.")))
    say(graph, "I play chess.")
    result = graph.invoke(Command(resume=[changes]), THREAD, context=ANN)
    assert why in result["__interrupt__"][0].value["error"]
    graph.invoke(Command(resume="approve"), THREAD, context=ANN)
    assert texts(store, "semantic") == ["The user plays chess."]


def test_a_run_in_postgres_is_resumed_by_another_process_and_written_once(dsn: str) -> None:
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(dsn) as saver:
        saver.setup()
        with PostgresMemoryStore(dsn) as store:
            graph, _ = graph_of(store, call(inserted("The user plays chess.")), saver=saver)
            assert say(graph, "I play chess.")["__interrupt__"]
        with PostgresMemoryStore(dsn) as store:
            graph, _ = graph_of(store, saver=saver)  # a model that would fail if it were asked again
            before = graph.get_state(THREAD)
            graph.invoke(Command(resume="approve"), THREAD, context=ANN)
            graph.invoke(Command(resume="approve"), before.config, context=ANN)  # replayed from before
            facts = [hit.memory.text for hit in store.recall(HERS, "", k=50, kinds=("semantic",))]
            turns = [hit.memory.text for hit in store.recall(HERS, "", k=50, kinds=("turn",))]
    assert facts == ["The user plays chess."]
    assert sorted(turns) == ["All right.", "I play chess."]


@pytest.mark.parametrize("op", ["update", "delete"])
def test_a_yes_is_to_what_was_shown_and_overwrites_nothing_newer(store: Any, op: str) -> None:
    store.apply(HERS, [Insert(key="k", text="The user's dentist is Dr Adams.")])
    more = {"text": "The user's dentist is Dr Brown.", "mode": "supersede"} if op == "update" else {}
    change = {"op": op, "handle": "s1", "evidence": ["t1"], **more}
    graph, _ = graph_of(store, call(change), approve=(op,))
    assert say(graph, "My dentist Dr Adams is wrong, it is Dr Brown, forget it.")["__interrupt__"]
    store.apply(HERS, [Update(key="k", text="The user's dentist is Dr Chen.")])
    result = graph.invoke(Command(resume="approve"), THREAD, context=ANN)
    assert [each["code"] for each in result["receipts"] if each["code"]] == ["version_conflict"]
    assert texts(store, "semantic") == ["The user's dentist is Dr Chen."]


def test_a_policy_that_names_no_version_means_the_one_it_was_shown(store: Any) -> None:
    class Careless(RulePolicy):
        def propose(self, turns: Any, memories: Any) -> Any:
            return [replace(each, version=None) for each in super().propose(turns, memories)]

    store.apply(HERS, [Insert(key="k", text="The user lives in Lisbon.")])
    graph = compiled(None, store, policy=Careless(), approve=("update",))
    assert say(graph, "I moved to Porto.")["__interrupt__"]
    store.apply(HERS, [Update(key="k", text="The user lives in Rome.")])
    graph.invoke(Command(resume="approve"), THREAD, context=ANN)
    assert texts(store, "semantic") == ["The user lives in Rome."]


@pytest.mark.parametrize("erased", [True, False])
async def test_what_was_forgotten_before_the_answer_does_not_come_back(store: Any, erased: bool) -> None:
    graph, _ = graph_of(store, call(inserted("The user plays chess.")), call())
    say(graph, "I play chess.")
    if erased:
        store.forget(HERS)
    else:
        store.apply(HERS, [Delete(key=hit.memory.key) for hit in store.recall(HERS, "I play chess.", k=1)])
    left = texts(store)
    result = await graph.ainvoke(Command(resume="approve"), THREAD, context=ANN)
    assert [each["code"] for each in result["receipts"] if each["code"]] == ["unknown_evidence"]
    assert texts(store) == left
    assert "I play chess." not in left


def test_a_no_op_needs_nobody(store: Any) -> None:
    class Idle(RulePolicy):
        def propose(self, turns: Any, memories: Any) -> Any:
            return [NoOp()]

    graph = compiled(None, store, policy=Idle(), approve=("noop", "insert"))
    assert "__interrupt__" not in say(graph, "Hi there")
