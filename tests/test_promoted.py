"""Lines of the profile follow the memories that they were made of, in the very batch that writes these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from memgraph_plugin.consolidation import consolidate
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memalpha.blocks import PROFILE
from memgraph_plugin.memalpha.promoted import Lines, in_step
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.types import Delete, Insert, Memory, Operation, Update

ANA = ("memories", "ana")
OFTEN = ["I live in Lisbon."] * 4 + ["I like tea."] * 4


def talk(store: InMemoryMemoryStore, lines: list[str], thread: str, run_async: bool = False) -> None:
    graph = build_memory_graph().compile(store=store)
    said: list[Any] = []
    for number, line in enumerate(lines):
        said.append(HumanMessage(line, id=f"q{number}"))
        config: Any = {"configurable": {"thread_id": thread}}
        context = MemoryContext(user_id="ana")
        if run_async:
            done = asyncio.run(graph.ainvoke({"messages": said}, config, context=context))
        else:
            done = graph.invoke({"messages": said}, config, context=context)
        said = [*done["messages"][:-1], AIMessage(done["messages"][-1].text, id=f"a{number}")]


def texts(store: InMemoryMemoryStore, kind: Any) -> list[str]:
    return sorted(hit.memory.text for hit in store.recall(ANA, "", k=100, kinds=(kind,)))


@pytest.mark.parametrize("run_async", [False, True])
@pytest.mark.parametrize(
    ("asked", "profile"),
    [
        ("Please forget where I live.", "The user likes tea."),
        ("Please forget that I live in Lisbon.", "The user likes tea."),
        ("I moved to Porto.", "The user lives in Porto.\nThe user likes tea."),
        ("I no longer like tea.", "The user lives in Lisbon."),
    ],
)
def test_a_line_goes_or_changes_with_its_memory(asked: str, profile: str, run_async: bool) -> None:
    store = InMemoryMemoryStore()
    talk(store, OFTEN, "t")
    consolidate(store, ANA)
    assert texts(store, "core") == ["The user lives in Lisbon.\nThe user likes tea."]
    talk(store, [asked], "u", run_async)
    assert texts(store, "core") == [profile]
    assert "Lisbon" not in str(store.recall(ANA, "", kinds=("core",))[0].memory) or "Lisbon" in profile
    consolidate(store, ANA)
    assert texts(store, "core") == [profile]
    undone = store.undo(ANA, next(each.batch_id for each in store.log(ANA) if each.actor == "graph"))
    assert not undone.rejected


def test_a_profile_of_one_line_follows_too() -> None:
    store = InMemoryMemoryStore()
    talk(store, OFTEN[:4], "t")
    consolidate(store, ANA)
    talk(store, ["I moved to Porto."], "u")
    assert texts(store, "core") == texts(store, "semantic") == ["The user lives in Porto."]
    talk(store, ["Please forget where I live."], "v")
    assert texts(store, "core") == texts(store, "semantic") == []


def test_what_somebody_writes_into_the_profile_meanwhile_stays() -> None:
    store = InMemoryMemoryStore()
    talk(store, OFTEN, "t")
    consolidate(store, ANA)
    apply: Callable[..., Any] = store.apply

    def late(namespace: Any, operations: Any, **options: Any) -> Any:
        store.apply = apply  # type: ignore[method-assign]
        text = texts(store, "core")[0]
        apply(ANA, [Update(key=PROFILE.key, text=f"{text}\nBy hand.", mode="refine")])
        return apply(namespace, operations, **options)

    store.apply = late  # type: ignore[method-assign]
    talk(store, ["Please forget where I live."], "u")
    assert texts(store, "core") == ["The user likes tea.\nBy hand."]


def block(text: str, limit: int = 512, **promoted: str) -> Memory:
    value = {**PROFILE.as_value(), "limit": limit, "promoted": promoted}
    return Memory(namespace=ANA, key=PROFILE.key, text=text, kind="core", value=value, version=3)


def test_an_operation_on_the_block_itself_is_completed() -> None:
    own = Update(key=PROFILE.key, version=3, text="Tea.\nLisbon.\nA nurse.", mode="refine")
    done = in_step([Delete(key="tea"), own], [block("Tea.\nLisbon.", tea="Tea.", city="Lisbon.")])
    assert len(done) == 2
    assert isinstance(done[1], Update)
    assert (done[1].text, done[1].mode) == ("Lisbon.\nA nurse.", "refine")
    assert done[1].value
    assert done[1].value["promoted"] == {"city": "Lisbon."}
    gone: list[Operation] = [Delete(key="tea"), Delete(key=PROFILE.key)]
    assert in_step(gone, [block("Tea.", tea="Tea.")]) == gone


def test_a_line_that_has_grown_too_long_is_left_to_its_memory() -> None:
    long = "The user likes " + "tea " * 60
    done = in_step([Update(key="tea", text=long)], [block("Tea.\nMine.", limit=10, tea="Tea.")])
    assert isinstance(done[-1], Update)
    assert done[-1].text == "Mine."


def test_nothing_else_is_touched() -> None:
    operations: list[Operation] = [Insert(text="x"), Delete(key="other")]
    assert in_step(operations, [block("Tea.", tea="Tea.")]) == operations
    odd = Memory(namespace=ANA, key="core:x", text="x", kind="core", value={"promoted": ["other"]}, version=1)
    assert in_step(operations, [odd]) == operations
    lines = Lines(["Changed by hand."], {"tea": "Tea."})
    lines.follow("tea", "Green tea.")
    assert lines.lines == ["Changed by hand."]


def test_leaving_out_a_sentence_keeps_the_lines_of_a_block() -> None:
    from memgraph_plugin.types import Turn

    text = "The user has a cat. The user is a nurse.\nThe user sails.\nThe user has a red bicycle."
    shown = Memory(
        namespace=ANA, key=PROFILE.key, text=text, kind="core", value=PROFILE.as_value(), version=1
    )
    turn = Turn(key="t", role="user", text="Forget that I have a cat.", at=datetime.now(UTC))
    (update,) = RulePolicy().propose([turn], [shown])
    assert isinstance(update, Update)
    assert update.text == "The user is a nurse.\nThe user sails.\nThe user has a red bicycle."
