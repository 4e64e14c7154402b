"""A conversation in a terminal: streamed answers, and what was remembered after each."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from rich.console import Console
from rich.text import Text

from memgraph_plugin.errors import MemgraphPluginError, StoreError
from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.memalpha.form import WRITABLE
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.nodes.apply import apply
from memgraph_plugin.nodes.decide import decide
from memgraph_plugin.nodes.scope import namespace_of
from memgraph_plugin.nodes.transcript import MARK
from memgraph_plugin.settings import Settings
from memgraph_plugin.state import MemoryContext, MemoryInput, MemoryOutput, MemoryState
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.open import open_store
from memgraph_plugin.terminal import changes_of, history_table, memory_table, printable

LISTED = 50
"""Memories that /memories shows, at most."""

HELP = "/memories lists them · /forget WHAT · /history KEY · /quit"


def talk(settings: Settings, console: Console, *, user: str, session: str | None, model: str | None) -> None:
    """Talk until /quit, Ctrl-D or Ctrl-C. What was said is remembered, also where an answer was cut short.

    Raises:
        ConfigurationError, StoreError: before the first word.
    """
    chat_model = chosen_model(settings, model)
    namespace_of(MemoryContext(user_id=user), {})
    with open_store(settings) as store, suppress(KeyboardInterrupt):
        conversation = Conversation(settings, store, console, chat_model, user=user, session=session)
        named = (model or settings.chat_model) if chat_model else "no model: memories are quoted"
        console.print(Text(f"{user}, {named}. {HELP}", style="dim"))
        for line in _lines(console):
            if line == "/quit" or not conversation.take(line):
                break


def chosen_model(settings: Settings, name: str | None) -> BaseChatModel | None:
    """The chat model that an option or the settings name; None for "extractive", or where neither names one.

    Raises:
        ConfigurationError, MissingExtraError: as `load_chat_model`.
    """
    name = name or settings.chat_model
    if name is None or name == "extractive":
        return None
    return load_chat_model(name, base_url=settings.base_url, cache_dir=settings.cache_dir)


def listening_graph() -> StateGraph[MemoryState, MemoryContext, MemoryInput, MemoryOutput]:
    """A graph that remembers what it is told, and does not answer."""
    graph = StateGraph(
        MemoryState, context_schema=MemoryContext, input_schema=MemoryInput, output_schema=MemoryOutput
    )
    steps: list[tuple[str, Any]] = [("nod", _nod), ("decide", decide()), ("apply", apply())]
    graph.add_sequence(steps)
    graph.add_edge(START, "nod")
    return graph


def _nod(_: MemoryState) -> dict[str, list[AIMessage]]:
    """Ends the exchange, so that the next message is one of its own; marked, so that it is not remembered."""
    return {"messages": [AIMessage("Noted.", additional_kwargs={MARK: "nod"})]}


class Conversation:
    """One thread of one user. `take` handles a line of input and says whether to go on."""

    def __init__(
        self,
        settings: Settings,
        store: MemoryStore,
        console: Console,
        model: BaseChatModel | None,
        *,
        user: str,
        session: str | None,
    ) -> None:
        self._store, self._console, self._user = store, console, user
        thread = str(uuid.uuid4())
        context = MemoryContext(user_id=user, session_id=session or thread)
        self._namespace = namespace_of(context, {})
        self._config: Any = {"configurable": {"thread_id": thread}}
        self._run: Any = {"context": context, "stream_mode": ["messages", "updates"]}
        builder = build_memory_graph(
            model,
            policy=settings.policy if model else "rules",
            k=settings.k,
            token_budget=settings.token_budget,
        )
        self._graph = builder.compile(store=store, checkpointer=InMemorySaver())
        self._listening = listening_graph().compile(store=store)

    def take(self, line: str) -> bool:
        command, _, rest = line.partition(" ")
        try:
            if command == "/memories":
                hits = self._store.recall(self._namespace, "", k=LISTED, kinds=WRITABLE)
                self._console.print(memory_table(hits) if hits else "Nothing yet.")
            elif command == "/history":
                self._console.print(history_table(self._store.history(self._namespace, rest.strip())))
            elif command == "/forget" and rest.strip():
                self._remember([HumanMessage(f"Please forget {rest.strip()}", id=str(uuid.uuid4()))])
            elif command.startswith("/"):
                self._console.print(HELP)
            elif line.strip():
                return self._answer(line)
        except MemgraphPluginError as error:
            self._console.print(Text(f"{error}", style="red"))
        return True

    def _answer(self, line: str) -> bool:
        """Answer, then remember; False where Ctrl-C was pressed meanwhile."""
        stop, said = StopRequest(), HumanMessage(line, id=str(uuid.uuid4()))
        config: Any = {**self._config, "callbacks": [stop]}
        with stop.listening():
            try:
                self._show(self._graph.stream({"messages": [said]}, config, **self._run))
            except StoreError:
                raise
            except (Exception, Stopped) as error:  # noqa: BLE001 - a model fails in its own words
                reason = "stopped" if stop.asked else f"no answer: {type(error).__name__}: {error}"
                self._console.print(Text(f"\n({printable(reason)})", style="dim" if stop.asked else "red"))
                self._remember([said])
                forget_it: Any = {"messages": [RemoveMessage(str(said.id))]}
                self._graph.update_state(self._config, forget_it, as_node="apply")
        return not stop.asked

    def _remember(self, messages: list[AnyMessage]) -> None:
        """Decide and write without an answer."""
        config: Any = {"configurable": {"thread_id": str(uuid.uuid4())}}
        self._show(self._listening.stream({"messages": messages}, config, **self._run))

    def _show(self, events: Iterator[Any]) -> None:
        streamed = False
        operations: list[Any] = []
        for mode, event in events:
            if mode == "messages":
                chunk, metadata = event
                if metadata.get("langgraph_node") == "generate" and isinstance(chunk, AIMessageChunk):
                    streamed = True
                    self._console.out(printable(chunk.text), end="", highlight=False)
            elif update := event.get("generate"):
                self._console.out("" if streamed else printable(update["messages"][-1].text), highlight=False)
            elif update := event.get("decide"):
                operations = update["operations"]
            elif update := event.get("apply"):
                self._console.print(Text(changes_of(operations, update["receipts"]), style="dim"))


class Stopped(BaseException):
    """The answer is not wanted any more. No `Exception`: LangChain would log it as an error of a callback."""


class StopRequest(BaseCallbackHandler):
    """Ctrl-C, while a turn runs: the answer ends at the next token. Twice, and the turn ends at once."""

    raise_error = True
    run_inline = True

    def __init__(self) -> None:
        self.asked = False

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        if self.asked:
            raise Stopped

    @contextmanager
    def listening(self) -> Iterator[None]:
        try:
            before = signal.signal(signal.SIGINT, self._ask)
        except ValueError:  # not the main thread: nobody presses Ctrl-C here
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _lines(console: Console) -> Iterator[str]:
    """What is typed, a line at a time, until Ctrl-D or Ctrl-C."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401 - gives input() its line editing
    while True:
        try:
            line = input("> " if interactive else "")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not interactive:
            console.print(Text(f"> {printable(line)}"))
        yield line.strip()
