"""The rewards of a rollout, each by hand, and that no lazy policy is paid better than an honest one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean

import pytest

from memgraph_plugin.memalpha.environment import Environment
from memgraph_plugin.memalpha.episodes import Episode, TimelineTalk, cut
from memgraph_plugin.memalpha.rewards import (
    Asked,
    Call,
    Outcome,
    Recalled,
    Rewards,
    RewardWeights,
    answers,
    compression,
    grounding,
    harm,
    paper_rewards,
    retrieval,
    rewards,
    updates,
    well_formed,
)
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.timelines import timeline
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Turn

LISBON = Recalled(text="The user lives in Lisbon.", evidence=frozenset({"t1"}))
PORTO = Recalled(text="The user lives in Porto.", evidence=frozenset({"t2"}))
WHERE = Asked(gold="Porto", stale=("Lisbon",), evidence=frozenset({"t2"}))


def asked(*found: Recalled, answer: str = "", **changes: object) -> Asked:
    return replace(WHERE, found=found, answer=answer, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (asked(PORTO), 1.0),
        (asked(LISBON), 0.0),
        (asked(), 0.0),
        (asked(PORTO, evidence=frozenset({"t2", "t3"})), 0.5),  # t3 says it, too, and nothing cites it
        (asked(replace(LISBON, evidence=frozenset({"t2"}))), 0.0),  # cites, but does not say it
        (asked(PORTO, evidence=frozenset()), 1.0),
    ],
)
def test_retrieval_is_the_share_of_evidence_that_was_found_and_says_the_answer(
    each: Asked, expected: float
) -> None:
    assert retrieval([each]) == expected
    assert retrieval([each, asked(LISBON)]) == expected / 2
    assert retrieval([replace(each, gold="")]) == 0.0, "what has no answer is not counted"


def test_answers_contain_the_gold_or_share_its_words_and_need_evidence() -> None:
    assert answers([asked(PORTO, answer="In Porto.")]) == 1.0
    two = replace(WHERE, gold="a tax adviser", found=(replace(PORTO, text="The user is a tax adviser."),))
    # gold: a tax adviser; said: a tax clerk, he; 2 common of 3 + 4 words
    assert answers([replace(two, answer="a tax clerk, he")]) == pytest.approx(2 * 2 / 7)
    assert answers([asked(LISBON, answer="Porto")]) == 0.0


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (asked(PORTO, LISBON), 1.0),
        (asked(LISBON, PORTO), -1.0),
        (asked(LISBON), -1.0),
        (asked(), 0.0),
        (asked(replace(LISBON, text="The user no longer lives in Lisbon."), PORTO), 1.0),
        (asked(replace(LISBON, text="The user no longer lives in Lisbon.")), 0.0),
        (asked(replace(PORTO, text="The user moved from Lisbon to Porto.")), 1.0),
        (asked(LISBON, gold=""), -1.0),  # was to be forgotten
        (asked(PORTO, gold=""), 0.0),
    ],
)
def test_updates_are_paid_where_the_current_value_comes_first(each: Asked, expected: float) -> None:
    assert updates([each]) == expected
    assert updates([each, asked(PORTO, stale=())]) == expected, "nothing was stale there"


def test_a_no_op_is_valid_and_what_cannot_be_read_is_not() -> None:
    assert well_formed(Outcome(asked=(), calls=())) == 1.0
    assert well_formed(Outcome(asked=(), calls=(Call(operation="noop"),))) == 1.0
    calls = (Call(operation="insert"), Call(operation="update", code="ungrounded"))
    assert well_formed(Outcome(asked=(), calls=calls)) == 0.5
    assert well_formed(Outcome(asked=(), calls=(), readable=False)) == 0.0


def test_compression_pays_only_what_is_of_use() -> None:
    useful = Outcome(asked=(asked(PORTO),), calls=(), before=10, read=40, after=20)
    assert compression(useful) == 0.75
    assert compression(replace(useful, asked=(asked(),))) == 0.0
    assert compression(replace(useful, after=200)) == 0.0
    assert compression(replace(useful, after=0)) == 1.0


def test_grounding_and_harm() -> None:
    assert grounding(Outcome(asked=(), calls=(), supported=(1.0, 0.5))) == 0.75
    assert grounding(Outcome(asked=(), calls=())) == 1.0
    assert grounding(Outcome(asked=(), calls=(), readable=False)) == 0.0
    bad = [
        Call(operation="delete", code="unsupported_delete"),
        Call(operation="update", code="unknown_handle"),
    ]
    assert harm([*bad, Call(operation="insert", code="ungrounded"), Call(operation="noop")]) == -2.0
    assert harm(bad * 5) == -3.0


def test_the_sum_is_weighed_and_bounded() -> None:
    best = Rewards(retrieval=1, answer=1, update=1, format=1, compression=1, grounding=1, harm=0)
    worst = Rewards(retrieval=0, answer=0, update=-1, format=0, compression=0, grounding=0, harm=-3)
    weights = RewardWeights()
    assert (best.total(weights), worst.total(weights)) == pytest.approx((2.5, -2.0))
    assert best.total(replace(weights, retrieval=0.0)) == pytest.approx(1.5)


def test_the_papers_rewards() -> None:
    calls = (
        Call(operation="insert"),
        Call(operation="noop", duplicate=True),  # an insert that was there: skipped, which fails
        Call(operation="delete", code="unknown_handle"),  # counts as done
        Call(operation="update", code="unknown_handle"),
    )
    outcome = Outcome(asked=(asked(PORTO, answer="Porto"),), calls=calls, read=40, after=60)
    paid = paper_rewards(outcome)
    assert (paid.correctness, paid.tool_format, paid.compression, paid.content) == (1.0, 0.5, -0.5, 0.25)
    assert paid.total() == pytest.approx(1 + 0.5 - 0.05 * 0.5 + 0.1 * 0.25)
    nothing = paper_rewards(replace(outcome, calls=(Call(operation="noop"),)))
    assert nothing.tool_format == 0.0, "to do nothing is punished"


@dataclass(frozen=True)
class Scripted:
    """A policy that does the same always."""

    name: str
    script: Callable[[Sequence[Turn], Sequence[Memory]], list[Operation]]

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return self.script(turns, memories)

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return self.script(turns, memories)


def copied(turns: Sequence[Turn], text: str) -> list[Operation]:
    return [
        Insert(text=text.format(turn.text), evidence=(turn.key,)) for turn in turns if turn.role == "user"
    ]


LAZY = (
    Scripted("always-no-op", lambda turns, memories: [NoOp()]),
    Scripted("copy-all", lambda turns, memories: copied(turns, "{}")),
    Scripted("copy-all, as quotations", lambda turns, memories: copied(turns, "The user said: {}")),
    Scripted(
        "delete-all",
        lambda turns, memories: [Delete(key=each.key, evidence=(turns[0].key,)) for each in memories],
    ),
)


@pytest.fixture(scope="module")
def held_out() -> list[Episode]:
    return [each for seed in range(6) for each in cut(TimelineTalk(timeline(seed)), exchanges=2)]


def test_no_lazy_policy_is_paid_better_than_the_rules_and_nothing_better_than_the_truth(
    held_out: list[Episode],
) -> None:
    environment, weights = Environment(new_store=InMemoryMemoryStore), RewardWeights()

    def paid(episodes: Sequence[Episode], policy: Scripted | RulePolicy) -> float:
        return mean(environment.rewards(each, policy).total(weights) for each in episodes)

    rules = paid(held_out, RulePolicy())
    assert all(paid(held_out, lazy) < rules - 0.1 for lazy in LAZY)
    emptied = [replace(each, seed=()) for each in held_out]
    assert paid(emptied, LAZY[0]) < rules - 0.5, "an empty memory"
    truth = mean(
        rewards(environment.act(each, Scripted("truth", lambda t, m, each=each: list(each.target)))).total(
            weights
        )  # type: ignore[misc]
        for each in held_out
    )
    assert truth > rules + 0.1
