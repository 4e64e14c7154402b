"""The rewards of a rollout, each by hand, and that no lazy policy is paid better than an honest one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import mean

import pytest

from memgraph_plugin.evaluation.policies import LAZY, Lazy
from memgraph_plugin.memalpha.environment import Environment
from memgraph_plugin.memalpha.episodes import Episode, Question, TimelineTalk, cut
from memgraph_plugin.memalpha.policies import Policy
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
    updates,
    well_formed,
)
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.timeline_phrases import ATTRIBUTES, values_of
from memgraph_plugin.memalpha.timelines import timeline
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.types import Delete, Insert, NoOp, Operation, Turn, Update

LISBON = Recalled(text="The user lives in Lisbon.", evidence=frozenset({"t1"}))
PORTO = Recalled(text="The user lives in Porto.", evidence=frozenset({"t2"}))
NOT_LISBON = Recalled(text="The user no longer lives in Lisbon.", evidence=frozenset({"t1", "t2"}))
WHERE = Asked(
    gold="Porto",
    question="In which city is the user's home?",
    attribute="location",
    stale=("Lisbon",),
    evidence=frozenset({"t2"}),
    ended=frozenset({"t2"}),
)


def asked(*found: Recalled, answer: str = "", **changes: object) -> Asked:
    return replace(WHERE, found=found, answer=answer, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (asked(PORTO), 1.0),
        (asked(LISBON), 0.0),
        (asked(), 0.0),
        (asked(PORTO, evidence=frozenset({"t2", "t3"})), 1.0),  # t3 says it again, and need not be cited
        (asked(replace(LISBON, evidence=frozenset({"t2"}))), 0.0),  # cites, but does not say it
        (asked(PORTO, evidence=frozenset()), 1.0),
    ],
)
def test_retrieval_is_the_share_of_answers_that_were_found_with_a_turn_that_says_them(
    each: Asked, expected: float
) -> None:
    assert retrieval([each]) == expected
    assert retrieval([each, asked(LISBON)]) == expected / 2
    assert retrieval([replace(each, gold="")]) == 0.0, "what has no answer is not counted"


@pytest.mark.parametrize(
    ("text", "bears"),
    [
        ("The user lives in Porto.", True),
        ("The user moved from Lisbon to Porto.", True),
        ("The user lives in Porto, no longer in Lisbon.", True),
        ("The user's home is Porto.", True),
        ("The user's flat is in Porto.", True),
        ("The user does not live in Porto.", False),
        ("The user doesn't live in Porto.", False),
        ("It is not true that the user lives in Porto.", False),
        ("The user lives in Lisbon, no longer in Porto.", False),
        ("The user: I live in Porto", False),
        ("The user said: my home is Porto.", False),
        ("The user: you can see half of Porto", False),  # says nothing of where the user lives
        ("The user likes Porto.", False),
    ],
)
def test_a_memory_bears_an_answer_that_it_affirms_and_says_what_it_is(text: str, bears: bool) -> None:
    each = asked(replace(PORTO, text=text), answer=text)
    assert retrieval([each]) == float(bears)
    assert answers([each]) == float(bears)


def test_an_answer_that_denies_is_borne_by_a_denial_alone() -> None:
    meat = Asked(gold="does not eat meat", evidence=frozenset({"t2"}))
    for text, bears in (("The user does not eat meat.", 1.0), ("The user eats meat.", 0.0)):
        assert retrieval([replace(meat, found=(replace(PORTO, text=text),))]) == bears


def test_answers_contain_the_gold_or_share_its_words_and_need_evidence() -> None:
    assert answers([asked(PORTO, answer="In Porto.")]) == 1.0
    two = replace(
        WHERE, gold="a tax adviser", attribute="", found=(replace(PORTO, text="The user is a tax adviser."),)
    )
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
        (asked(NOT_LISBON, PORTO), 1.0),
        (asked(NOT_LISBON), 0.0),
        (asked(replace(NOT_LISBON, evidence=frozenset({"t1"})), PORTO), -1.0),  # no turn it cites says so
        (asked(NOT_LISBON, gold="", ended=frozenset()), -1.0),  # to deny what is to be forgotten keeps it
        (asked(replace(PORTO, text="The user does not live in Porto."), LISBON), -1.0),
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


def test_to_delete_everything_is_harm_though_it_is_refused() -> None:
    at = datetime(2025, 3, 1, tzinfo=UTC)
    seed = tuple(
        Insert(key=f"m{number}", text=f"The user likes {hobby}.", evidence=(f"t{number}",))
        for number, hobby in enumerate(("rowing", "fencing", "archery", "sailing"))
    )
    turns = (Turn(key="u", role="user", text="Please forget it.", at=at),)
    episode = Episode(id="a/0", turns=turns, seed=seed)
    environment = Environment(new_store=InMemoryMemoryStore)
    everything = Lazy(
        "all", lambda turns, memories: [Delete(key=each.key, evidence=("u",)) for each in memories]
    )
    outcome = environment.act(episode, everything)
    refused = [call.code for call in outcome.calls if call.code]
    assert harm(outcome.calls) == -min(len(refused), 3) < 0
    assert all(
        harm([Call(operation="delete", code=code)]) == -1 for code in ("delete_all", "no_user_evidence")
    )


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


def test_a_repetition_is_paid_best_where_nothing_is_done_about_it() -> None:
    at = datetime(2025, 3, 1, tzinfo=UTC)
    seed = Insert(key="m", text=PORTO.text, evidence=("t2",))
    turns = (Turn(key="t3", role="user", text="I live in Porto.", at=at),)
    question = Question(
        text="Where does the user live?", gold="Porto", attribute="location", evidence=("t2", "t3")
    )
    episode = Episode(id="a/0", turns=turns, seed=(seed,), questions=(question,))
    noted = Update(key="m", text="The user lives in Porto indeed.", mode="refine", evidence=("t3",))
    environment, weights = Environment(new_store=InMemoryMemoryStore), RewardWeights()
    nothing, touched = (
        environment.rewards(episode, Lazy("it", lambda turns, memories, done=done: done))
        for done in ([NoOp()], [noted])
    )
    assert nothing.retrieval == nothing.answer == nothing.compression == 1.0
    assert nothing.total(weights) > touched.total(weights)


@pytest.fixture(scope="module")
def held_out() -> list[Episode]:
    return [each for seed in range(6) for each in cut(TimelineTalk(timeline(seed)), exchanges=2)]


def truth(episode: Episode) -> Lazy:
    return Lazy("truth", lambda turns, memories: episode.target)


def denied(episode: Episode) -> Lazy:
    """The truth, each sentence of which is turned into its opposite."""

    def turned(operation: Operation) -> Operation:
        if not isinstance(operation, Insert | Update):
            return operation
        text = re.sub(r"^(The user's .+?) is ", r"\1 is not ", operation.text)
        return replace(operation, text=re.sub(r"^The user (?!is not)", "The user does not ", text))

    return Lazy("denied truth", lambda turns, memories: list(map(turned, episode.target)))


def test_no_lazy_policy_is_paid_better_than_the_rules_and_nothing_better_than_the_truth(
    held_out: list[Episode],
) -> None:
    environment, weights = Environment(new_store=InMemoryMemoryStore), RewardWeights()

    def paid(episodes: Sequence[Episode], policy: Policy | Callable[[Episode], Policy]) -> float:
        return mean(
            environment.rewards(each, policy if isinstance(policy, Policy) else policy(each)).total(weights)
            for each in episodes
        )

    rules = paid(held_out, RulePolicy())
    lazy = {each.name: paid(held_out, each) for each in LAZY}
    assert max(lazy.values()) < rules - 0.05, (rules, lazy)
    emptied = [replace(each, seed=()) for each in held_out]
    assert paid(emptied, LAZY[0]) < rules - 0.5, "an empty memory"
    assert paid(held_out, truth) > rules + 0.1
    assert paid(held_out, denied) < lazy["no-op"] + 0.02, "to deny what is true is worth nothing"


def test_no_way_to_state_a_fact_and_no_value_of_one_is_in_both_halves() -> None:
    for attribute in ATTRIBUTES:
        assert not set(values_of(attribute, "train")) & set(values_of(attribute, "held_out"))
        for ways in (attribute.plain, attribute.indirect, attribute.change, attribute.end, attribute.ask):
            assert not set(ways.train) & set(ways.held_out)
