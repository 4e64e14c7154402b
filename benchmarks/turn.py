"""What the graph itself costs a turn: the whole of `invoke`, without the model and without the store.

The model answers at once from a script; time inside its script and inside the store's methods is taken away,
all else counts: LangGraph, LangChain, the rules, the checkpointer. Beside it stands a graph of one node that
calls the same model, which is what LangGraph and LangChain cost without any memory.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from measure import WIDTH, Spread, fresh_server, machine, percentile, report, server_settings, table
from rich.console import Console

from memgraph_plugin.graph import build_memory_graph
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel

SESSION = 20
"""Turns of one thread; then a new one begins, of the same user."""

METHODS = ("apply", "recall", "history", "batch", "get", "put", "search", "delete", "list_namespaces")
STORES = ("in memory", "Postgres")
COLUMNS = ("p50_ms", "p95_ms", "model_and_store_p50_ms")
THINGS = ("garden", "bicycle", "kitchen", "guitar", "balcony", "laptop", "camera", "kayak", "piano")
PLACES = ("Lisbon", "Oslo", "Turin", "Graz", "Leeds", "Porto", "Bergen", "Ghent", "Basel", "Malmo")
SAID = (
    "Hi! I was at the {place} market this morning, it was so crowded; I came home with too much fruit.",
    "My sister lives in {place}, and I am going to visit her next week with my {thing}.",
    "I moved to {place} last month.",
    "Do you remember where I live, and what I told you about my {thing}?",
    "My favourite thing is my {thing}. I use it almost every day after work.",
    "Please remember that I am allergic to peanuts.",
    "Actually, I no longer live in {place}.",
    "What would you cook for six people on a Sunday, if two of them eat no meat?",
)

_inside: ContextVar[bool] = ContextVar("inside", default=False)


class Stopwatch:
    """When the model or the store was at work: stretches from start to end, in seconds."""

    def __init__(self) -> None:
        self.stretches: list[tuple[float, float]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Only the outermost of nested calls counts; `to_thread` carries the mark along."""
        if _inside.get():
            yield
            return
        mark, start = _inside.set(True), time.perf_counter()
        try:
            yield
        finally:
            self.stretches.append((start, time.perf_counter()))
            _inside.reset(mark)

    def take(self) -> float:
        """Seconds since the last `take` in which any of them was at work."""
        total, until = 0.0, 0.0
        for start, end in sorted(self.stretches):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        self.stretches.clear()
        return total

    def watch(self, store: MemoryStore) -> None:
        """Time every method of this store that a node may call."""
        for name in METHODS:
            setattr(store, name, self._sync(getattr(store, name)))
            setattr(store, f"a{name}", self._async(getattr(store, f"a{name}")))

    def _sync(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running():
                return method(*args, **kwargs)

        return timed

    def _async(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running():
                return await method(*args, **kwargs)

        return timed

    def model(self) -> ScriptedChatModel:
        """A chat model whose script runs on this watch; LangChain's wrapping of it is not taken away."""

        def reply(_: list[BaseMessage]) -> AIMessage:
            with self.running():
                return AIMessage("Thank you for telling me; I shall keep that in mind for you.")

        return ScriptedChatModel(replies=[reply], repeat_last=True)


def memory_graph(
    watch: Stopwatch, store: MemoryStore, saver: InMemorySaver | None
) -> CompiledStateGraph[Any, Any, Any, Any]:
    watch.watch(store)
    return build_memory_graph(watch.model()).compile(store=store, checkpointer=saver)


def plain_graph(watch: Stopwatch, saver: InMemorySaver | None) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The least that a chat in LangGraph is: one node, which calls the model."""
    model = watch.model()

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aanswer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", RunnableLambda(answer, aanswer))
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


def measure(turns: int, rounds: int, postgres: str) -> dict[str, Any]:
    """Milliseconds of overhead a turn: of each store, with and without a checkpointer, sync and async."""
    found: dict[str, dict[str, list[tuple[list[float], list[float]]]]] = {}
    for number in range(-1, rounds):  # the first round warms up
        for mode in ("invoke", "ainvoke"):
            for saved in (False, True):
                for name, times in asyncio.run(_round(turns, mode, saved, postgres, number)).items():
                    row = f"{name}, {'InMemorySaver' if saved else 'no checkpointer'}"
                    found.setdefault(row, {}).setdefault(mode, []).append(times)
    return {
        row: {
            mode: {
                "p50_ms": asdict(Spread.of([percentile(overheads, 50) for overheads, _ in measured[1:]])),
                "p95_ms": asdict(Spread.of([percentile(overheads, 95) for overheads, _ in measured[1:]])),
                "model_and_store_p50_ms": asdict(
                    Spread.of([percentile(inside, 50) for _, inside in measured[1:]])
                ),
            }
            for mode, measured in modes.items()
        }
        for row, modes in found.items()
    }


async def _round(
    turns: int, mode: str, saved: bool, postgres: str, number: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Overheads and times in model and store (ms) of each graph, all doing the same turns for a new user."""
    embeddings = HashingEmbeddings()
    stores: dict[str, MemoryStore] = {STORES[0]: InMemoryMemoryStore(embeddings=embeddings)}
    kind = AsyncPostgresMemoryStore if mode == "ainvoke" else PostgresMemoryStore
    stores[STORES[1]] = kind(postgres, embeddings=embeddings)
    watches = {name: Stopwatch() for name in ("one node, no memory", *STORES)}
    graphs: dict[str, CompiledStateGraph[Any, Any, Any, Any]] = {
        name: memory_graph(watch, stores[name], InMemorySaver() if saved else None)
        if name in stores
        else plain_graph(watch, InMemorySaver() if saved else None)
        for name, watch in watches.items()
    }
    overheads: dict[str, list[float]] = {name: [] for name in graphs}
    elsewhere: dict[str, list[float]] = {name: [] for name in graphs}
    gc.collect()
    for turn in range(turns):
        text = SAID[turn % len(SAID)].format(
            place=PLACES[turn % len(PLACES)], thing=THINGS[turn % len(THINGS)]
        )
        who = MemoryContext(user_id=f"{mode}-{saved}-{number}", session_id=f"{turn // SESSION}")
        said: Any = {"messages": [HumanMessage(text)]}
        config: RunnableConfig = {"configurable": {"thread_id": who.session_id}}
        for name, graph in graphs.items():
            context = who if name in stores else None
            start = time.perf_counter()
            if mode == "invoke":
                result = graph.invoke(said, config, context=context)
            else:
                result = await graph.ainvoke(said, config, context=context)
            whole = time.perf_counter() - start
            inside = watches[name].take()
            if name in stores and not result["receipts"]:
                raise SystemExit(f"Nothing was remembered of turn {turn} ({name}): this measures no memory.")
            overheads[name].append((whole - inside) * 1e3)
            elsewhere[name].append(inside * 1e3)
    if isinstance(opened := stores[STORES[1]], AsyncPostgresMemoryStore):
        await opened.aclose()
    elif isinstance(opened, PostgresMemoryStore):
        opened.close()
    return {name: (overheads[name], elsewhere[name]) for name in graphs}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=200, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write everything as JSON")
    options = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "turn", "machine": machine()}
    result["data"] = f"{options.rounds} rounds of {options.turns} turns, a new thread every {SESSION}"
    with fresh_server() as dsn:
        result["server"] = server_settings(dsn)
        with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
            store.setup()
        result["overhead"] = measure(options.turns, options.rounds, dsn)
    rows = [
        [row, mode, *(Spread(**each[column]).show() for column in COLUMNS)]
        for row, modes in result["overhead"].items()
        for mode, each in modes.items()
    ]
    title = "Overhead of one turn in ms, without model and store: median of rounds (lowest-highest)"
    shown = [table(title, ["", "", "p50", "p95", "model and store, p50"], rows)]
    report(Console(width=WIDTH), result, shown, options.output)


if __name__ == "__main__":
    main()
