"""A policy that is watched and never applied; and a local model that is bound to the form of each call."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memalpha.local_policy import LocalPolicy
from memgraph_plugin.memalpha.policies import DecidingPolicy, Policy
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.shadow_policy import Comparison, ShadowPolicy
from memgraph_plugin.testing import ScriptedChatModel
from memgraph_plugin.types import Insert, NoOp, Operation, Turn

TURNS = [
    Turn(key="u", role="user", text="I live in Porto and I play chess", at=datetime(2024, 5, 1, tzinfo=UTC))
]


class Other:
    """Proposes what it was given, or raises it."""

    name = "other"

    def __init__(self, *proposed: Any) -> None:
        self.proposed = proposed

    def propose(self, turns: Any, memories: Any) -> list[Operation]:
        turns.clear()
        for each in self.proposed:
            if isinstance(each, BaseException):
                raise each
            if isinstance(each, float):
                time.sleep(each)
        return list(self.proposed)

    async def apropose(self, turns: Any, memories: Any) -> list[Operation]:
        return self.propose(turns, memories)


PORTO = Insert(text="the user lives in porto", evidence=("u",), reason="another")
MADRID = Insert(text="The user lives in Madrid.", evidence=("u",))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (Other(PORTO), Comparison("rules", "other", 1, 1, 0)),
        (Other(NoOp()), Comparison("rules", "other", 0, 2, 0)),
        (Other(MADRID), Comparison("rules", "other", 0, 2, 0)),
        (Other(Insert(text="the user plays", evidence=("u",))), Comparison("rules", "other", 0, 2, 1)),
        (Other(RuntimeError("down")), Comparison("rules", "other", error="RuntimeError")),
        (RulePolicy(), Comparison("rules", "rules", 2, 0, 0)),
    ],
    ids=["some", "nothing", "invalid", "something else", "fails", "the same"],
)
async def test_the_first_decides_and_the_second_is_compared(second: Any, expected: Comparison) -> None:
    seen: list[Comparison] = []
    policy = ShadowPolicy(RulePolicy(), second, report=seen.append)
    assert isinstance(policy, Policy)
    assert policy.name == "rules"
    alone = RulePolicy().propose(TURNS, [])
    assert policy.propose(list(TURNS), []) == alone
    assert await policy.apropose(list(TURNS), []) == alone
    assert seen == [expected, expected]


def test_neither_its_slowness_nor_its_report_does_harm() -> None:
    def broken(_: Comparison) -> None:
        raise RuntimeError

    policy = ShadowPolicy(RulePolicy(), Other(0.5), report=broken, timeout=0.01)
    assert policy.propose(TURNS, []) == RulePolicy().propose(TURNS, [])
    policy = ShadowPolicy(RulePolicy(), Other("no operation"), timeout=5)
    assert policy.propose(TURNS, []) == RulePolicy().propose(TURNS, [])


def test_a_failure_of_the_first_is_not_hidden() -> None:
    with pytest.raises(RuntimeError):
        ShadowPolicy(Other(RuntimeError("down")), RulePolicy()).propose(list(TURNS), [])


async def test_who_decided_and_what_was_refused_is_told_as_without_a_shadow() -> None:
    tea = '{"ops": [{"op": "insert", "text": "The user drinks tea in Oslo.", "evidence": ["t1"]}]}'
    for replies in (["prose"] * 2, [tea] * 2):
        alone = ChatModelPolicy(ScriptedChatModel(replies=replies)).decide(TURNS, [])
        assert alone.policy == "rules"
        policies = [
            ShadowPolicy(ChatModelPolicy(ScriptedChatModel(replies=replies)), RulePolicy()) for _ in range(2)
        ]
        assert isinstance(policies[0], DecidingPolicy)
        for decided in (policies[0].decide(TURNS, []), await policies[1].adecide(TURNS, [])):
            assert (decided.policy, decided.operations) == (alone.policy, alone.operations)
            assert (decided.rejected, decided.raw) == (alone.rejected, alone.raw)
            assert str(decided.error) == str(alone.error)
    assert [receipt.code for receipt in alone.rejected] == ["ungrounded"]


def test_a_local_model_is_bound_to_the_schema_of_the_call() -> None:
    bound: list[dict[str, Any]] = []

    class Held(ScriptedChatModel):
        def _next(self, messages: Any, **kwargs: Any) -> AIMessage:
            bound.append(kwargs)
            return super()._next(messages)

    reply = '{"ops": [{"op": "insert", "text": "The user plays chess.", "evidence": ["t1"]}]}'
    decision = LocalPolicy(Held(replies=[reply])).decide(TURNS, [])
    assert decision.policy == "local"
    assert [each.text for each in decision.operations if isinstance(each, Insert)] == [
        "The user plays chess."
    ]
    evidence = bound[0]["json_schema"]["properties"]["ops"]["items"]["anyOf"][0]["properties"]["evidence"]
    assert evidence["items"]["enum"] == ["t1"]
