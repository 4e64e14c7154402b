"""A chat model as a generator: what it is shown, what is made of its replies, one call a sample."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from memgraph_plugin.errors import ConfigurationError, ModelReplyError
from memgraph_plugin.selfmem.chat_generator import ChatModelGenerator
from memgraph_plugin.selfmem.protocols import Sampler
from memgraph_plugin.testing import ScriptedChatModel
from memgraph_plugin.types import Candidate, Example, Request

EXAMPLES = tuple(
    Example(source=f"{word} house", target=f"{wort} Haus")
    for word, wort in (("red", "rotes"), ("old", "altes"), ("new", "neues"))
)
REQUEST = Request(source="blue house", memory="rotes Haus", examples=EXAMPLES)
TASK = "Translate the text from English to German."


class SamplingModel(ScriptedChatModel):
    """One with the settings that samples differ by; it notes them."""

    temperature: float = 1.0
    seed: int | None = None
    given: list[Any] = []  # noqa: RUF012 - a pydantic field

    def _next(self, messages: Any, **options: Any) -> AIMessage:
        self.given.append((options.pop("temperature"), options.pop("seed")))
        return super()._next(messages, **options)


def generator(*replies: Any, **how: Any) -> tuple[ChatModelGenerator, ScriptedChatModel]:
    model = ScriptedChatModel(replies=list(replies), repeat_last=True)
    return ChatModelGenerator(model, TASK, max_concurrency=1, **how), model


def test_examples_are_turns_nearest_last_and_the_retrieved_memory_is_among_them() -> None:
    made, model = generator("blaues Haus")
    assert made.hypotheses([REQUEST]) == [Candidate("blaues Haus")]
    (prompt,) = model.prompts
    assert prompt[0].text.startswith(TASK)
    assert [message.text for message in prompt[1:]] == [
        *("new house", "neues Haus", "old house", "altes Haus", "red house", "rotes Haus"), "blue house"
    ]  # fmt: skip


def test_a_draft_is_shown_as_a_draft_or_searched_with() -> None:
    from memgraph_plugin.selfmem.retriever import BM25Retriever

    later = Request(source="blue house", memory="neues Haus", examples=EXAMPLES, round=1)
    made, model = generator("blaues Haus", examples=1)
    made.hypotheses([later])
    assert model.prompts[0][-1].text.startswith("blue house\n")
    assert "may be wrong in parts:\n\nneues Haus\n" in model.prompts[0][-1].text
    made, model = generator(
        "x", examples=1, by_target=BM25Retriever(EXAMPLES, side="target", language="german")
    )
    made.hypotheses([later])
    assert [message.text for message in model.prompts[0][1:]] == ["new house", "neues Haus", "blue house"]


def test_each_candidate_is_a_call_and_equal_ones_are_one() -> None:
    made, model = generator("a", " a\n", "b", "", '"c"')
    assert isinstance(made, Sampler)
    assert made.candidates([REQUEST], 5) == [[Candidate("a"), Candidate("b"), Candidate("c")]]
    assert model.calls == 5
    orders = {tuple(message.text for message in prompt) for prompt in model.prompts}
    assert len(orders) > 1


def test_both_colours_and_single_samples_say_the_same() -> None:
    replies = ["a", "b", "a", "b", "a", "b", "a", "a", "a"]
    made, _ = generator(*replies)
    first = made.candidates([REQUEST], 2)
    assert asyncio.run(made.acandidates([REQUEST], 2)) == first
    assert [made.sample(REQUEST, 0), asyncio.run(made.asample(REQUEST, 1))] == first[0]
    assert made.hypotheses([REQUEST]) == asyncio.run(made.ahypotheses([REQUEST]))
    assert asyncio.run(made.ahypothesis(REQUEST)) == Candidate("a")
    assert made.candidates([], 2) == []


def test_settings_are_passed_where_the_model_has_them() -> None:
    model = SamplingModel(replies=["a"], repeat_last=True)
    made = ChatModelGenerator(model, TASK, temperature=0.7, max_concurrency=1)
    made.candidates([REQUEST], 2, seed=10)
    made.hypotheses([REQUEST], seed=10)
    assert model.given == [(0.7, 10), (0.7, 11), (0.0, 10)]


@pytest.mark.parametrize(
    ("source", "reply", "text"),
    [
        ("house", "„Haus“", "Haus"),
        ('"house"', '"Haus"', '"Haus"'),
        ("house", '"a" and "b"', '"a" and "b"'),
        ("house", "'", "'"),
    ],
)
def test_quotation_marks_around_a_reply_go_unless_the_source_has_them(source, reply, text) -> None:
    made, _ = generator(reply)
    assert made.hypotheses([Request(source=source)]) == [Candidate(text)]


def test_a_model_that_says_nothing_or_fails_is_told_of() -> None:
    made, _ = generator(" ")
    with pytest.raises(ModelReplyError):
        made.candidates([REQUEST], 3)
    assert made.sample(REQUEST, 0) is None
    made, _ = generator(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        made.candidates([REQUEST], 3)
    with pytest.raises(ConfigurationError):
        made.candidates([REQUEST], 0)
    with pytest.raises(ConfigurationError):
        generator("a", examples=-1)


def test_a_fingerprint_names_model_task_and_settings() -> None:
    one, other = generator("a")[0], generator("a", temperature=0.1)[0]
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint["model"]
