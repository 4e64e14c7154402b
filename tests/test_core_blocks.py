"""Core memory: labelled blocks, declared by the application, limited, and seen whole in every turn."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock, with_declared
from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memalpha.operations import Handles
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.validation import validate
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Turn, Update
from tests.conversations import HERS, compiled, everything_sent, say
from tests.test_chat_policy import call

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
SAID = Turn(key="t", role="user", text="I am a nurse in Porto and I like short answers.", at=NOW)
TASTE = CoreBlock("preferences", limit=12, about="how to answer")
RULES = CoreBlock("house-rules", read_only=True)
EMPTY = with_declared([], [PROFILE, TASTE, RULES], HERS)
NURSE = "The user is a nurse in Porto."


def write(text: str = NURSE, **more: Any) -> Insert:
    return Insert(text=text, kind="core", **{"evidence": ("t",), **more})


def codes(operations: list[Operation], memories: list[Memory]) -> list[str | None]:
    return [receipt.code for receipt in validate(operations, [SAID], memories).rejected]


def test_declared_blocks_are_shown_under_their_labels_before_anybody_wrote_them() -> None:
    assert list(Handles.assign([], EMPTY).memories) == [
        "core:profile",
        "core:preferences",
        "core:house-rules",
    ]
    assert {memory.version for memory in EMPTY} == {0}


@pytest.mark.parametrize(
    "operation",
    [
        write(value={"label": "profile"}),
        write(),
        Update(key="core:profile", version=0, text=NURSE, mode="refine", evidence=("t",)),
    ],
    ids=["by label", "by default", "by update"],
)
def test_a_missing_block_is_inserted_as_declared(operation: Operation) -> None:
    [made] = validate([operation], [SAID], EMPTY).accepted
    assert isinstance(made, Insert)
    assert (made.key, made.value, made.text) == ("core:profile", PROFILE.as_value(), NURSE)


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([write(value={"label": "secrets"})], ["unknown_block"]),
        ([write(value={"label": 7})], ["unknown_block"]),
        ([write(value={"label": "house-rules"})], ["read_only"]),
        ([Update(key="core:house-rules", text=NURSE, evidence=("t",))], ["read_only"]),
        ([Delete(key="core:house-rules", evidence=("t",))], ["read_only"]),
        ([Delete(key="core:profile", evidence=("t",))], ["unknown_handle"]),
        ([write(), write("The user likes short answers.")], ["core_exists"]),
        ([write("short answers " * 5, value={"label": "preferences"})], ["too_long"]),
    ],
)
def test_what_was_not_declared_so_is_refused(operations: list[Operation], expected: list[str]) -> None:
    assert codes(operations, EMPTY) == expected


def test_a_limit_is_kept_by_refusal_with_the_count_and_never_by_cutting() -> None:
    text = "The user likes short answers, and is a nurse in Porto."
    result = validate([write(text, value={"label": "preferences"})], [SAID], EMPTY)
    assert not result.accepted
    assert f"{estimate_tokens(text)} tokens, 12 allowed in core:preferences" in result.rejected[0].reason


def test_an_update_keeps_label_limit_and_flag_whatever_value_is_proposed() -> None:
    stored = Memory(
        namespace=HERS, key="core:profile", kind="core", text="The user is a nurse.", value=PROFILE.as_value()
    )
    forged = {"label": "profile", "limit": 10**9, "read_only": True, "subject": "user"}
    update = Update(key="core:profile", text=NURSE, mode="refine", value=forged, evidence=("t",))
    [made] = validate([update], [SAID], [stored]).accepted
    assert isinstance(made, Update)
    assert made.value == PROFILE.as_value()


def test_a_fact_may_stand_in_the_profile_too_but_a_block_is_not_rewritten_as_it_was() -> None:
    fact = Memory(namespace=HERS, key="k", text=NURSE)
    assert [type(each) for each in validate([write()], [SAID], [*EMPTY, fact]).accepted] == [Insert]
    stored = Memory(namespace=HERS, key="core:profile", kind="core", text=NURSE, value=PROFILE.as_value())
    again = Update(key="core:profile", text=NURSE, mode="refine", evidence=("t",))
    new = Insert(text=NURSE, evidence=("t",))
    noop, made = validate([again, new], [SAID], [stored]).accepted
    assert (noop, made) == (NoOp(reason="duplicate_of:core:profile", evidence=("t",)), new)


def test_the_declaration_of_today_goes_before_the_stored_one() -> None:
    stored = Memory(namespace=HERS, key="k", kind="core", text="x", value={**PROFILE.as_value(), "limit": 1})
    [shown] = with_declared([stored], [PROFILE], HERS)
    assert (shown.key, shown.value["limit"]) == ("k", PROFILE.limit)


@pytest.mark.parametrize("label", ["", "a b", "1", "x" * 41, "core:x", None])
def test_a_label_is_a_short_name(label: Any) -> None:
    with pytest.raises(ConfigurationError):
        CoreBlock(label)
    with pytest.raises(ConfigurationError):
        CoreBlock("x", limit=0)


@pytest.fixture(params=["in memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Any:
    if request.param == "in memory":
        yield InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=64))
        return
    with PostgresMemoryStore(request.getfixturevalue("dsn")) as opened:
        yield opened


def test_a_policy_writes_a_block_and_every_answer_sees_it_whole(store: Any) -> None:
    update = {"op": "update", "handle": "core:profile", "mode": "refine", "text": NURSE, "evidence": ["t1"]}
    asked = ScriptedChatModel(replies=[call(update), call()])
    model = ScriptedChatModel(replies=["Hello!"], repeat_last=True)
    graph = compiled(model, store, policy=ChatModelPolicy(asked), core=(PROFILE, TASTE), k=1, token_budget=5)
    say(graph, SAID.text)
    say(graph, "What is the weather?", thread="2")
    assert f"- profile: {NURSE}" in everything_sent(model)
    assert (
        "core:profile (who the user is, and what matters in every conversation; 512 of 512 tokens left)"
        in (everything_sent(asked, 0))
    )
    assert f'core:profile ({PROFILE.about}; 504 of 512 tokens left): "{NURSE}"' in everything_sent(asked, 1)
    assert "core:preferences (how to answer; 12 of 12 tokens left)" in everything_sent(asked, 1)


def test_a_block_may_be_declared_by_a_plain_operation(store: Any) -> None:
    [receipt] = store.apply(HERS, [RULES.insert("Answers are in English.")]).receipts
    assert (receipt.status, receipt.key) == ("applied", "core:house-rules")
    assert store.apply(HERS, [RULES.insert("Twice.")]).rejected[0].code == "key_exists"
    model = ScriptedChatModel(replies=["Hello!"], repeat_last=True)
    say(compiled(model, store, policy=RulePolicy()), "Hi there")
    assert "- house-rules: Answers are in English." in everything_sent(model)


def test_core_blocks_are_no_part_of_the_users_transcript(store: Any) -> None:
    store.apply(HERS, [PROFILE.insert(NURSE)])
    graph = compiled(ScriptedChatModel(replies=["Hello!"], repeat_last=True), store)
    assert not any(NURSE in message.text for message in say(graph, "Hi there")["messages"])


@pytest.mark.parametrize(
    ("told", "left"),
    [("The user is a nurse. The user likes chess.", ["The user is a nurse."]), ("The user likes chess.", [])],
)
def test_what_is_to_be_forgotten_goes_from_the_blocks_too(store: Any, told: str, left: list[str]) -> None:
    store.apply(HERS, [PROFILE.insert(told), RULES.insert("Answers never mention chess.")])
    say(compiled(None, store), "Please forget that I like chess.")
    kept = store.recall(HERS, "", k=9, kinds=("core",))
    assert sorted(hit.memory.text for hit in kept) == ["Answers never mention chess.", *left]
    assert all(hit.memory.value["label"] for hit in kept)
