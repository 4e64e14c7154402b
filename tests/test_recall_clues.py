"""Clues in the way of a message: what they find that the question does not, why, and what fails open."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memorag.clues import PLANS, Ask
from memgraph_plugin.memorag.drafters import ChatModelDrafter
from memgraph_plugin.nodes import recall_clues, retrieve
from memgraph_plugin.nodes.recall_clues import DrafterSource, Way
from memgraph_plugin.state import MemoryContext, MemoryState, clues_from, hits_from
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.types import Clue, Insert, MemoryKind, Namespace

ANN = MemoryContext(user_id="ann")
HERS = ("memories", "ann")

BOOK = [
    "The morning was bright and the market square of Velmo was full of people.",
    "The fishing boat of the Halvorsen brothers struck a rock off Utsira in the storm.",
    "Old Marta sold her apples and quarrelled with the baker about the weather.",
    "The baker had a daughter who wanted to become a singer in the city.",
    "The insurance refused to pay, since the lighthouse keeper was asleep that night.",
    "In autumn the school was painted green, which nobody had asked for.",
    "Otto Karling invented the valve that kept the pumps of the harbour running.",
    "The pumps had been bought from a company in Bergen long before.",
    "Karling had studied at the university of Lund with his brother.",
    "The parish priest wrote a chronicle of the village in three volumes.",
    "The university of Lund was founded when the region became Swedish, in 1666.",
    "Nobody remembered the first winter of the century any more.",
]
VAGUE = "Was there some trouble, something that cost money?"
SPANS = ["The fishing boat struck a rock in the storm.", "The insurance refused to pay the brothers."]


def passages() -> list[Insert]:
    return [
        Insert(text=text, kind="passage", key=f"p{n:02}", session="book", position=n)
        for n, text in enumerate(BOOK)
    ]


def in_memory() -> InMemoryMemoryStore:
    store = InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=512))
    store.apply(HERS, passages())
    return store


def reply(spans: list[str] = SPANS, questions: tuple[str, ...] = (), **more: list[str]) -> str:
    return json.dumps({"spans": spans, "questions": list(questions), "entities": [], "time": [], **more})


def drafter(*replies: Any) -> tuple[ChatModelDrafter, ScriptedChatModel]:
    model = ScriptedChatModel(replies=list(replies))
    return ChatModelDrafter(model), model


def nodes(clues: DrafterSource, store: MemoryStore, *, k: int = 3, **way: Any) -> Any:
    """`retrieve` and `recall_clues`, and nothing else: the way into somebody's own graph."""
    graph = StateGraph(MemoryState, context_schema=MemoryContext)
    drafting = recall_clues(clues, way=Way(**{"k": k, "floor": 0.2, **way}))
    graph.add_sequence([("retrieve", retrieve(k=k)), ("recall_clues", drafting)])
    graph.add_edge(START, "retrieve")
    return graph.compile(store=store)


def ask(graph: Any, *said: str | AnyMessage) -> dict[str, Any]:
    messages = [HumanMessage(each) if isinstance(each, str) else each for each in said]
    result: dict[str, Any] = graph.invoke({"messages": messages}, context=ANN)
    return result


def keys(state: dict[str, Any]) -> list[str]:
    return [hit.memory.key for hit in hits_from(state["memories"])]


def test_clues_find_what_the_question_does_not() -> None:
    clues, model = drafter(reply())
    state = ask(nodes(clues, in_memory(), k=6), VAGUE)
    assert {"p01", "p04"} <= set(keys(state))
    assert keys(state) == sorted(keys(state)), "in the order of the document"
    assert [clue.text for clue in clues_from(state["clues"])] == SPANS
    assert state["route"].startswith("vague: it does not say what it needs")
    assert model.calls == 1
    plain = ask(nodes(lambda namespace: None, in_memory(), k=6), VAGUE)
    assert not {"p01", "p04"} <= set(keys(plain))


async def test_both_ways_do_the_same() -> None:
    store = in_memory()
    sync = ask(nodes(drafter(reply())[0], store), VAGUE)
    graph = nodes(drafter(reply())[0], store)
    state = await graph.ainvoke({"messages": [HumanMessage(VAGUE)]}, context=ANN)
    assert {k: v for k, v in state.items() if k != "messages"} == {
        k: v for k, v in sync.items() if k != "messages"
    }


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_it_works_on_postgres(dsn: str, colour: str) -> None:
    embeddings, clues = HashingEmbeddings(dimensions=512), drafter(reply())[0]
    if colour == "sync":
        with PostgresMemoryStore(dsn, embeddings=embeddings) as store:
            store.apply(HERS, passages())
            state = await asyncio.to_thread(ask, nodes(clues, store, k=6), VAGUE)
    else:
        async with AsyncPostgresMemoryStore(dsn, embeddings=embeddings) as store:
            await store.aapply(HERS, passages())
            state = await nodes(clues, store, k=6).ainvoke({"messages": [HumanMessage(VAGUE)]}, context=ANN)
    assert {"p01", "p04"} <= set(keys(state))


def test_a_plain_question_costs_no_call() -> None:
    clues, model = drafter()
    state = ask(nodes(clues, in_memory()), "What did the insurance refuse to pay, asleep as the keeper was?")
    assert model.calls == 0
    assert (state["clues"], state["route"].partition(":")[0]) == ([], "plain")
    assert "p04" in keys(state)


def test_without_vectors_clues_find_where_no_word_of_the_question_does() -> None:
    store = InMemoryMemoryStore()
    store.apply(HERS, passages())
    clues, _ = drafter(reply())
    state = ask(nodes(clues, store), "Why did the schooner sink?")
    assert state["route"].startswith("vague: none of its words were found")
    assert "p01" in keys(state)


def test_the_users_own_best_hit_stays_whatever_clues_say() -> None:
    query = "Something about a parish priest who wrote a chronicle?"
    state = ask(nodes(drafter(reply())[0], in_memory(), k=3, token_budget=60), query)
    assert "p09" in keys(state)
    assert sum(hit.memory.tokens for hit in hits_from(state["memories"])) <= 60
    assert len(keys(state)) <= 3


def test_hallucinated_sentences_are_dropped_and_not_told_to_the_log(caplog) -> None:
    caplog.set_level(logging.INFO)
    made_up = "Quantum chromodynamics explains zebra migration exhaustively."
    state = ask(nodes(drafter(reply([made_up, SPANS[0]]))[0], in_memory()), VAGUE)
    assert [clue.text for clue in clues_from(state["clues"])] == SPANS[:1]
    assert "1 guessed sentences found nothing like them" in caplog.text
    assert "zebra" not in caplog.text


def test_what_a_model_copies_from_its_example_is_not_searched_with() -> None:
    copied = ["The harbour master refused to let the old boat leave because its engine had failed twice."]
    state = ask(nodes(drafter(reply(copied))[0], in_memory()), VAGUE)
    assert (state["clues"], state["route"].endswith("; no clue was worth a search")) == ([], True)


def test_a_second_round_is_drafted_in_view_of_what_the_first_found() -> None:
    query = "When was the university founded of the engineer who invented the valve of the pumps?"
    first = reply(
        [], ("Who invented the valve of the pumps?", "Where did Karling (?) study with his brother?")
    )
    second = reply([], ("In which year was the university of Lund founded, Swedish region?",))
    clues, model = drafter(first, second)
    state = ask(nodes(clues, in_memory(), k=4), query)
    assert state["route"].startswith("multi_hop: ")
    assert model.calls == 2
    assert "studied at the university of Lund" in model.prompts[1][-1].text
    assert {"p06", "p08", "p10"} <= set(keys(state))
    assert len(state["clues"]) == 3


def test_rounds_end_when_nothing_new_comes_to_mind() -> None:
    query = "When was the university founded of the engineer who invented the valve of the pumps?"
    clues, model = drafter(*[reply([], ("Who invented the valve of the pumps?",))] * 2)
    assert len(ask(nodes(clues, in_memory()), query)["clues"]) == 1
    assert model.calls == PLANS["multi_hop"].rounds


def test_all_of_something_is_not_bounded_by_k_but_by_the_budget() -> None:
    spans = [BOOK[n] for n in (0, 2, 5, 7, 9, 11)]
    state = ask(nodes(drafter(reply(spans))[0], in_memory(), k=3), "List everything that happened!")
    assert {"p00", "p02", "p05", "p07", "p09", "p11"} <= set(keys(state))
    small = ask(
        nodes(drafter(reply(spans))[0], in_memory(), k=3, token_budget=50), "List everything that happened!"
    )
    assert sum(hit.memory.tokens for hit in hits_from(small["memories"])) <= 50


def test_what_is_settled_about_the_user_is_searched_besides() -> None:
    store = in_memory()
    store.apply(HERS, [Insert(text="The user cannot stand boats.", key="boats", kind="core")])
    searched: list[Any] = []
    recall = store.recall

    def watched(
        namespace: Namespace, query: str, *, kinds: tuple[MemoryKind, ...] | None = None, **how: Any
    ) -> Any:
        searched.append(kinds)
        return recall(namespace, query, kinds=kinds, **how)

    store.recall = watched  # type: ignore[method-assign]
    state = ask(nodes(drafter(reply([]))[0], store), "What should I do in Velmo on a bright morning?")
    assert ("core", "semantic") in searched
    assert "boats" in keys(state)


def test_the_turns_before_are_shown_and_what_they_show_is_not_found_again() -> None:
    store = in_memory()
    clues, model = drafter(reply(SPANS))
    graph = build_memory_graph(
        ScriptedChatModel(replies=["Yes."], repeat_last=True), policy="none", clues=clues
    )
    compiled = graph.compile(store=store, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for said in ("A fishing boat struck a rock in the storm, I read.", "And what did it cost them?"):
        state = compiled.invoke({"messages": [HumanMessage(said)]}, config, context=ANN)
    assert "- user: A fishing boat struck" in model.prompts[0][-1].text
    values = compiled.get_state(config).values
    assert values["route"].startswith("conversation: ")
    assert "p01" in keys(values)
    assert not any(hit.memory.kind == "turn" for hit in hits_from(values["memories"]))
    assert state["messages"][-1].text == "Yes."


def test_memorags_own_merge_has_neither_limit_nor_names() -> None:
    told = reply(SPANS, ("What about the daughter of the baker, the singer?",), entities=["Otto Karling"])
    state = ask(nodes(drafter(told)[0], in_memory(), k=3, merge="memorag", token_budget=1), VAGUE)
    assert len(keys(state)) > 3
    assert keys(state) == sorted(keys(state))
    assert {clue.kind for clue in clues_from(state["clues"])} == {"span", "question"}


def test_names_are_searched_together() -> None:
    told = reply([], entities=["Otto Karling", "Lund"])
    state = ask(nodes(drafter(told)[0], in_memory(), k=5), VAGUE)
    assert {"p06", "p08"} <= set(keys(state))


class Broken:
    name = "broken"

    def draft(self, ask: Ask) -> list[Clue]:
        raise RuntimeError("secret: Lisbon")

    async def adraft(self, ask: Ask) -> list[Clue]:
        raise RuntimeError("secret: Lisbon")


async def test_a_drafter_that_fails_leaves_the_turn_as_it_was(caplog) -> None:
    store = in_memory()
    graph = nodes(Broken(), store)
    before = ask(nodes(lambda namespace: None, store), VAGUE)
    for state in (ask(graph, VAGUE), await graph.ainvoke({"messages": [HumanMessage(VAGUE)]}, context=ANN)):
        assert state["memories"] == before["memories"]
        assert state["route"].endswith("; clues failed (RuntimeError)")
    assert "Clues failed (RuntimeError)" in caplog.text
    assert "Lisbon" not in caplog.text


@pytest.mark.parametrize(
    "given", [None, ["text"], [None], "text", [Clue("rumour", "they were seen at the harbour")]]
)  # type: ignore[arg-type]
def test_a_drafter_that_gives_no_clues_is_one_that_fails(given: Any) -> None:
    wrong = Broken()
    wrong.draft = lambda ask: given  # type: ignore[method-assign]
    state = ask(nodes(wrong, in_memory()), VAGUE)
    assert keys(state)
    assert state["route"].endswith("; clues failed (TypeError)")


async def test_clues_that_no_database_can_read_are_made_readable(dsn: str) -> None:
    clues, _ = drafter(
        reply(["The fishing \0 boat \ud800 struck a rock in the storm."], entities=["\0", "\ud800"])
    )
    async with AsyncPostgresMemoryStore(dsn, embeddings=HashingEmbeddings(dimensions=512)) as store:
        await store.aapply(HERS, passages())
        state = await nodes(clues, store, k=6).ainvoke({"messages": [HumanMessage(VAGUE)]}, context=ANN)
    assert [clue["text"] for clue in state["clues"]] == [SPANS[0]]
    assert "p01" in keys(state)


def failing(store: InMemoryMemoryStore, after: int) -> InMemoryMemoryStore:
    """A store whose database goes away after so many searches."""
    recall, calls = store.recall, [0]

    def recall_or_not(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            raise DatabaseUnavailable("secret: Lisbon")
        return recall(*args, **kwargs)

    store.recall = recall_or_not  # type: ignore[method-assign]
    return store


def test_a_store_that_fails_leaves_what_was_found(caplog) -> None:
    state = ask(nodes(drafter(reply())[0], failing(in_memory(), 2)), VAGUE)
    assert keys(state)
    assert (state["clues"], state["route"].endswith("; clues failed (DatabaseUnavailable)")) == ([], True)
    assert "Lisbon" not in caplog.text
    query = "When was the university founded of the engineer who invented the valve of the pumps?"
    replies = [
        reply([], (question,))
        for question in ("Who invented the valve?", "Where did Karling study, with whom?")
    ]
    state = ask(nodes(drafter(*replies)[0], failing(in_memory(), 3), k=4), query)
    assert len(state["clues"]) == 1, "what the first round found stays"
    assert "p06" in keys(state)


def test_nobody_to_draft_is_said_and_whose_memory_is_asked_for() -> None:
    asked: list[Namespace] = []

    def source(namespace: Namespace) -> None:
        asked.append(namespace)

    state = ask(nodes(source, in_memory()), VAGUE)
    assert asked == [HERS]
    assert state["route"].endswith("; there is no memory to draft from")


def test_one_scenario_may_be_chosen_for_every_question() -> None:
    state = ask(nodes(drafter(reply())[0], in_memory(), scenario="aggregation"), "Boats.")
    assert state["route"] == "aggregation: chosen for every question"


@pytest.mark.parametrize("wrong", [{"merge": "none"}, {"scenario": "dream"}])
def test_a_way_that_there_is_not_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Way(**wrong)


def test_the_graph_has_the_step_only_where_somebody_drafts() -> None:
    assert "recall_clues" not in build_memory_graph().compile(store=in_memory()).get_graph().nodes
    graph = build_memory_graph(clues=drafter()[0]).compile(store=in_memory())
    edges = [(edge.source, edge.target) for edge in graph.get_graph().edges]
    assert ("retrieve", "recall_clues") in edges
    assert ("recall_clues", "generate") in edges
    with pytest.raises(ConfigurationError, match="recall"):
        build_memory_graph(clues=drafter()[0], recall=False)


def test_what_the_drafting_model_says_is_not_streamed_as_the_answer() -> None:
    answering = ScriptedChatModel(replies=["It cost a fortune."])
    graph = build_memory_graph(answering, policy="none", clues=drafter(reply())[0]).compile(store=in_memory())
    streamed, events = [], []
    for mode, part in graph.stream(
        {"messages": [HumanMessage(VAGUE)]}, context=ANN, stream_mode=["messages", "custom"]
    ):
        (streamed if mode == "messages" else events).append(part)
    assert (
        "".join(chunk.text for chunk, _ in streamed if isinstance(chunk, AIMessage)) == "It cost a fortune."
    )
    (told,) = [event for event in events if event["type"] == "memgraph_plugin.recall_clues"]
    assert told["clues"] == {"span": 2}
    assert told["route"].startswith("vague: ")
    assert "boat" not in json.dumps(told)
    shown = "\n".join(message.text for message in answering.prompts[0])
    assert "struck a rock" in shown


@pytest.mark.parametrize("said", ["", "   "])
def test_an_empty_message_asks_for_nothing(said: str) -> None:
    clues, model = drafter()
    state = ask(nodes(clues, in_memory()), said)
    assert (model.calls, state["memories"], state["clues"]) == (0, [], [])
    assert state["route"].startswith("plain: nothing is remembered")


def test_questions_in_chinese_find_their_passages() -> None:
    store = InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=512))
    told = [
        "贾母派人把黛玉接到了京城。",
        "宝玉初次见到黛玉时说曾经见过她。",
        "刘姥姥进了大观园，众人都笑了。",
    ]
    store.apply(HERS, [Insert(text=text, key=f"c{n}", kind="passage") for n, text in enumerate(told)])
    clues, _ = drafter(reply(["贾母把黛玉接到京城。"]))
    state = ask(nodes(clues, store, k=2, floor=-1.0), "亲戚那件事是怎么回事？")
    assert "c0" in keys(state)
    assert [clue.text for clue in clues_from(state["clues"])] == ["贾母把黛玉接到京城。"]


def test_a_source_may_be_a_function_of_the_namespace() -> None:
    clues, model = drafter(reply())
    source: Callable[[Namespace], ChatModelDrafter] = {HERS: clues}.__getitem__
    assert ask(nodes(source, in_memory()), VAGUE)["clues"]
    assert model.calls == 1
