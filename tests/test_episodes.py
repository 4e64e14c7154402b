"""Episodes: cut from conversations, written down, read again; and what is made of a reply to one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memalpha.blocks import PROFILE
from memgraph_plugin.memalpha.environment import Environment, written
from memgraph_plugin.memalpha.episodes import (
    NAMESPACE,
    Episode,
    RecordedTalk,
    TimelineTalk,
    cut,
    digest,
    read_episodes,
    read_talks,
    write_episodes,
)
from memgraph_plugin.memalpha.operations import parse_operations, read_json
from memgraph_plugin.memalpha.rewards import rewards
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.timelines import timeline
from memgraph_plugin.memalpha.validation import validate
from memgraph_plugin.nodes.decide import DECIDING, NEWEST, decide_exchange
from memgraph_plugin.nodes.scope import Scope
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Turn, Update

RECORD = {
    "id": "ada",
    "sessions": [
        [
            {"role": "user", "text": "I live in Lisbon.", "at": "2025-03-01T10:00"},
            {"role": "assistant", "text": "Noted.", "at": "2025-03-01T10:01"},
            {"role": "user", "text": "I work as a nurse.", "at": "2025-03-01T10:02"},
            {"role": "assistant", "text": "Noted.", "at": "2025-03-01T10:03"},
        ],
        [
            {"role": "user", "text": "I moved to Porto.", "at": "2025-04-01T10:00"},
            {"role": "assistant", "text": "Noted.", "at": "2025-04-01T10:01"},
        ],
    ],
    "questions": [
        {"q": "Where does the user live?", "gold": "Lisbon", "evidence": ["0:0"], "until": "1:0"},
        {"q": "Where does the user live?", "gold": "Porto", "stale": ["Lisbon"], "evidence": ["1:0"]},
        {"q": "What does the user work as?", "gold": "a nurse", "evidence": ["0:2"]},
    ],
}
ENVIRONMENT = Environment(new_store=InMemoryMemoryStore)


def test_a_recorded_conversation_is_cut_with_what_the_rules_remember_of_before(tmp_path: Path) -> None:
    (tmp_path / "talks.jsonl").write_text(json.dumps(RECORD))
    (talk,) = read_talks(tmp_path / "talks.jsonl")
    first, second, third = cut(talk)
    assert (first.seed, [each.gold for each in first.questions]) == ((), ["Lisbon"])
    assert [each.text for each in second.seed] == ["The user lives in Lisbon."]
    assert [each.gold for each in second.questions] == ["Lisbon", "a nurse"]
    assert [each.gold for each in third.questions] == ["Porto", "a nurse"], "not what is over by then"
    (target,) = third.target
    assert isinstance(target, Update)
    assert target.key == second.seed[0].key


def test_a_reply_goes_the_way_of_production() -> None:
    *_, last = cut(RecordedTalk.read(RECORD))
    handle = next(name for name, each in ENVIRONMENT.handles(last).memories.items() if "Lisbon" in each.text)
    text = "The user lives in Porto."
    moved = {"op": "update", "handle": handle, "mode": "supersede", "text": text, "evidence": ["t1"]}
    good = rewards(ENVIRONMENT.play(last, json.dumps({"ops": [moved]})))
    assert (good.retrieval, good.update, good.format, good.grounding, good.harm) == (1.0, 1.0, 1.0, 1.0, 0.0)
    foreign = rewards(ENVIRONMENT.play(last, json.dumps({"ops": [moved | {"handle": "s9"}]})))
    assert (foreign.retrieval, foreign.update, foreign.format, foreign.harm) == (0.5, -1.0, 0.0, -1.0)
    invented = rewards(
        ENVIRONMENT.play(last, json.dumps({"ops": [moved | {"text": "The user lives in Faro."}]}))
    )
    assert (invented.format, invented.grounding, invented.harm) == (0.0, 0.0, 0.0)
    for prose in ("", "I would remember that.", '{"ops": [{"op": "ins'):
        assert rewards(ENVIRONMENT.play(last, prose)).format == 0.0


def test_a_policy_is_shown_in_training_what_it_is_shown_in_production() -> None:
    class Seeing(RulePolicy):
        def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
            seen.extend(memories)
            return [NoOp()]

    seen: list[Memory] = []
    *_, last = cut(TimelineTalk(timeline(2, split="train")))
    store = InMemoryMemoryStore()
    store.apply(NAMESPACE, last.seed)
    scope = Scope(store, NAMESPACE, "t", None, datetime.now(UTC), lambda event: None)
    said = [(AIMessage if each.role == "assistant" else HumanMessage)(each.text) for each in last.turns]
    decide_exchange(scope, said, Seeing())
    assert [(each.key, each.text) for each in ENVIRONMENT.memories(last)] == [
        (each.key, each.text) for each in seen
    ]
    assert seen[0].key == "core:profile"
    assert (ENVIRONMENT.core, ENVIRONMENT.shown, ENVIRONMENT.newest) == ((PROFILE,), DECIDING.k, NEWEST)


def test_what_is_shown_is_looked_up_once_an_episode() -> None:
    stores: list[InMemoryMemoryStore] = []

    def new() -> InMemoryMemoryStore:
        stores.append(InMemoryMemoryStore())
        return stores[-1]

    first, second, _ = cut(RecordedTalk.read(RECORD))
    environment = Environment(new_store=new)
    for _ in range(3):
        environment.play(first, '{"ops": []}')
    assert len(stores) == 1 + 3
    assert environment.memories(second) != environment.memories(first)


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return [
        each for seed in range(4) for each in cut(TimelineTalk(timeline(seed, split="train")), exchanges=2)
    ]


def test_timelines_give_episodes_whose_targets_the_validator_takes(episodes: list[Episode]) -> None:
    assert {type(each) for episode in episodes for each in episode.target} >= {Insert, Update, Delete}
    for episode in episodes:
        memories = ENVIRONMENT.handles(episode).memories.values()
        assert not validate(episode.target, episode.turns, list(memories)).rejected
        known = {turn.key for turn in episode.turns}.union(*(insert.evidence for insert in episode.seed))
        assert all(known.issuperset(question.evidence) for question in episode.questions)


def test_a_target_written_down_is_read_as_the_same_operations(episodes: list[Episode]) -> None:
    for episode in episodes:
        handles = ENVIRONMENT.handles(episode)
        parsed = parse_operations(read_json(written(episode.target, handles)), handles)
        assert not parsed.rejected
        assert [type(each) for each in parsed.operations] == [type(each) for each in episode.target]
        assert [getattr(each, "text", "") for each in parsed.operations] == [
            getattr(each, "text", "") for each in episode.target
        ]


def test_episodes_survive_a_file_and_have_a_digest(episodes: list[Episode], tmp_path: Path) -> None:
    write_episodes(tmp_path / "rows.jsonl", episodes)
    assert read_episodes(tmp_path / "rows.jsonl") == episodes
    assert digest(read_episodes(tmp_path / "rows.jsonl")) == digest(episodes)
    assert digest(episodes[1:]) != digest(episodes)
    (tmp_path / "odd.jsonl").write_text('{"id": "a", "turns": [{}], "seed": [], "questions": []}')
    with pytest.raises(ConfigurationError, match="no episode"):
        read_episodes(tmp_path / "odd.jsonl")


def test_locomo_is_refused(tmp_path: Path) -> None:
    session = [turn | {"key": f"D1:{place}"} for place, turn in enumerate(RECORD["sessions"][0], 1)]  # type: ignore[index, operator]
    with pytest.raises(ConfigurationError, match="LoCoMo"):
        RecordedTalk.read(RECORD | {"sessions": [session], "questions": []})
    talk = RecordedTalk.read(RECORD)
    turns = tuple(replace(turn, key="D1:1") for turn in talk.sessions[0][:1])
    write_episodes(tmp_path / "rows.jsonl", [Episode(id="x", turns=turns)])
    with pytest.raises(ConfigurationError, match="LoCoMo"):
        read_episodes(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    "change",
    [{"sessions": [[{"role": "tool", "text": "x", "at": "2025-01-01"}]]}, {"sessions": 3},
     {"questions": [{}]}, {"sessions": [[{"role": "user", "text": "x", "at": "soon"}]]}],
)  # fmt: skip
def test_a_conversation_of_another_form_is_said_to_be_one(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="A conversation has"):
        RecordedTalk.read(RECORD | change)
