"""Memory that is written after the answer: in the same order and with the same outcome as with it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from memgraph_plugin.background import BackgroundWriter, Task, Waiting
from memgraph_plugin.errors import StoreError
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.integrations.langchain import MemoryMiddleware
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.nodes.decide import DECIDING
from memgraph_plugin.nodes.submit import Submission, plain_submission, settle, submission_from
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing.chat_model import ScriptedChatModel
from memgraph_plugin.types import Delete, Insert, Memory, Operation, Turn

ANA = ("memories", "ana")
WRITTEN = ("core", "semantic", "episodic")
NEVER = 3_600.0


def talk(store: InMemoryMemoryStore, lines: Sequence[str], **options: Any) -> None:
    """A conversation of one thread."""
    graph = build_memory_graph(**options).compile(store=store)
    said: list[Any] = []
    for number, line in enumerate(lines):
        said.append(HumanMessage(line, id=f"q{number}"))
        config: Any = {"configurable": {"thread_id": "t"}}
        done = graph.invoke({"messages": said}, config, context=MemoryContext(user_id="ana"))
        said = [*done["messages"][:-1], AIMessage(done["messages"][-1].text, id=f"a{number}")]


def texts(store: InMemoryMemoryStore, *kinds: Any) -> list[str]:
    hits = store.recall(ANA, "", k=100, kinds=kinds or WRITTEN)
    return sorted(hit.memory.text for hit in hits)


def submission(number: int, *, thread: str = "t", user: str = "ana") -> Submission:
    return Submission(
        namespace=("memories", user),
        thread=thread,
        session=thread,
        now=datetime.now(UTC),
        turns=(str(number),),
    )


class Slow(RulePolicy):
    """Rules that note when they are asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        object.__setattr__(self, "name", "slow")
        object.__setattr__(self, "seconds", seconds)
        super().__init__(name="slow")

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        time.sleep(self.seconds)  # type: ignore[attr-defined]
        return super().propose(turns, memories)


# In one process.


def test_turns_are_there_at_once_and_facts_when_the_writer_is_closed() -> None:
    store = InMemoryMemoryStore()
    with BackgroundWriter(pause=NEVER) as writer:
        talk(store, ["I live in Lisbon.", "My sister is called Rita."], writer=writer)
        assert "I live in Lisbon." in texts(store, "turn")
        assert texts(store) == []
        assert len(writer.pending(ANA)) == 2
    assert texts(store) == ["The user lives in Lisbon.", "The user's sister is called Rita."]
    assert not writer.failures
    assert writer.pending(ANA) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["I live in Lisbon.", "I moved to Porto.", "What is my name?", "My name is Ana."],
        ["I live in Lisbon.", "Please forget where I live.", "I have a dog called Rex."],
        ["I am vegan.", "Don't remember this, but I ate a steak.", "Forget that I am vegan."],
        ["I like tea.", "I like tea.", "I no longer like tea."],
    ],
)
def test_later_arrives_where_now_does(lines: list[str]) -> None:
    now, later = InMemoryMemoryStore(), InMemoryMemoryStore()
    talk(now, lines)
    with BackgroundWriter(pause=NEVER) as writer:
        talk(later, lines, writer=writer)
    assert texts(later) == texts(now)
    assert texts(later, "turn") == texts(now, "turn")


def test_a_paused_conversation_is_written_without_a_flush() -> None:
    store = InMemoryMemoryStore()
    with BackgroundWriter(pause=0.05) as writer:
        talk(store, ["I live in Lisbon."], writer=writer)
        until = time.monotonic() + 10
        while not texts(store) and time.monotonic() < until:
            time.sleep(0.01)
        assert texts(store) == ["The user lives in Lisbon."]
        talk(store, ["I live in Lisbon.", "I have a dog called Rex."], writer=writer)
    assert len(texts(store)) == 2


async def test_async_runs_are_written_by_a_task_of_their_loop() -> None:
    store = InMemoryMemoryStore()
    async with BackgroundWriter(pause=0.05) as writer:
        graph = build_memory_graph(writer=writer).compile(store=store)
        for user, line in (("ana", "I live in Lisbon."), ("bob", "I live in Rome.")):
            config: Any = {"configurable": {"thread_id": user}}
            asked = {"messages": [HumanMessage(line, id="1")]}
            await graph.ainvoke(asked, config, context=MemoryContext(user_id=user))
        for _ in range(200):
            if texts(store) and not writer.pending(("memories", "bob")):
                break
            await asyncio.sleep(0.02)
        assert texts(store) == ["The user lives in Lisbon."]
        asked = {"messages": [HumanMessage("I have a dog called Rex.", id="2")]}
        await graph.ainvoke(asked, config, context=MemoryContext(user_id="ana"))
    assert len(texts(store)) == 2


def test_what_fails_is_kept_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(InMemoryMemoryStore):
        broken = False

        def recall(self, *arguments: Any, **options: Any) -> Any:
            if self.broken:
                raise StoreError("no more")
            return super().recall(*arguments, **options)

    broken, whole = Broken(), InMemoryMemoryStore()
    with BackgroundWriter(pause=NEVER) as writer:
        talk(broken, ["I live in Lisbon."], writer=writer)
        talk(whole, ["I live in Lisbon."], writer=writer)
        broken.broken = True
    ((failed, error),) = writer.failures
    assert isinstance(error, StoreError)
    assert "not decided on: StoreError" in caplog.text
    assert "no more" not in caplog.text  # it might quote what was said
    assert texts(whole) == ["The user lives in Lisbon."]
    broken.broken = False
    settle(broken, failed, RulePolicy())  # by hand, when it is mended
    assert texts(broken) == ["The user lives in Lisbon."]


def test_deciding_twice_changes_nothing_whoever_decides() -> None:
    store, taken = InMemoryMemoryStore(), []
    with BackgroundWriter(pause=NEVER) as writer:
        talk(store, ["I live in Lisbon. My dog is called Rex."], writer=writer)
        taken = writer.pending(ANA)
    before = len(store.log(ANA))
    settle(store, submission_from(plain_submission(taken[0])), RulePolicy(name="another"))
    assert len(store.log(ANA)) == before
    assert len(texts(store)) == 2


def test_turns_that_were_deleted_meanwhile_are_not_decided_on() -> None:
    store = InMemoryMemoryStore()
    with BackgroundWriter(pause=NEVER) as writer:
        talk(store, ["I live in Lisbon."], writer=writer)
        store.delete_namespace(ANA)
    assert texts(store) == []


@pytest.mark.parametrize("gone", ["erased", "forgotten"])
def test_what_is_let_go_while_it_is_decided_on_does_not_come_back(gone: str) -> None:
    store = InMemoryMemoryStore()

    class Meanwhile(RulePolicy):
        def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
            if gone == "erased":
                store.forget(ANA)
            elif "I live in Lisbon." in texts(store, "turn"):
                keys = [turn.key for turn in turns if turn.text == "I live in Lisbon."]
                store.apply(ANA, [Delete(key=key) for key in keys])
            return RulePolicy.propose(self, turns, memories)

    with BackgroundWriter(pause=NEVER) as writer:
        talk(store, ["I live in Lisbon."], writer=writer, policy=Meanwhile())
    assert not writer.failures
    assert "Lisbon" not in " ".join(texts(store, *WRITTEN, "turn"))
    assert store.log(ANA) == [] or gone == "forgotten"


def test_what_cannot_be_decided_on_keeps_nobody_from_forgetting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise StoreError("Rex the dog")

    store = InMemoryMemoryStore()
    lines = ["I have a dog called Rex.", "I live in Lisbon.", "Please forget that I live in Lisbon."]
    with BackgroundWriter(pause=NEVER) as writer:
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules["memgraph_plugin.nodes.submit"], "settle", fails)
            talk(store, lines, writer=writer)
        assert "Lisbon" not in " ".join(texts(store, "turn"))
        assert len(writer.pending(ANA)) == 2
    assert texts(store) == ["The user's dog is called Rex."]
    assert "StoreError" in caplog.text
    assert "Rex" not in caplog.text


async def test_nor_does_it_in_async_runs() -> None:
    store = InMemoryMemoryStore()

    class Meanwhile(RulePolicy):
        async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
            store.forget(ANA)
            return self.propose(turns, memories)

    async with BackgroundWriter(pause=NEVER) as writer:
        graph = build_memory_graph(writer=writer, policy=Meanwhile()).compile(store=store)
        asked = {"messages": [HumanMessage("I live in Lisbon.", id="1")]}
        await graph.ainvoke(asked, context=MemoryContext(user_id="ana"))
    assert not writer.failures
    assert texts(store, *WRITTEN, "turn") == []


@pytest.mark.parametrize("later", [True, False])
def test_the_log_says_what_was_refused_whenever_it_was_decided(later: bool) -> None:
    class Foreign(RulePolicy):
        def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
            return [
                Delete(key="somebody\0else's", evidence=(turns[0].key,)),
                Insert(text="x", evidence=("?",)),
            ]

    store = InMemoryMemoryStore()
    with BackgroundWriter(pause=NEVER) as writer:
        talk(store, ["I live in Lisbon."], policy=Foreign(), **({"writer": writer} if later else {}))
    assert not writer.failures
    refused = [each for batch in store.log(ANA) for each in batch.receipts if each.code]
    assert [each.code for each in refused] == ["schema", "unknown_evidence"]
    assert [each.key for each in refused] == ["somebodyelse's", None]


def test_the_middleware_hands_over() -> None:
    agents = pytest.importorskip("langchain.agents")
    store = InMemoryMemoryStore()
    with BackgroundWriter(pause=NEVER) as writer:
        agent = agents.create_agent(
            ScriptedChatModel(replies=["Nice."]),
            middleware=[MemoryMiddleware(writer=writer)],
            store=store,
            context_schema=MemoryContext,
        )
        agent.invoke({"messages": [HumanMessage("I live in Lisbon.")]}, context=MemoryContext(user_id="ana"))
        assert texts(store, "turn") == ["I live in Lisbon.", "Nice."]
        assert texts(store) == []
    assert texts(store) == ["The user lives in Lisbon."]


def test_ctrl_c_and_the_end_of_the_program_write_what_waits() -> None:
    program = """
import os, signal, sys
from langchain_core.messages import HumanMessage
from memgraph_plugin import InMemoryMemoryStore, MemoryContext, build_memory_graph
from memgraph_plugin.background import BackgroundWriter
import atexit
store, writer = InMemoryMemoryStore(), None
atexit.register(lambda: print(store.recall(("memories", "ana"), "", kinds=["semantic"])))
writer = BackgroundWriter(pause=3600)
graph = build_memory_graph(writer=writer).compile(store=store)
graph.invoke({"messages": [HumanMessage("I live in Lisbon.")]}, context=MemoryContext(user_id="ana"))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert "The user lives in Lisbon." in done.stdout, done.stderr


class Cut(RulePolicy):
    """Rules that are interrupted, once."""

    cut = False

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        if "Rita" in turns[0].text and not Cut.cut:
            Cut.cut = True
            raise KeyboardInterrupt
        return RulePolicy.propose(self, turns, memories)


def test_what_ctrl_c_interrupts_waits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cut, "cut", False)
    store, writer = InMemoryMemoryStore(), BackgroundWriter(pause=NEVER)
    lines = ["I live in Lisbon.", "My sister is called Rita.", "I have a dog.", "I like tea."]
    talk(store, lines, writer=writer, policy=Cut())
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    assert len(writer.pending(ANA)) == 3
    writer.close()
    assert len(texts(store)) == 4
    assert writer.pending(ANA) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_broken_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cut, "cut", False)
    store, writer = InMemoryMemoryStore(), BackgroundWriter(pause=0.01)
    talk(store, ["My sister is called Rita."], writer=writer, policy=Cut())
    wait_for(lambda: Cut.cut and not (writer._thread and writer._thread.is_alive()))
    talk(store, ["My sister is called Rita.", "I like tea."], writer=writer, policy=Cut())
    wait_for(lambda: len(texts(store)) == 2)
    writer.close()


class SlowLater(RulePolicy):
    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        await asyncio.sleep(0.1)
        return self.propose(turns, memories)


async def atalk(store: InMemoryMemoryStore, user: str, **options: Any) -> None:
    """Three conversations of one exchange."""
    graph = build_memory_graph(**options).compile(store=store)
    for number in range(3):
        asked = {"messages": [HumanMessage(f"I have a cat called Rex{number}.", id=f"q{number}")]}
        config: Any = {"configurable": {"thread_id": f"{user}{number}"}}
        await graph.ainvoke(asked, config, context=MemoryContext(user_id=user))
        await asyncio.sleep(0.03)


@pytest.mark.parametrize("pause", [0.01, NEVER])
def test_what_an_ended_loop_left_is_decided_on(pause: float, caplog: pytest.LogCaptureFixture) -> None:
    store, writer = InMemoryMemoryStore(), BackgroundWriter(pause=pause)
    asyncio.run(atalk(store, "ana", writer=writer, policy=SlowLater()))
    left = 3 - len(texts(store))
    assert left
    assert f"{left} exchanges are not decided on" in caplog.text
    assert len(writer.pending(ANA)) == left
    writer.close()
    assert len(texts(store)) == 3
    assert writer.pending(ANA) == []
    assert not writer.failures


def test_two_loops_at_once_write_all() -> None:
    store, writer = InMemoryMemoryStore(), BackgroundWriter(pause=0.05)

    async def whole(user: str) -> None:
        await atalk(store, user, writer=writer, policy=SlowLater())
        await writer.aflush()

    threads = [threading.Thread(target=asyncio.run, args=(whole(user),)) for user in ("ana", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user in ("ana", "bob"):
        assert len(store.recall(("memories", user), "", k=10, kinds=["semantic"])) == 3
    assert not writer.failures
    writer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_begins_with_nothing_and_can_write() -> None:
    program = """
import os, time
from langchain_core.messages import HumanMessage
from memgraph_plugin import InMemoryMemoryStore, MemoryContext, build_memory_graph
from memgraph_plugin.background import BackgroundWriter
def say(text, user):
    graph.invoke({"messages": [HumanMessage(text)]}, context=MemoryContext(user_id=user))
def known(user):
    return [hit.memory.text for hit in store.recall(("memories", user), "", kinds=["semantic"])]
store, writer = InMemoryMemoryStore(), BackgroundWriter(pause=0.5)
graph = build_memory_graph(writer=writer).compile(store=store)
say("I live in Lisbon.", "ana")
child = os.fork()
if child == 0:
    assert writer.pending(("memories", "ana")) == []
    say("I live in Rome.", "bob")
    until = time.monotonic() + 20
    while not known("bob") and time.monotonic() < until:
        time.sleep(0.05)
    os._exit(0 if known("bob") and not known("ana") else 1)
assert os.waitpid(child, 0)[1] == 0
writer.close()
assert known("ana")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not done() and time.monotonic() < until:
        time.sleep(0.01)
    assert done()


# What waits.


def task(*given: Any, **named: Any) -> Task:
    return Task(submission(*given, **named), InMemoryMemoryStore(), RulePolicy, DECIDING)


def numbers(tasks: list[Task]) -> list[str]:
    return [each.submission.turns[0] for each in tasks]


def test_each_exchange_puts_its_conversation_off_until_it_pauses() -> None:
    waiting = Waiting(10)
    waiting.add(task(1), 0)
    waiting.add(task(2), 6)
    assert waiting.due(12) == []
    assert waiting.next() == 16
    assert numbers(waiting.due(16)) == ["1", "2"]
    assert waiting.next() is None


def test_a_conversation_without_a_pause_is_not_put_off_for_ever() -> None:
    waiting = Waiting(10)
    for second in range(0, 125, 5):
        waiting.add(task(second), second)
    assert waiting.next() == 120


def test_a_namespace_keeps_its_order_over_conversations() -> None:
    waiting = Waiting(10)
    waiting.add(task(1, thread="a"), 0)
    waiting.add(task(2, thread="b"), 1)
    waiting.add(task(3, user="bob"), 2)
    waiting.add(task(4, thread="a"), 9)
    assert numbers(waiting.due(11)) == ["1", "2"]
    assert numbers(waiting.due(12)) == ["3"]
    assert numbers(waiting.due(19)) == ["4"]
