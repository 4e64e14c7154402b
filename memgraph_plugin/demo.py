"""The demonstration: a person tells one process things; another one, in a new thread, is asked about them.

The parent tells the story, shows what happens and checks the answers. The child knows nothing of it: it reads
a message a line, and writes what happens as JSON lines. All that the two sessions share is the database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from rich.console import Console
from rich.text import Text

from memgraph_plugin.chat import chosen_model, listening_graph
from memgraph_plugin.errors import MemgraphPluginError
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memalpha.form import WRITABLE
from memgraph_plugin.models.pull import default_model, mirrors
from memgraph_plugin.settings import Settings
from memgraph_plugin.state import MemoryContext, operations_from
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.open import open_store
from memgraph_plugin.terminal import changes_of, history_table, memory_table, printable, pull_with_bar
from memgraph_plugin.types import Delete, Update

REPLY_TOKENS = 60
"""Tokens of an answer, at most: on a slow machine, a reader should not wait for a small model's chatter."""

SHOWN = 3
"""Recalled memories shown for a question."""


@dataclass(frozen=True, slots=True)
class Question:
    """What session two is asked, what its answer must contain, and what it must not."""

    text: str
    told: str = ""
    outdated: str = ""

    def wanted(self, memory: bool) -> str:
        """What makes an answer right, in words."""
        if not memory:
            return f"cannot say “{self.told}”"
        parts = [f"says “{self.told}”"] if self.told else []
        return ", ".join([*parts, *([f"does not say “{self.outdated}”"] if self.outdated else [])])

    def is_answered(self, answer: str) -> bool:
        said = answer.casefold()
        return self.told.casefold() in said and not (self.outdated and self.outdated.casefold() in said)


TOLD = (
    "Hi! My name is Marta Reis and I live in Porto.",
    "I work as a marine biologist.",
    "My dog is called Biscuit.",
    "I'm allergic to peanuts.",
    "My favourite book is Middlemarch.",
    "Sorry, I meant I live in Bergen.",
    "Please forget my favourite book.",
)
ASKED = (
    Question("What is my name?", "Marta"),
    Question("Where do I live?", "Bergen", outdated="Porto"),
    Question("What is my job?", "marine biologist"),
    Question("What is my dog called?", "Biscuit"),
    Question("What am I allergic to?", "peanut"),
    Question("Do you know my favourite book?", outdated="Middlemarch"),
)
ALSO_WITHOUT = ASKED[3]


def run(settings: Settings, console: Console, *, model: str | None, pull: bool) -> int:
    """Play it, and return the exit status: 0 only where every answer was right.

    Raises:
        MemgraphPluginError: the database does not start, or a session broke off.
    """
    began = time.perf_counter()
    user = f"demo-{uuid.uuid4().hex[:8]}"
    _head(console, "1. A database")
    # Here nothing is searched for: what loads the embedding model are the sessions.
    with open_store(settings.model_copy(update={"embeddings": "none"})) as store:
        where = "your Postgres" if settings.dsn else f"a private Postgres in {settings.data_dir}"
        _say(console, f"{where}, ready after {time.perf_counter() - began:.1f} s; a new user, {user}")
        _head(console, "2. A model")
        model = _model(settings, console, model, pull=pull)
        _head(console, "3. Session one: Marta tells")
        with Session(console, user, "one", model) as session:
            changed = [key for text in TOLD for key in session.tell(text)]
        _head(console, "4. Session two: a new process, a new thread")
        with Session(console, user, "two", model) as session:
            right = [session.ask(question) for question in ASKED]
            if model != "extractive":
                _head(console, "5. The same model without memory")
                right.append(session.ask(ALSO_WITHOUT, memory=False))
        _head(console, "What is remembered now, and what became of two memories")
        _show(console, store, user, changed)
    took = time.perf_counter() - began
    verdict = f"{sum(right)} of {len(right)} answers are as they must be; {took:.0f} s in all."
    console.print(Text(verdict, style="bold green" if all(right) else "bold red"))
    return 0 if all(right) else 1


def _model(settings: Settings, console: Console, named: str | None, *, pull: bool) -> str:
    """The model to use, got if need be; "extractive" where nobody named one and ours cannot be had."""
    name = named or f"local:{default_model()}"
    local = name.removeprefix("local:")
    try:
        if pull and local != name and local in mirrors():
            pull_with_bar(console, local, settings.cache_dir)
        chosen_model(settings, name)
    except MemgraphPluginError as error:
        if named:
            raise
        _say(console, f"{name} cannot be had: {error}")
        name = "extractive"
    _say(console, "no model: answers quote memories, and say so" if name == "extractive" else name)
    return name


class Session:
    """A process of its own that is told and asked things, one after another."""

    def __init__(self, console: Console, user: str, session: str, model: str) -> None:
        command = [sys.executable, "-m", "memgraph_plugin.cli", "demo-session", session]
        command += ["--user", user, "--model", model]
        # OpenMP's threads would spin while they wait, which makes a shared machine several times slower.
        calm = {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONIOENCODING": "utf-8"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        self._console, self._name = console, session
        began = time.perf_counter()
        self._process = subprocess.Popen(command, env=os.environ | calm, **pipes)  # noqa: S603 - ourselves
        next(self._events())
        took = time.perf_counter() - began
        _say(console, f"process {self._process.pid}, thread {session!r}; started in {took:.1f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind:
            self._process.kill()
        self._process.communicate()

    def tell(self, text: str) -> list[str]:
        """Say something that needs no answer; the keys of the memories that it updated and deleted."""
        self._console.print(Text(f"\n> {text}", style="bold"))
        operations: list[Any] = []
        for event in self._events(text=text, how="tell"):
            if update := event.get("decide"):
                operations = update["operations"]
            elif update := event.get("apply"):
                _say(self._console, changes_of(operations, update["receipts"]))
        return [each.key for each in operations_from(operations) if isinstance(each, Update | Delete)]

    def ask(self, question: Question, *, memory: bool = True) -> bool:
        """Ask, and show what is recalled and answered; whether it is answered as it must be with memory."""
        self._console.print(Text(f"\n> {question.text}", style="bold"))
        began, answer = time.perf_counter(), ""
        for event in self._events(text=question.text, how="ask" if memory else "ask without memory"):
            if update := event.get("retrieve"):
                for hit in update["memories"][:SHOWN]:
                    _say(self._console, f"  recalled: {hit['memory']['text']}")
            elif token := event.get("token"):
                answer += token
                self._console.out(printable(token), end="", highlight=False)
            elif "answered" in event:
                _say(self._console, f"  ({time.perf_counter() - began:.1f} s)")
        right = question.is_answered(answer) is memory
        sign, style = ("✓", "green") if right else ("✗", "bold red")
        self._console.print(Text(f"  {sign} {question.wanted(memory)}", style=style))
        return right

    def _events(self, **message: Any) -> Iterator[dict[str, Any]]:
        """Send a message, if any, and give what the process writes until it is done with it."""
        if message and self._process.stdin:
            with suppress(BrokenPipeError):  # it says below why it ended
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
        for line in self._process.stdout or ():
            event: dict[str, Any] = json.loads(line)
            yield event
            if "done" in event:
                return
        raise MemgraphPluginError(f"session {self._name} broke off: exit status {self._process.wait()}")


def answer_lines(settings: Settings, *, user: str, session: str, model: str | None) -> None:
    """The child's side: a message a line in, events as JSON lines out, until the input ends."""
    chat_model = chosen_model(settings, model)
    if chat_model is not None and "max_tokens" in type(chat_model).model_fields:
        chat_model = chat_model.model_copy(update={"max_tokens": REPLY_TOKENS})
    context = MemoryContext(user_id=user, session_id=session)
    config: Any = {"configurable": {"thread_id": f"{user}-{session}"}}
    with open_store(settings) as store:
        listening = listening_graph().compile(store=store, checkpointer=InMemorySaver())
        builder = build_memory_graph(chat_model, k=settings.k, token_budget=settings.token_budget)
        remembering = builder.compile(store=store, checkpointer=InMemorySaver())
        forgetful = build_memory_graph(chat_model, recall=False, remember=False).compile()
        _write({"done": True})
        graphs: dict[str, Any] = {"tell": listening, "ask": remembering, "ask without memory": forgetful}
        for line in sys.stdin:
            message = json.loads(line)
            graph = graphs[message["how"]]
            asked = {"messages": [HumanMessage(message["text"])]}
            for mode, event in graph.stream(
                asked, config, context=context, stream_mode=["messages", "updates"]
            ):
                for told in _tell(mode, event):
                    _write(told)
            _write({"done": True})


def _write(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _tell(mode: str, event: Any) -> Iterator[dict[str, Any]]:
    """What one event of the graph's stream is to the parent; most updates are plain JSON already."""
    if mode == "updates":
        yield {"answered": True} if "generate" in event else {**event, "nod": None}
        return
    chunk, metadata = event
    if metadata["langgraph_node"] == "generate" and chunk.text:
        yield {"token": chunk.text}


def _show(console: Console, store: MemoryStore, user: str, changed: list[str]) -> None:
    """The table of memories, and the history of what was corrected and of what was forgotten."""
    namespace = ("memories", user)
    console.print(memory_table(store.recall(namespace, "", k=50, kinds=WRITABLE), keys=False))
    for key in changed:
        versions = store.history(namespace, key)
        what = "forgotten" if versions[-1].memory is None else "changed"
        console.print(history_table(versions, title=f"The memory that was {what}, {key}"))


def _head(console: Console, title: str) -> None:
    console.print(Text(f"\n{title}", style="bold cyan"))


def _say(console: Console, text: str) -> None:
    console.print(Text(printable(text), style="dim"))
