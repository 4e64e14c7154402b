"""The loop over many sources, and its rules on one."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.selfmem.loop import (
    Early,
    Plan,
    Round,
    begin,
    choose,
    drive,
    passes,
    pooled,
    seed_of,
    stopped,
)
from memgraph_plugin.types import Candidate, Example, Request
from tests.drafting import PAIRS, Beams, Middle, Words

FILE = "could not open file"
OPEN = "konnte Datei nicht öffnen"


def pool(*texts: str) -> list[Candidate]:
    return [Candidate(text) for text in texts]


def line(**more: object) -> Round:
    return Round(**{"round": 1, "memory": "m", "origin": "self", "changed": True, "pool": 2, **more})  # type: ignore[arg-type]


def test_each_round_starts_from_the_best_of_the_last() -> None:
    generator = Beams()
    (done,) = drive(Words(), generator, Middle(), [FILE], Plan(rounds=2, pool=3), run="r")
    assert [each.memory for each in done.trace] == [f"{OPEN}ab", f"{OPEN}abab"]
    assert done.hypothesis.text == f"{OPEN}abab!"
    assert done.stop == "rounds"
    assert [(request.memory, request.round) for request, _ in generator.asked] == [
        (OPEN, 0),
        (f"{OPEN}ab", 1),
    ]
    assert [seed for _, seed in generator.asked] == [seed_of("r", 0), seed_of("r", 1)]


def test_k_rounds_are_k_pools_and_none_is_made_in_vain() -> None:
    for rounds in range(4):
        generator = Beams()
        (done,) = drive(Words(), generator, Middle(), [FILE], Plan(rounds=rounds, pool=3))
        assert len(generator.asked) == len(done.trace) == rounds


def test_no_rounds_are_plain_retrieval_augmented_generation() -> None:
    (done,) = drive(Words(), Beams(), Middle(), [FILE], Plan(rounds=0))
    assert (done.hypothesis.text, done.trace, done.stop) == (f"{OPEN}!", (), "rounds")


def test_sources_keep_their_order_and_do_not_mix() -> None:
    sources = [FILE, "nothing like it", "permission denied", FILE]
    together = drive(Words(), Beams(), Middle(), sources, Plan(rounds=2, pool=3))
    alone = [drive(Words(), Beams(), Middle(), [each], Plan(rounds=2, pool=3))[0] for each in sources]
    assert [each.hypothesis for each in together] == [each.hypothesis for each in alone]
    assert together[1].request.examples == ()
    assert drive(Words(), Beams(), Middle(), [], Plan()) == []


def test_an_example_does_not_retrieve_itself() -> None:
    (done,) = drive(Words(), Beams(), Middle(), [FILE], Plan(rounds=0), exclude=["1"])
    assert done.request.memory == PAIRS[1].target


def test_where_nothing_is_retrieved_the_memory_is_none() -> None:
    request = begin("x", [])
    assert request.memory == ""
    after, record = choose(request, [], [])
    assert (after.memory, record.origin, record.score, record.pool) == ("", "none", None, 0)


def test_a_pool_has_each_text_once_and_nothing_blank_in_order() -> None:
    made = pool("b", "a", " ", "b", "", "c", "d")
    assert [each.text for each in pooled(Request(source="x"), made, Plan(pool=3))] == ["b", "a", "c"]
    assert pooled(Request(source="x"), [Candidate("a", -1.0), Candidate("a", -2.0)], Plan()) == [
        Candidate("a", -1.0)
    ]


def test_the_retrieved_memory_may_compete_and_loses_a_tie() -> None:
    request = begin(FILE, PAIRS[:1])
    plan = Plan(pool=2, compete=True)
    assert [each.text for each in pooled(request, pool("a", "b", "c"), plan)] == ["a", "b", OPEN]
    assert [each.text for each in pooled(request, pool(OPEN, "b"), plan)] == [OPEN, "b"]
    assert [each.text for each in pooled(begin(FILE, []), pool("a"), plan)] == ["a"]
    kept, record = choose(request, pool("a", OPEN), [0.0, 1.0])
    assert (kept.memory, record.origin, record.changed) == (OPEN, "corpus", False)
    assert choose(request, pool("a", OPEN), [1.0, 1.0])[0].memory == "a"


@pytest.mark.parametrize(
    ("scores", "best", "score"),
    [
        ([1.0, 3.0, 2.0], "b", 3.0),
        ([1.0, 1.0, 1.0], "a", 1.0),
        ([math.nan, 1.0, 2.0], "c", 2.0),
        ([math.nan] * 3, "a", None),
        ([-math.inf, -math.inf, -5.0], "c", -5.0),
    ],
)
def test_the_best_is_chosen_whatever_the_scores_are(
    scores: list[float], best: str, score: float | None
) -> None:
    request, record = choose(Request(source="x", round=1), pool("a", "b", "c"), scores)
    assert (request.memory, request.round) == (best, 2)
    assert record.score == score


def test_as_many_scores_as_candidates() -> None:
    with pytest.raises(ValueError, match="1 scores for 2 candidates"):
        choose(Request(source="x"), pool("a", "b"), [1.0])


def test_an_empty_pool_leaves_the_memory_as_it_is() -> None:
    class Mute(Beams):
        def candidates(self, requests, n, *, seed=0):  # type: ignore[no-untyped-def]
            return [[Candidate("  ")] for _ in requests]

    (done,) = drive(Words(), Mute(), Middle(), [FILE], Plan(rounds=2))
    assert done.hypothesis.text == f"{OPEN}!"
    assert [(each.pool, each.changed, each.origin) for each in done.trace] == [(0, False, "corpus")] * 2


def test_the_selector_is_not_asked_where_there_is_no_choice() -> None:
    class Strict:
        def scores(self, requests, pools):  # type: ignore[no-untyped-def]
            raise AssertionError("nothing to choose")

    (done,) = drive(Words(), Beams(), Strict(), [FILE], Plan(rounds=1, pool=1))
    assert done.trace[0].memory == f"{OPEN}a"


def test_early_stops_and_says_why() -> None:
    early = Plan(rounds=5, early=Early(gain=0.5, seconds=2, characters=10))
    assert stopped(early, []) is None
    assert stopped(early, [line(changed=False)]) == "fixed_point"
    assert stopped(early, [line(pool=1)]) == "collapsed"
    assert stopped(early, [line(score=1.0)]) is None
    assert stopped(early, [line(score=1.0), line(score=1.5)]) == "no_gain"
    assert stopped(early, [line(score=1.0), line(score=1.6)]) is None
    assert stopped(early, [line(score=1.0), line(score=None)]) == "no_gain"
    assert stopped(early, [line(score=1.0, seconds=1.5), line(score=2.0, seconds=0.5)]) == "time"
    assert stopped(early, [line(characters=10)]) == "length"
    assert stopped(early, [line()] * 5) == "rounds"
    assert stopped(Plan(rounds=5), [line(changed=False, pool=1)]) is None


def test_a_source_that_has_stopped_is_not_generated_for_again() -> None:
    class Settling(Beams):
        def candidates(self, requests, n, *, seed=0):  # type: ignore[no-untyped-def]
            made = super().candidates(requests, n, seed=seed)
            return [
                [Candidate(each.memory)] if each.source == FILE else own
                for each, own in zip(requests, made, strict=True)
            ]

    generator = Settling()
    plan = Plan(rounds=3, pool=3, early=Early())
    first, second = drive(Words(), generator, Middle(), [FILE, "permission denied"], plan)
    assert (first.stop, len(first.trace)) == ("fixed_point", 1)
    assert (second.stop, len(second.trace)) == ("rounds", 3)
    assert [request.source for request, _ in generator.asked] == [FILE, *["permission denied"] * 3]


def test_passes_tell_where_all_stand_after_each_round() -> None:
    requests = [begin(FILE, PAIRS[:1]), begin("x", [])]
    before, first, second = passes(Beams(), Middle(), requests, Plan(rounds=2, pool=3))
    assert before.requests == tuple(requests)
    assert [len(each) for each in first.pools] == [3, 3]
    assert [len(each) for each in second.traces] == [2, 2]
    assert first.requests[1].memory == "ab"


def test_seeds_are_of_the_run_and_the_round() -> None:
    seeds = {seed_of(run, number) for run in ("a", "b") for number in range(50)}
    assert len(seeds) == 100
    assert seed_of("a", 1) == 47_506_100
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_no_place_for_a_reference() -> None:
    assert {each.name for each in fields(Request)} == {"source", "memory", "examples", "round"}
    assert {each.name for each in fields(Candidate)} == {"text", "logprob"}


@pytest.mark.parametrize("bad", [{"rounds": -1}, {"pool": 0}, {"examples": -1}])
def test_a_plan_that_cannot_work_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(bad))} must be"):
        replace(Plan(), **bad)


def test_examples_are_asked_for_only_where_they_are_wanted() -> None:
    class Dead(Words):
        def retrieve(self, *_: object, **__: object) -> list[list[Example]]:
            raise ConnectionError

    (done,) = drive(Dead(), Beams(), Middle(), [FILE], Plan(rounds=1, examples=0, pool=3))
    assert done.request.memory == "ab"
