"""What we, mem0 and LangMem make of the same made-up conversations, with the same model that understands all.

The model is a script that knows the truth (`memgraph_plugin.evaluation.timeline_oracle`). It is asked
over HTTP in each package's own prompt, and answers in the form that prompt asks for, as well as that
form allows: mem0's takes additions only, with "the transition" where something changed (that puts the old
value into the newer memory too, so `mem0-plain` leaves it out); LangMem's takes additions, patches and
removals. So what differs is what a package does with a good answer. Vectors come from one embedding model,
and everybody hears the same exchanges one by one. What is counted, and how, is in
`memgraph_plugin/evaluation/memory_writing.py`. Peers take no ids: compare "said again", where we are told
none that we could know again either; "replayed with the same ids" is ours alone. Asides and injections are
counted of the rules only: the script never proposes them, so nobody who asks it could store any.

    python benchmarks/memory_writing.py --cases 500 --output memory-writing.json

"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.tool import tool_call
from rich.console import Console

from memgraph_plugin import __version__
from memgraph_plugin.evaluation.graph_writer import graph_writers
from memgraph_plugin.evaluation.memory_writing import Writers, evaluate, memory_writing_table
from memgraph_plugin.evaluation.timeline_oracle import NEVER_PROPOSED, TimelineOracle, moves_of, no_longer
from memgraph_plugin.evaluation.told import Item, contains
from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.timelines import Session, Timeline, timeline
from memgraph_plugin.models.embeddings import load_embeddings
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing.embeddings import HashingEmbeddings
from memgraph_plugin.testing.openai_server import OpenAIServer
from memgraph_plugin.types import Turn

SYSTEMS = ("rules", "oracle", "mem0", "mem0-plain", "langmem")
EVERYTHING = 1_000


class Script:
    """Answers each package's request about the timeline that is being told."""

    timeline: Timeline
    transitions = True
    """Whether an addition for mem0 says what it replaces, as its prompt asks."""

    def __call__(self, body: dict[str, Any]) -> AIMessage:
        asked = "\n".join(str(message.get("content") or "") for message in body["messages"])
        if "## New Messages" in asked:
            return self._additions(asked)
        return self._tools(asked)

    def _additions(self, asked: str) -> AIMessage:
        """mem0's: `{"memory": [{"text": ...}]}`, additions only, a change with what it replaces."""
        said = re.findall(r"## New Messages\nuser: (.*?)\nassistant: ", asked, re.S)[-1]
        existing = re.findall(r"^## Existing Memories\n(.*)$", asked, re.M)[-1]
        known = [memory["text"] for memory in json.loads(existing)]
        texts = []
        for move in moves_of(self.timeline, said):
            if not move.fact or move.act == "forget":
                continue
            truth = self.timeline.truth(move.fact)
            if move.act == "end":
                texts.append(no_longer(truth))
            elif not any(contains(text, truth.value) for text in known):
                old = move.old if self.transitions else ""
                changed = f", changed from {self.timeline.truth(old).value}" if old else ""
                on = f" on {truth.on}" if truth.on else ""
                texts.append(f"{truth.text.rstrip('.')}{on}{changed}.")
        found = [{"id": str(n), "text": text, "attributed_to": "user"} for n, text in enumerate(texts)]
        return AIMessage(json.dumps({"memory": found}))

    def _tools(self, asked: str) -> AIMessage:
        """LangMem's: a call of Memory, PatchDoc or RemoveDoc for each operation."""
        said = re.findall(r"=+ Human Message =+\n+(.*?)\n+=+ Ai Message =+", asked, re.S)[-1]
        shown = re.findall(r'<instance id=(\S+) schema_type="[^"]*">\n(.*?)\n</instance>', asked, re.S)
        known = {key: ast.literal_eval(value)["content"] for key, value in shown}
        calls: list[tuple[str, dict[str, Any]]] = []
        for op in TimelineOracle(timeline=self.timeline).operations("t1", said.strip(), known):
            text = op.get("text", "").rstrip(".") + (f" on {op['when']}" if "when" in op else "") + "."
            if op["op"] == "insert":
                calls.append(("Memory", {"content": text}))
            elif op["op"] == "update":
                patch = {"op": "replace", "path": "/content", "value": text}
                edit = {"json_doc_id": op["handle"], "planned_edits": op["mode"], "patches": [patch]}
                calls.append(("PatchDoc", edit))
            else:
                calls.append(("RemoveDoc", {"json_doc_id": op["handle"]}))
        return AIMessage(
            "", tool_calls=[tool_call(name=n, args=a, id=f"c{i}") for i, (n, a) in enumerate(calls)]
        )


class EmbeddedOnce(Embeddings):
    """An embedding model that is asked for a text's vector once, whoever needs it and however often."""

    def __init__(self, model: Embeddings) -> None:
        self._vector = lru_cache(50_000)(model.embed_query)

    def embed_query(self, text: str) -> list[float]:
        return self._vector(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vector(text) for text in texts]


class PeerWriter(ABC):
    """What a peer has in common: no ids, no turns kept word for word, nothing of its own to count."""

    told_ids = False

    def turns(self) -> None:
        return None

    def search_all(self, question: str, k: int) -> list[Item]:
        return self.search(question, k)

    @abstractmethod
    def search(self, question: str, k: int) -> list[Item]: ...

    def counts(self) -> Mapping[str, tuple[int, int]]:
        return {}


class Mem0Writer(PeerWriter):
    """`Memory.add(..., infer=True)`, an exchange a call; everything else as it comes."""

    def __init__(self, memory: Any, user: str) -> None:
        self._memory, self._user = memory, user

    def hear(self, session: Session, exchange: tuple[Turn, Turn]) -> None:
        messages = [{"role": turn.role, "content": turn.text} for turn in exchange]
        self._memory.add(messages, user_id=self._user, infer=True)

    def items(self) -> list[Item]:
        found = self._memory.get_all(filters={"user_id": self._user}, top_k=EVERYTHING)
        return [Item(key=each["id"], text=each["memory"]) for each in found["results"]]

    def search(self, question: str, k: int) -> list[Item]:
        found = self._memory.search(question, filters={"user_id": self._user}, top_k=k)
        return [Item(key=each["id"], text=each["memory"]) for each in found["results"]]


class LangMemWriter(PeerWriter):
    """`create_memory_store_manager(..., enable_deletes=True)` on InMemoryStore, an exchange a call."""

    def __init__(self, manager: Any, store: Any, user: str) -> None:
        self._manager, self._store, self._user = manager, store, user

    def hear(self, session: Session, exchange: tuple[Turn, Turn]) -> None:
        messages = [HumanMessage(exchange[0].text), AIMessage(exchange[1].text)]
        config = {"configurable": {"langgraph_user_id": self._user}}
        self._manager.invoke({"messages": messages}, config=config)

    def items(self) -> list[Item]:
        return self._found(self._store.search(("memories", self._user), limit=EVERYTHING))

    def search(self, question: str, k: int) -> list[Item]:
        return self._found(self._store.search(("memories", self._user), query=question, limit=k))

    def _found(self, items: Any) -> list[Item]:
        return [Item(key=each.key, text=each.value["content"]["content"]) for each in items]


def peers(
    script: Script, server: OpenAIServer, embeddings: Embeddings, folder: Path
) -> dict[str, Callable[[], Writers]]:
    """Who opens each peer; what is not installed fails when it is opened."""
    dimensions = len(embeddings.embed_query("dimensions"))

    def mem0(name: str, transitions: bool) -> Writers:
        os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder / name)}
        from mem0 import Memory  # type: ignore[import-not-found]

        served = {"api_key": "none", "openai_base_url": server.base_url}
        memory = Memory.from_config(
            {
                "llm": {"provider": "openai", "config": {"model": "chat", **served}},
                "embedder": {
                    "provider": "openai",
                    "config": {"model": "embedding", "embedding_dims": dimensions, **served},
                },
                "vector_store": {
                    "provider": "qdrant",
                    "config": {"path": str(folder / name / "qdrant"), "embedding_model_dims": dimensions},
                },
                "history_db_path": str(folder / name / "history.db"),
            }
        )

        @contextmanager
        def opened(told: Timeline) -> Iterator[Mem0Writer]:
            script.timeline, script.transitions = told, transitions
            yield Mem0Writer(memory, told.name)
            memory.delete_all(user_id=told.name)

        return opened

    def langmem() -> Writers:
        from langchain_openai import ChatOpenAI
        from langgraph.store.memory import InMemoryStore
        from langmem import create_memory_store_manager  # type: ignore[import-not-found]

        chat = ChatOpenAI(model="chat", base_url=server.base_url, api_key="none")  # type: ignore[arg-type]

        @contextmanager
        def opened(told: Timeline) -> Iterator[LangMemWriter]:
            script.timeline = told
            store = InMemoryStore(index={"dims": dimensions, "embed": embeddings})
            manager = create_memory_store_manager(chat, enable_deletes=True, store=store)
            yield LangMemWriter(manager, store, told.name)

        return opened

    return {
        "mem0": lambda: mem0("mem0", True),
        "mem0-plain": lambda: mem0("mem0-plain", False),
        "langmem": langmem,
    }


def ours(name: str, embeddings: Embeddings) -> Writers:
    """The graph's steps on the in-memory store, with the rules or with the same model."""
    store = InMemoryMemoryStore(embeddings=embeddings)
    if name == "rules":
        return graph_writers(store, lambda _: RulePolicy())
    return graph_writers(
        store, lambda told: ChatModelPolicy(TimelineOracle(timeline=told), fallback=None, timeout=None)
    )


def versions_of(name: str) -> dict[str, str]:
    """Of the packages whose work a system's figures show."""
    peer = {"mem0": "mem0ai", "mem0-plain": "mem0ai", "langmem": "langmem"}.get(name)
    return {"memgraph_plugin": __version__} | ({peer: version(peer)} if peer else {})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--cases", type=int, default=500, help="timelines, seeds from --first on")
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    options.add_argument("--embeddings", default="local:minilm", help='"hashing" needs no model')
    options.add_argument("--k", type=int, default=10)
    options.add_argument(
        "--output", type=Path, help="JSON; done cases are kept in OUTPUT.NAME.cases, for the same settings"
    )
    chosen = options.parse_args()
    timelines = [timeline(seed) for seed in range(chosen.first, chosen.first + chosen.cases)]
    hashing = chosen.embeddings == "hashing"
    embeddings = EmbeddedOnce(HashingEmbeddings() if hashing else load_embeddings(chosen.embeddings))
    console, script, reports = Console(), Script(), []
    script_mark = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    settings = {"embeddings": chosen.embeddings, "script": script_mark}
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        server = opened.enter_context(OpenAIServer(script, embeddings=embeddings))
        beside = peers(script, server, embeddings, folder)
        for name in chosen.systems:
            try:
                writers = beside[name]() if name in beside else ours(name, embeddings)
            except ImportError as error:
                console.print(f"{name} is left out: {error}")
                continue
            kept = chosen.output and chosen.output.with_name(f"{chosen.output.name}.{name}.cases")

            def tell(done: int, of: int, name: str = name) -> None:
                if done % 10 == 0 or done == of:
                    print(f"{name}: {done} of {of}", file=sys.stderr, flush=True)

            used = {**settings, "versions": versions_of(name)}
            report = evaluate(
                name, writers, timelines, k=chosen.k, resume=kept, settings=used,
                unseen=() if name == "rules" else NEVER_PROPOSED, progress=tell,
            )  # fmt: skip
            reports.append(report)
    if reports:
        console.print(memory_writing_table(reports))
    if chosen.output:
        today = date.today().isoformat()
        figures = [{**report.to_json(), "date": today} for report in reports]
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
