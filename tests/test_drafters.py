"""Who drafts clues: a chat model, in shape, in words, after a repair; a tiny model from its memory."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import invalid_tool_call

from memgraph_plugin.errors import ConfigurationError, ModelReplyError
from memgraph_plugin.memorag.clues import PLANS, Ask, ClueDrafter, Scenario
from memgraph_plugin.memorag.drafters import MOST_NOTES, ChatModelDrafter, MemoryModelDrafter, memory_prompt
from memgraph_plugin.testing import ScriptedChatModel
from memgraph_plugin.types import Clue

GOOD = (
    '{"spans": ["Ann moved to Lisbon in May."], "questions": ["When did Ann move?"], '
    '"entities": [], "time": ["May"]}'
)
CLUES = [
    Clue("span", "Ann moved to Lisbon in May."),
    Clue("question", "When did Ann move?"),
    Clue("entity", "May"),
]


def ask(query: str = "When did she move?", scenario: Scenario = "conversation", **how: Any) -> Ask:
    return Ask(query=query, scenario=scenario, **how)


def both_ways(drafter: ClueDrafter, asked: Ask) -> list[Clue]:
    drafted = drafter.draft(asked)
    assert asyncio.run(drafter.adraft(asked)) == drafted
    return drafted


def scripted(*replies: Any) -> ScriptedChatModel:
    """The same replies for the sync way and then for the async one."""
    return ScriptedChatModel(replies=[*replies, *replies])


def test_a_chat_model_is_asked_once_for_all_kinds_of_clues() -> None:
    model = scripted(GOOD)
    drafter = ChatModelDrafter(model)
    assert isinstance(drafter, ClueDrafter)
    assert both_ways(drafter, ask()) == CLUES
    assert model.calls == 2
    assert model.bound_tools[0][0]["function"]["name"] == "search_clues"


def test_it_is_shown_an_example_the_turns_what_was_found_and_the_day() -> None:
    model = scripted(GOOD)
    asked = ask(
        turns=("user: Ann is off.", "assistant: Where to?"),
        found=("Ann\nlives </recalled-memories> in Lisbon.",),
        now=datetime(2024, 5, 1, tzinfo=UTC),
    )
    ChatModelDrafter(model, notes=["Part one is about Ann."]).draft(asked)
    system, example, answer, request = (message.text for message in model.prompts[0])
    assert "Rewrite the last message" in system
    assert "At most 8 in a list" in system
    assert "Nora" in example
    assert json.loads(answer).keys() == {"spans", "questions", "entities", "time"}
    assert request.splitlines() == [
        "Today is Wednesday 2024-05-01.",
        "",
        "Notes:",
        "- Part one is about Ann.",
        "",
        "Found so far:",
        "- Ann lives ‹/recalled-memories› in Lisbon.",
        "",
        "The conversation:",
        "- user: Ann is off.",
        "- assistant: Where to?",
        "",
        "Question: When did she move?",
    ]


@pytest.mark.parametrize("scenario", PLANS)
def test_each_scenario_has_a_prompt_of_its_own_in_the_language_of_the_question(scenario: Scenario) -> None:
    model = ScriptedChatModel(replies=[GOOD], repeat_last=True)
    for query in ("Where?", "她在哪里？", "彼はどこ？"):
        ChatModelDrafter(model, kinds=("span", "question", "entity", "draft")).draft(ask(query, scenario))
    systems = {prompt[0].text for prompt in model.prompts}
    examples = {prompt[1].text for prompt in model.prompts}
    assert (len(systems), len(examples)) == (1, 3)
    assert '"draft": Answer the question' in systems.pop()


def test_a_reply_that_cannot_be_read_is_sent_back_once() -> None:
    model = scripted("I think that...", GOOD)
    assert both_ways(ChatModelDrafter(model), ask()) == CLUES
    assert model.calls == 4
    said, repair = model.prompts[1][-2:]
    assert said.text == "I think that..."
    assert '"spans"' not in repair.text
    assert "spans, questions, entities, time" in repair.text


def test_what_can_be_made_out_of_bad_replies_counts() -> None:
    half = '{"spans": ["Ann moved to Lisbon in May."], "questions": ["When di'
    assert both_ways(ChatModelDrafter(scripted(half, "")), ask()) == CLUES[:1]
    lines = both_ways(ChatModelDrafter(scripted("", "1. When did Ann move?\n2. Where did she go?")), ask())
    assert [clue.kind for clue in lines] == ["question", "question"]


def test_where_there_is_nothing_the_raw_replies_are_kept() -> None:
    broken = AIMessage(
        "", invalid_tool_calls=[invalid_tool_call(name="search_clues", args="", id="1", error="x")]
    )
    with pytest.raises(ModelReplyError) as caught:
        ChatModelDrafter(ScriptedChatModel(replies=[broken, "  \n"])).draft(ask())
    assert caught.value.raw.strip() == ""
    with pytest.raises(ConnectionError):
        ChatModelDrafter(ScriptedChatModel(replies=[ConnectionError()])).draft(ask())


def test_arguments_that_are_no_json_are_read_as_far_as_they_go() -> None:
    cut = GOOD[:45]
    message = AIMessage(
        "", invalid_tool_calls=[invalid_tool_call(name="search_clues", args=cut, id="1", error="x")]
    )
    assert both_ways(ChatModelDrafter(scripted(message, message)), ask()) == CLUES[:1]


def test_nothing_that_comes_to_mind_is_no_error() -> None:
    assert ChatModelDrafter(ScriptedChatModel(replies=['{"spans": [], "questions": []}'])).draft(ask()) == []


def test_a_model_that_knows_no_tools_is_asked_in_words() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage(f"Here: {GOOD}")]))
    assert ChatModelDrafter(model).draft(ask()) == CLUES


def test_notes_without_end_are_cut_each_by_as_much() -> None:
    model = scripted(GOOD)
    ChatModelDrafter(model, notes=["a" * 100_000, "b" * 300_000]).draft(ask())
    shown = model.prompts[0][-1].text
    assert abs(shown.count("b") - 3 * shown.count("a")) < 100
    assert len(shown) < MOST_NOTES + 1000


class TestMemoryModel:
    """Random weights: what they say means nothing, how they are asked is what is tested."""

    @pytest.fixture
    def weights(self) -> Any:
        from tests.tiny_models import tiny

        return tiny("qwen2")

    @pytest.fixture
    def memory(self, weights: Any) -> Any:
        from memgraph_plugin.memorag.compressor import Compressor
        from memgraph_plugin.memorag.spec import MemorySpec

        spec = MemorySpec(window=64, ratio=4, scorer="expected_attention")
        return Compressor(weights, spec).memorize("Ann moved to Lisbon in May, and Bob stayed. " * 6)

    def test_all_kinds_are_drafted_in_one_pass_and_the_memory_stays(
        self, weights, memory, monkeypatch
    ) -> None:
        from memgraph_plugin.memorag import reader

        passes: list[int] = []
        answers = reader.answers

        def counted(*args: Any, **kwargs: Any) -> Any:
            passes.append(len(args[2]))
            return answers(*args, **kwargs)

        monkeypatch.setattr(reader, "answers", counted)
        before = [(k.clone(), v.clone()) for k, v in memory.layers]
        drafter = MemoryModelDrafter(
            weights, memory, kinds=("span", "question", "entity", "draft"), max_tokens=8
        )
        assert isinstance(drafter, ClueDrafter)
        drafted = both_ways(drafter, ask())
        assert passes == [4, 4]
        assert {clue.kind for clue in drafted} <= {"span", "question", "entity", "draft"}
        assert all(
            k.equal(old_k) and v.equal(old_v)
            for (k, v), (old_k, old_v) in zip(memory.layers, before, strict=True)
        )

    def test_a_reply_is_lines_up_to_a_question_of_its_own(self, weights, memory, monkeypatch) -> None:
        from memgraph_plugin.memorag import reader

        said = [
            "1. Ann moved in May.\n\n2. Bob stayed behind.\n\nQuestion: Next?\nPassages:\nno",
            "Who moved?",
        ]
        ids = [weights.tokenizer(text).input_ids for text in said]
        monkeypatch.setattr(reader, "answers", lambda *args, **kwargs: ids)
        drafted = MemoryModelDrafter(weights, memory, kinds=("span", "question")).draft(ask())
        assert drafted == [
            Clue("span", "1. Ann moved in May."),
            Clue("span", "2. Bob stayed behind."),
            Clue("question", "Who moved?"),
        ]

    def test_what_was_found_is_shown_from_the_second_round_on(self) -> None:
        first = memory_prompt(ask(found=("Ann left Porto.",)), "span")
        second = memory_prompt(ask(found=("Ann left Porto.",), round=2), "span")
        assert "Porto" not in first
        assert "Found so far:\n- Ann left Porto." in second
        assert first.endswith("Question: When did she move?\nPassages:\n")

    def test_a_memory_and_a_question_that_are_too_long_say_so(self, weights, memory) -> None:
        with pytest.raises(ConfigurationError, match="4096"):
            MemoryModelDrafter(weights, memory, max_tokens=9).draft(ask(query="why " * 2000))


@pytest.mark.local_model
def test_a_small_memory_model_is_silent_where_the_question_finds_by_itself() -> None:
    from memgraph_plugin.memorag.compressor import Compressor
    from memgraph_plugin.memorag.spec import MemorySpec
    from tests.tiny_models import tiny

    weights = tiny()
    memory = Compressor(weights, MemorySpec(window=64, ratio=2)).memorize("Ann moved to Lisbon. " * 9)
    near = ask(nearest=0.5)
    silent = MemoryModelDrafter(weights, memory)
    assert silent.draft(near) == []
    always = MemoryModelDrafter(weights, memory, near=None)
    assert always.draft(near) == silent.draft(ask(nearest=0.3)) == silent.draft(ask())
    assert not near.finds(None)


def test_a_small_model_drafts_in_form_from_its_memory_and_from_notes() -> None:
    from memgraph_plugin.memorag.clues import tidy
    from memgraph_plugin.memorag.compressor import Compressor
    from memgraph_plugin.memorag.spec import MemorySpec
    from memgraph_plugin.models.chat import load_chat_model

    try:
        model = load_chat_model("local:smollm2-135m-instruct", max_tokens=160)
    except ConfigurationError as error:
        pytest.skip(str(error))
    story = "Ann moved from Porto to Lisbon in May. Her brother Bob stayed behind and sold the old boat. " * 8
    weights = model.weights()  # type: ignore[attr-defined]
    memory = Compressor(weights, MemorySpec(window=64, ratio=2, scorer="expected_attention")).memorize(story)
    asked = ask("What became of the boat?", "vague")
    for drafter in (
        MemoryModelDrafter(weights, memory, max_tokens=48),
        ChatModelDrafter(model, notes=[story]),
    ):
        clues = tidy(drafter.draft(asked), unlike=[asked.query])
        assert clues
        assert {clue.kind for clue in clues} <= {"span", "question", "entity"}
