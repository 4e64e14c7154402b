"""Generated timelines: the same from a seed, in two halves that share no phrase, and true to their truth."""

from __future__ import annotations

from dataclasses import fields

import pytest

from memgraph_plugin.memalpha import timeline_phrases as phrases
from memgraph_plugin.memalpha.timelines import EVENT, MEMORABLE, Timeline, timeline

SEEDS = range(60)


@pytest.fixture(scope="module", params=["train", "held_out"])
def timelines(request: pytest.FixtureRequest) -> list[Timeline]:
    return [timeline(seed, split=request.param) for seed in SEEDS]


def test_a_seed_gives_the_same_timeline_and_another_another():
    assert timeline(3) == timeline(3)
    assert timeline(3) != timeline(4)
    assert timeline(3).turns != timeline(3, split="train").turns


def test_no_phrase_and_no_value_stands_in_both_halves():
    ways = [each for each in vars(phrases).values() if isinstance(each, phrases.Ways)]
    for attribute in phrases.ATTRIBUTES:
        ways += [
            value
            for each in fields(attribute)
            if isinstance(value := getattr(attribute, each.name), phrases.Ways)
        ]
        train, held_out = (phrases.values_of(attribute, split) for split in ("train", "held_out"))
        assert not set(train) & set(held_out)
        assert min(len(train), len(held_out)) >= 3
    for way in ways:
        assert not set(way.train) & set(way.held_out)
        assert bool(way.train) == bool(way.held_out)


def test_every_turn_says_what_its_moves_say(timelines: list[Timeline]):
    for each in timelines:
        turns = {turn.key: turn for turn in each.turns}
        assert len(turns) == len(each.turns)
        for move in each.moves:
            said = turns[move.turn].text.casefold()
            assert turns[move.turn].role == "user"
            if move.act in ("state", "change", "correct", "repeat"):
                assert each.truth(move.fact).value.casefold() in said
            if move.act == "suggested":
                continue
            if move.decoy:
                assert move.decoy.value.casefold() in said
        assert each.memorable == {move.turn for move in each.moves if move.act in MEMORABLE}


def test_the_truth_is_consistent(timelines: list[Timeline]):
    acts = set()
    for each in timelines:
        keys = [turn.key for turn in each.turns]
        assert [turn.at for turn in each.turns] == sorted(turn.at for turn in each.turns)
        for truth in each.truths:
            assert truth.evidence
            assert set(truth.evidence) <= set(keys)
            assert (truth.end is None) == (truth.until is None) == (truth.ended_by == "")
            assert truth.until is None or truth.told < truth.until
            assert (truth.on is not None) == (truth.attribute == EVENT)
            if truth.instead:
                assert each.truth(truth.instead).attribute == truth.attribute
        single = [truth.attribute for truth in each.known_at(each.turns[-1].at) if truth.attribute != EVENT]
        assert len(single) == len(set(single))
        acts |= {move.act for move in each.moves}
    assert acts >= {"state", "repeat", "change", "correct", "end", "forget", "third", "quoted", "chatter"}


def test_questions_ask_for_what_holds_and_for_what_must_not_be_found(timelines: list[Timeline]):
    kinds = set()
    for each in timelines:
        for question in each.questions():
            kinds.add(question.kind)
            current = {truth.value for truth in each.truths if not truth.end}
            assert question.gold == "" or question.gold in current
            assert question.gold not in question.stale + question.absent
            assert not set(question.stale) & current
            if question.kind in ("current", "changed", "corrected", "event"):
                assert question.gold
                assert question.evidence
            else:
                assert not question.gold
                assert question.stale or question.absent
    assert kinds == {"current", "changed", "corrected", "ended", "forgotten", "never", "event"}


def test_questions_between_sessions_do_not_know_the_rest(timelines: list[Timeline]):
    for each in timelines[:20]:
        first = each.sessions[0].turns[-1].at
        told = {truth.value for truth in each.truths if truth.told <= first}
        for question in each.questions(first):
            assert {question.gold, *question.stale} - {""} <= told
        assert {truth.value for truth in each.known_at(first)} <= told


def test_difficulty_is_how_often_a_fact_has_to_be_understood():
    outright = {
        way.format(v=value)
        for attribute in phrases.ATTRIBUTES
        for way in attribute.plain.held_out
        for value in phrases.values_of(attribute, "held_out")
    }

    def share(difficulty: float) -> float:
        said = [turn.text for seed in SEEDS for turn in timeline(seed, difficulty=difficulty).turns]
        return sum(any(way in text for way in outright) for text in said) / len(said)

    assert share(0.0) > share(0.5) > share(1.0)


def test_asides_can_be_left_out():
    acts = {move.act for seed in SEEDS for move in timeline(seed, asides=False).moves}
    assert acts == {"state", "repeat", "change", "correct", "end", "forget", "chatter"}


@pytest.mark.parametrize("wrong", [{"sessions": 1}, {"facts": 0}, {"facts": 13}, {"difficulty": 1.5}])
def test_what_cannot_be_made_is_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="a timeline has"):
        timeline(1, **wrong)  # type: ignore[arg-type]
