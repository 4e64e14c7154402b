"""Which questions get clues, and which do not: in English, Chinese and Japanese."""

from __future__ import annotations

import pytest

from memgraph_plugin.memorag.router import route
from memgraph_plugin.types import Hit, Memory


def hit(cosine: float | None = 0.7, bm25: float | None = None) -> Hit:
    return Hit(Memory(namespace=("n",), key="k", text="t"), 1.0, cosine, bm25)


@pytest.mark.parametrize(
    ("query", "scenario"),
    [
        ("Where do I live?", None),
        ("What is my dog called?", None),
        ("When did Ann say she moved to Lisbon?", None),
        ("I live in Lisbon.", None),
        ("Thanks, that is all right.", None),
        ("What did I do all day?", None),
        ("我住在哪里？", None),
        ("我的狗叫什么名字？", None),
        ("今天天气很好。", None),
        ("犬の名前は何ですか？", None),
        ("リスボンに住んでいます。", None),
        ("List all the places where I have lived.", "aggregation"),
        ("How many times did I go to Porto?", "aggregation"),
        ("Can you summarise what the book says?", "aggregation"),
        ("Which of my friends know every song?", "aggregation"),
        ("列出我去过的所有城市。", "aggregation"),
        ("我一共去过多少次北京？", "aggregation"),
        ("旅行した町をすべて挙げて。", "aggregation"),
        ("What should I cook tonight?", "personal"),
        ("Would I like this new Thai restaurant?", "personal"),
        ("Can you recommend a book?", "personal"),
        ("给我推荐一本书吧", "personal"),
        ("おすすめの本はありますか", "personal"),
        ("What does my sister's husband's boss do?", "multi_hop"),
        ("Who wrote the opera whose premiere failed?", "multi_hop"),
        ("What is the capital of the country that Ann moved to?", "multi_hop"),
        ("Who is older, Ann or Bob?", "multi_hop"),
        ("我姐姐的丈夫的老板是谁？", "multi_hop"),
        ("私の姉の夫の上司の名前は何？", "multi_hop"),
        ("Who is Ann? Where does Bob work?", "multi_hop"),
        ("Has he eaten?", "conversation"),
        ("他吃饭了吗？", "conversation"),
        ("彼は元気ですか？", "conversation"),
        ("Tell me about the boat.", "vague"),
        ("Was there something with a boat?", "vague"),
        ("船那件事是怎么回事？", "vague"),
        ("あの件はどうなった？", "vague"),
    ],
)
def test_a_question_goes_where_its_words_point(query: str, scenario: str | None) -> None:
    decided = route(query, [hit()])
    assert decided.scenario == scenario, decided
    assert str(decided).startswith(f"{scenario or 'plain'}: ")


@pytest.mark.parametrize(
    "query",
    [
        "And the other one?",
        "What about Tom?",
        "Why?",
        "How old is it?",
        "另一家呢？",
        "もう一つは？",
        "それはいつ？",
    ],
)
def test_what_goes_on_with_a_conversation_points_at_it(query: str) -> None:
    assert route(query, [hit()], turns=2).scenario == "conversation"
    assert route(query, [hit()], turns=0).scenario is None


def test_other_languages_and_plain_words_are_decided_by_the_hits() -> None:
    for query in ("Wo wohne ich?", "Where do I live?"):
        assert route(query, [hit(0.2), hit(0.8)]).scenario is None
        assert route(query, [hit(0.2), hit(0.1)]).scenario == "vague"
        assert route(query, [hit(None, 3.0)]).scenario is None
        assert route(query, [hit(None, 0.0)]).scenario == "vague"


def test_where_nothing_is_remembered_nothing_is_drafted() -> None:
    assert route("List everything!", []).scenario is None
    assert "nothing is remembered" in str(route("List everything!", []))
    assert "asks nothing" in str(route("Ich wohne in Lissabon.", [hit()]))


def test_who_finds_nothing_by_words_may_need_others() -> None:
    assert route("What became of the vessel?", []).scenario is None
    decided = route("What became of the vessel?", [], embedded=False)
    assert str(decided) == "vague: none of its words were found"
    assert route("Thanks.", [], embedded=False).scenario is None
