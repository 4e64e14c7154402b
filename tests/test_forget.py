"""Forgetting: what was asked to be forgotten comes back from nowhere."""

from __future__ import annotations

import pytest

from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from tests.conversations import compiled, everything_sent, say, texts


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
