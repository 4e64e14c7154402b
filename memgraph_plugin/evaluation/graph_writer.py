"""Our own steps as a writer of memories: what the graph does after an answer, without a graph.

Each write is looked at again by a check that shares nothing with the validator: what the store holds
after it.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from memgraph_plugin.evaluation.told import Item
from memgraph_plugin.memalpha.form import WRITABLE
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.timelines import Session, Timeline
from memgraph_plugin.memalpha.words import words
from memgraph_plugin.nodes.apply import write
from memgraph_plugin.nodes.decide import decide_exchange
from memgraph_plugin.nodes.scope import Scope
from memgraph_plugin.nodes.transcript import turn_key
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Hit, Memory, MemoryVersion, Namespace, Turn

EVERYTHING = 1_000
"""More memories than one timeline makes."""

_ORDER = re.compile(r"\b(?:ignore|disregard)\b.*\binstructions?\b|\bassistant must\b|^system:", re.I)

_MONTHS = "|".join(calendar.month_name[1:])
_DAY = re.compile(rf"\b(?:\d{{4}}-\d\d-\d\d|\d{{1,2}} (?:{_MONTHS})(?: \d{{4}})?)\b")


class GraphWriter:
    """Decides and applies, exchange by exchange, in a namespace of a timeline's own."""

    told_ids = True

    def __init__(self, store: MemoryStore, policy: Policy, namespace: Namespace) -> None:
        self._store, self._policy, self._namespace = store, policy, namespace
        self._faults = self._writes = self._heard = self._fell_back = 0
        self._said: dict[str, Turn] = {}
        self._now: dict[str, Memory] = {}

    def hear(self, session: Session, exchange: tuple[Turn, Turn]) -> None:
        messages: list[AnyMessage] = [
            HumanMessage(exchange[0].text, id=exchange[0].key),
            AIMessage(exchange[1].text, id=exchange[1].key),
        ]
        for turn in exchange:
            self._said[turn_key(session.key, turn.key)] = turn
        scope = self._scope(session, exchange[0].at)
        decision = decide_exchange(scope, messages, self._policy)
        self._heard += 1
        self._fell_back += decision.policy not in ("", self._policy.name)
        write(scope, messages, decision)
        before, self._now = self._now, self._memories()
        self._check(before, self._now)

    def items(self) -> list[Item]:
        return [_item(memory) for memory in self._now.values()]

    def search(self, question: str, k: int) -> list[Item]:
        return _items(self._store.recall(self._namespace, question, k=k, kinds=WRITABLE))

    def search_all(self, question: str, k: int) -> list[Item]:
        return _items(self._store.recall(self._namespace, question, k=k))

    def turns(self) -> list[str]:
        hits = self._store.recall(self._namespace, "", k=EVERYTHING, kinds=("turn",))
        return [hit.memory.text for hit in hits]

    def counts(self) -> dict[str, tuple[int, int]]:
        return {"invalid": (self._faults, self._writes), "fell_back": (self._fell_back, self._heard)}

    def _scope(self, session: Session, now: datetime) -> Scope:
        return Scope(self._store, self._namespace, session.key, session.key, now, lambda _: None)

    def _memories(self) -> dict[str, Memory]:
        hits = self._store.recall(self._namespace, "", k=EVERYTHING, kinds=WRITABLE)
        return {hit.memory.key: hit.memory for hit in hits}

    def _check(self, before: dict[str, Memory], after: dict[str, Memory]) -> None:
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        for key in changed:
            versions = self._store.history(self._namespace, key)
            self._writes += 1
            self._faults += bool(fault_of(versions, before.get(key), after.get(key), self._said))


def fault_of(
    versions: Sequence[MemoryVersion], before: Memory | None, after: Memory | None, said: dict[str, Turn]
) -> str:
    """What is wrong with the newest version of a memory: "" where nothing is.

    Its version follows the one before; its evidence are turns that were said, one by the user; and its words
    with a capital and its numbers stand in these, or stood in it before. Days are left aside: who turns
    "yesterday" into one is right. So are numbers in words.
    """
    last = versions[-1]
    if last.version != (before.version if before else 0) + 1 or (after is None) != (last.memory is None):
        return "version"
    turns = [said[key] for key in last.evidence if key in said]
    if len(turns) != len(last.evidence) or all(turn.role != "user" for turn in turns):
        return "evidence"
    if after is None:
        return ""
    if after.kind not in WRITABLE or _ORDER.search(after.text):
        return "content"
    heard = [*(turn.text for turn in turns), before.text if before else ""]
    spoken = {word for text in heard for word in words(text)}
    named = re.findall(r"(?<=[^.!?] )[A-Z][\w'’-]*", after.text)
    unheard = [word for name in named for word in words(name) if word not in spoken]
    undated = _DAY.sub("", after.text)
    invented = _numbers(undated) - {number for text in heard for number in _numbers(text)}
    return "grounding" if invented or [word for word in unheard if word in words(undated)] else ""


def _numbers(text: str) -> set[str]:
    """As they are written, but for commas within: "1,000" is 1000."""
    return set(re.findall(r"\d+", re.sub(r"(?<=\d),(?=\d{3})", "", text)))


def graph_writers(
    store: MemoryStore, policy: Callable[[Timeline], Policy]
) -> Callable[[Timeline], AbstractContextManager[GraphWriter]]:
    """Makes writers in one store, each in a namespace that is erased when its timeline is done."""

    @contextmanager
    def open_writer(timeline: Timeline) -> Iterator[GraphWriter]:
        namespace = ("memory-writing", timeline.name)
        try:
            yield GraphWriter(store, policy(timeline), namespace)
        finally:
            store.forget(namespace)

    return open_writer


def _items(hits: Sequence[Hit]) -> list[Item]:
    return [_item(hit.memory) for hit in hits]


def _item(memory: Memory) -> Item:
    subject = memory.value.get("subject")
    return Item(
        key=memory.key,
        text=memory.text,
        subject=subject if isinstance(subject, str) else "",
        since=memory.valid_from.date() if memory.valid_from else None,
    )
