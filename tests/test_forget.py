"""Forgetting: what was asked to be forgotten comes back from nowhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.messages import HumanMessage

from memgraph_plugin.consolidation import consolidate
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.safety import Safety
from memgraph_plugin.nodes.forget import REQUEST_KEPT
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.types import Delete, Held, Insert
from tests.conversations import ANN, HERS, compiled, everything_sent, say, texts


@pytest.fixture
def store() -> InMemoryMemoryStore:
    return InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=256))


@pytest.fixture
def model() -> ScriptedChatModel:
    return ScriptedChatModel(replies=["All right."], repeat_last=True)


def test_what_is_forgotten_is_not_recalled_from_anywhere(store) -> None:
    model = ScriptedChatModel(
        replies=["Lisbon is lovely!", "Fine.", "Lisbon is forgotten.", "I do not know."]
    )
    graph = compiled(model, store)
    say(graph, "I live in Lisbon.", thread="1")
    say(graph, "I like green tea.", thread="2")
    say(graph, "Forget that I live in Lisbon.", thread="3")
    assert not [text for text in texts(store) if "Lisbon" in text]
    say(graph, "Where do I live?", thread="4")
    assert "Lisbon" not in everything_sent(model)
    assert [text for text in texts(store, "turn") if "green tea" in text]


def test_what_no_rule_had_read_is_forgotten_by_its_words(store, model) -> None:
    graph = compiled(model, store)
    say(graph, "The zebra cake recipe needs seven eggs.", thread="1")
    say(graph, "Seven zebra stripes are enough.", thread="2")
    say(graph, "Forget that the zebra cake recipe needs seven eggs.", thread="3")
    assert [text for text in texts(store) if "zebra" in text] == ["Seven zebra stripes are enough."]


@pytest.mark.parametrize(
    "text", ["Forget it, let us talk about tea.", "Forget everything!", "Don't forget me."]
)
def test_a_manner_of_speaking_forgets_nothing(store, model, text: str) -> None:
    graph = compiled(model, store)
    say(graph, "I live in Lisbon.")
    say(graph, text, thread="2")
    assert {"I live in Lisbon.", text, "All right."} <= set(texts(store, "turn"))


EVENTS = ("I visited my sister in Rome.", "I started chemotherapy at Saint Mary.", "I bought a bike.")


def summarised(store) -> None:
    then = datetime.now(UTC) - timedelta(days=400)
    operations = []
    for i, line in enumerate(EVENTS):
        turn = {"role": "user", "message_id": str(i)}
        value = {"subject": "user", "attribute": "event", "value": line}
        text = "The user" + line[1:].replace(" my ", " their ")
        operations += [
            Insert(key=f"turn:{i}", kind="turn", text=line, source="user", value=turn),
            Insert(
                key=f"e{i}", kind="episodic", text=text, value=value, valid_from=then, evidence=(f"turn:{i}",)
            ),
        ]
    store.apply(HERS, operations)
    consolidate(store, HERS)
    (summary,) = texts(store, "episodic")
    assert all(word in summary for word in ("Rome", "Mary", "bike"))


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        ("Please forget that I bought a bike.", [0, 1]),
        ("Please forget about my sister in Rome.", [1, 2]),
        ("Please forget about the bike and the sister in Rome.", [1]),
    ],
)
async def test_of_a_summary_only_the_event_goes_that_is_meant(store, model, request_: str, left) -> None:
    summarised(store)
    graph = compiled(model, store)
    said = {"messages": [HumanMessage(request_)]}
    await graph.ainvoke(said, {"configurable": {"thread_id": "1"}}, context=ANN)
    turns = texts(store, "turn")
    assert [i for i in range(3) if EVENTS[i] in turns] == left
    memories = [hit.memory for hit in store.recall(HERS, "", k=50, kinds=("episodic",))]
    assert sorted(each.key for each in memories) == [f"e{i}" for i in left]
    for each in memories:
        assert store.history(HERS, each.key)[-1].evidence == (each.key.replace("e", "turn:"),)
        assert each.valid_from
        assert each.value["attribute"] == "event"


def test_where_no_word_tells_which_event_is_meant_all_go(store) -> None:
    class Bold(RulePolicy):
        def propose(self, turns, memories):
            keys = [each.key for each in memories if each.kind == "episodic"]
            return [Delete(key=key, evidence=(turns[0].key,), reason="user_request") for key in keys]

    summarised(store)
    say(compiled(None, store, policy=Bold()), "Please delete those old things.")
    assert texts(store) == [REQUEST_KEPT]


def test_of_two_who_have_events_of_one_summary_forgotten_none_brings_back_the_others(store) -> None:
    summarised(store)

    class Meanwhile(RulePolicy):
        def propose(self, turns, memories):
            decided = super().propose(turns, memories)
            if "sister" in turns[0].text:
                say(compiled(None, store), "Please forget that I bought a bike.", thread="2")
            return decided

    say(compiled(None, store, policy=Meanwhile()), "Please forget about my sister in Rome.")
    assert not [text for text in texts(store) if "bike" in text]
    assert [text for text in texts(store, "episodic") if "chemotherapy" in text]


def test_what_waits_in_quarantine_is_forgotten_too(store, model) -> None:
    graph = compiled(model, store, safety=Safety(email="quarantine"))
    say(graph, "Remember that my private address is ana@secret.org.", thread="1")
    say(graph, "Remember that my work address is ana@work.org.", thread="2")
    assert len(store.quarantined(HERS)) == 2
    say(graph, "Please forget that my private address is ana@secret.org.", thread="3")
    (held,) = store.quarantined(HERS)
    assert "work" in held.operation.text
    assert not [text for text in texts(store) if "secret" in text]


def test_nor_does_it_stay_where_its_turn_is_gone_already(store, model) -> None:
    held = Insert(text="The user's private address is ana@secret.org.", evidence=("turn:gone",))
    store.apply(HERS, [], held=[Held(operation=held, code="personal")])
    say(compiled(model, store), "Please forget that my private address is ana@secret.org.")
    assert store.quarantined(HERS) == []
    assert not [text for text in texts(store) if "secret" in text]
