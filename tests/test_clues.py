"""What a drafter's reply is made of, and what of it is searched with: in English, Chinese and Japanese."""

from __future__ import annotations

import json

import pytest

from memgraph_plugin.errors import ModelReplyError
from memgraph_plugin.memorag.clues import (
    PLANS,
    SLOTS,
    example,
    language,
    read_json,
    read_text,
    schema,
    task,
    tidy,
)
from memgraph_plugin.types import Clue

CHINESE = ["宝玉初次见到黛玉时说曾经见过她。", "贾母派人把黛玉接到了京城。", "黛玉的母亲在扬州去世。"]
JAPANESE = ["先生は毎月雑司ヶ谷の墓地へ行く。", "Kは遺書を残して自殺した。", "私は鎌倉で先生と出会った。"]


def spans(*texts: str) -> list[Clue]:
    return [Clue("span", text) for text in texts]


def texts(clues: list[Clue]) -> list[str]:
    return [clue.text for clue in clues]


def test_a_reply_of_json_gives_its_clues_whatever_stands_around_it() -> None:
    reply = 'Sure {x}! ```json\n{"spans": ["a", 3], "questions": "b", "time": ["1890"], "other": 1}\n``` Bye.'
    assert read_json(reply) == [
        Clue("span", "a"),
        Clue("span", "3"),
        Clue("question", "b"),
        Clue("entity", "1890"),
    ]


@pytest.mark.parametrize("reply", ["", "no", "{}", '{"answer": "x"}', '["spans"]', '{"spans": ["cut'])
def test_a_reply_without_whole_json_is_kept_with_the_error(reply: str) -> None:
    with pytest.raises(ModelReplyError) as caught:
        read_json(reply)
    assert caught.value.raw == reply


def test_replies_without_end_are_read_in_no_time() -> None:
    for reply in ('{"a":' * 20_000, "{" * 100_000, '{"spans":["' + "x" * 1_000_000):
        assert tidy(read_text(reply, "span")) in ([], tidy(spans(reply)))


def test_json_that_was_cut_gives_what_is_whole_of_it() -> None:
    reply = '{"spans": ["one \\"two\\"", "caf\\u00e9 au lait"], "questions": ["who?", "and wh'
    assert read_text(reply, "span") == [*spans('one "two"', "café au lait"), Clue("question", "who?")]


def test_a_reply_of_lines_gives_a_clue_a_line() -> None:
    assert texts(read_text("1. one\n\n  2. two\n", "question")) == ["1. one", "  2. two"]


@pytest.mark.parametrize(
    ("line", "bare"),
    [
        ("1. The count sleeps in his coffin.", "The count sleeps in his coffin."),
        ("- (2) “The count sleeps in his coffin.”", "The count sleeps in his coffin."),
        ("**Question 3:** Where does the count sleep?", "Where does the count sleep?"),
        ("3.5 million people live there now", "3.5 million people live there now"),
        ("12:30 was when they met", "12:30 was when they met"),
        ("-5 degrees it was that night", "-5 degrees it was that night"),
        ("①贾母派人把黛玉接到了京城。", "贾母派人把黛玉接到了京城。"),
        ("二、贾母派人把黛玉接到了京城。", "贾母派人把黛玉接到了京城。"),
        ("问题1：黛玉是什么时候到京城的？", "黛玉是什么时候到京城的？"),
        ("１．「先生は毎月墓地へ行く。」", "先生は毎月墓地へ行く。"),
        ("質問２：先生はなぜ墓地へ行くのか？", "先生はなぜ墓地へ行くのか？"),
    ],
)
def test_what_stands_around_a_clue_is_taken_off(line: str, bare: str) -> None:
    assert texts(tidy(spans(line))) == [bare]


def test_chinese_and_japanese_clues_stay_though_they_have_no_spaces() -> None:
    for lines in (CHINESE, JAPANESE):
        assert not [line for line in lines if len(line.split(" ")) > 3], "MemoRAG's filter would drop each"
        assert texts(tidy(spans(*lines))) == lines


def test_what_is_too_short_to_find_anything_is_dropped() -> None:
    assert (
        tidy(spans("The count sleeps.", "Dracula", "宝玉和黛玉", "墓地へ行く", "", "…", "{", "```json")) == []
    )
    assert texts(tidy([Clue("entity", name) for name in ("Ann", "黛玉", "1890", "!")])) == [
        "Ann",
        "黛玉",
        "1890",
    ]


def test_repetitions_and_copies_of_the_question_are_dropped() -> None:
    said = spans(
        "Where does the Count sleep by day?",
        "The count sleeps in a box of earth.",
        "The Count sleeps in a box of EARTH!",
        "The count sleeps in a box of Transylvanian clay.",
        "贾母派人把黛玉接到了京城。",
        "贾母派人把黛玉接到了京城里",
        "Ｔｈｅ　count sleeps in a box of earth",
    )
    left = tidy(said, unlike=["where does the count sleep by day"])
    assert texts(left) == [said[1].text, said[3].text, said[4].text]


def test_there_are_only_so_many_and_each_kind_has_its_share() -> None:
    said = [Clue("span", f"sentence number {n} of those guessed") for n in range(9)]
    said += [Clue("question", f"which is question {n} of these") for n in range(3)]
    said += [Clue("entity", f"name{n}") for n in range(20)] + [
        Clue("draft", "It was surely the count himself.")
    ] * 2
    left = tidy(said, limit=6)
    kinds = [clue.kind for clue in left]
    assert (kinds.count("span"), kinds.count("question"), kinds.count("entity"), kinds.count("draft")) == (
        3,
        3,
        8,
        1,
    )


def test_a_clue_without_end_is_cut() -> None:
    assert len(tidy(spans("very long " * 1000))[0].text) <= 400


@pytest.mark.parametrize(
    ("text", "tongue"),
    [
        ("Where is he?", "en"),
        ("Wo ist er?", "en"),
        ("", "en"),
        ("她在哪里？", "zh"),
        ("彼はどこ？", "ja"),
        ("그는 어디에 있나요?", "ko"),
        ("What does 你好 mean in English, please?", "en"),
    ],
)
def test_a_language_is_told_by_its_script(text: str, tongue: str) -> None:
    assert language(text) == tongue


@pytest.mark.parametrize("scenario", PLANS)
@pytest.mark.parametrize(
    ("query", "tongue"), [("why?", "en"), ("她在哪里？", "zh"), ("彼はどこ？", "ja"), ("왜?", "en")]
)
def test_every_scenario_has_a_task_and_an_example_that_is_itself_tidy(scenario, query, tongue) -> None:
    told = example(scenario, query)
    assert language("".join(told.spans)) == tongue
    assert all(task(scenario, kind) for kind in SLOTS.values())
    clues = [Clue("span", text) for text in told.spans] + [Clue("question", text) for text in told.questions]
    assert sorted(texts(tidy(clues, unlike=[told.query]))) == sorted(texts(clues))
    assert not tidy(clues, unlike=told.texts)


def test_the_schema_has_the_lists_of_the_kinds_that_are_wanted() -> None:
    assert list(schema(("span", "entity"), 3)["properties"]) == ["spans", "entities", "time"]
    assert schema(("draft",), 3)["properties"]["draft"]["maxItems"] == 1
    json.dumps(schema(("span",), 3))
