"""LoCoMo with memories beside its turns: how small they are, and whether they help to find the evidence.

A policy hears each conversation two turns at a time; both speakers count as users, by their names. A memory
that is found stands for the turns that it was learnt from: they come in its place, each once, at its best
place, and take up a place among the first k and their own tokens of a budget. So with memories as without,
so many turns are counted, and a memory is worth what it points to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from memgraph_plugin.evaluation import bootstrap
from memgraph_plugin.evaluation.locomo import (
    BUDGETS,
    CUTOFFS,
    DEEPEST,
    Answer,
    Report,
    answer_of,
    read_questions,
    recall_at,
    recall_within,
)
from memgraph_plugin.evaluation.locomo import interval as interval_of
from memgraph_plugin.ingestion import ingest, read_conversations
from memgraph_plugin.memalpha.form import WRITABLE
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.validation import validate
from memgraph_plugin.nodes.decide import NEWEST, similar_to
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Hit, Insert, Memory, Namespace, Turn

if TYPE_CHECKING:
    from rich.table import Table

HEARD = 2
"""Turns that a policy hears at a time."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Recall of the evidence by turns alone, and with memories; how many these are, and of how much."""

    turns: Report
    both: Report
    memories: int
    tokens_kept: int
    tokens_read: int

    def gain(self, k: int) -> tuple[float, float, float]:
        """By how much memories raise recall among the first k, and its 95 % interval over conversations."""
        pairs: dict[str, list[tuple[float, float]]] = {}
        for with_, without in zip(self.both.main, self.turns.main, strict=True):
            found = (with_.recall(with_.found[:k]), without.recall(without.found[:k]))
            pairs.setdefault(with_.question.conversation, []).append(found)

        def measure(drawn: Sequence[list[tuple[float, float]]]) -> float:
            return 100 * fmean(with_ - without for each in drawn for with_, without in each)

        low, high = bootstrap.interval(list(pairs.values()), measure)
        return measure(list(pairs.values())), low, high

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": "locomo-memories",
            "turns": self.turns.to_json(),
            "with_memories": self.both.to_json(),
            "gain": {str(k): [round(figure, 2) for figure in self.gain(k)] for k in CUTOFFS},
            "memories": self.memories,
            "tokens_kept": self.tokens_kept,
            "tokens_read": self.tokens_read,
        }


def evaluate(
    store: MemoryStore,
    path: Path,
    policy: Policy,
    *,
    namespace: Namespace = ("locomo",),
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Compared:
    """Store each conversation's turns and what a policy makes of them, and recall by either."""
    conversations = read_conversations(path)
    questions = read_questions(path, conversations)
    total, done = sum(map(len, conversations.values())) + len(questions), 0
    began = time.perf_counter()
    alone: list[Answer] = []
    both: list[Answer] = []
    kept: list[Memory] = []
    for sample, inserts in conversations.items():
        here = (*namespace, sample)
        ingest(store, here, inserts)
        for heard in _heard(inserts):
            _write(store, here, policy, heard)
            done += len(heard)
            if progress:
                progress(done, total)
        memories = [hit.memory for hit in store.recall(here, "", k=len(inserts), kinds=WRITABLE)]
        kept += memories
        turns = {hit.memory.key: hit for hit in store.recall(here, "", k=len(inserts), kinds=("turn",))}
        sources = {each.key: store.history(here, each.key)[-1].evidence for each in memories}
        for question in questions:
            if question.conversation != sample:
                continue
            alone.append(answer_of(question, store.recall(here, question.text, k=DEEPEST, kinds=("turn",))))
            found = store.recall(here, question.text, k=DEEPEST)
            both.append(answer_of(question, list(_pointed_at(found, sources, turns))))
            done += 1
            if progress:
                progress(done, total)
    seconds = time.perf_counter() - began
    used = {**(settings or {}), "policy": policy.name}
    read = sum(estimate_tokens(insert.text) for each in conversations.values() for insert in each)
    written = sum(estimate_tokens(memory.text) for memory in kept)
    turns_alone, with_memories = (Report(tuple(each), seconds, used) for each in (alone, both))
    return Compared(turns_alone, with_memories, len(kept), written, read)


def locomo_memories_table(compared: Compared) -> Table:
    """The comparison as people read it."""
    from rich.table import Table

    gain, low, high = compared.gain(10)
    share = 100 * compared.tokens_kept / compared.tokens_read
    shown = Table(
        title="LoCoMo, categories 1-4: evidence recalled, in percent",
        caption=f"@10: {gain:+.1f} with memories, 95 % interval over conversations {low:+.1f} to {high:+.1f}."
        f" {compared.memories:,} memories, {share:.1f} % of the tokens read.",
    )
    for column in ("", *(f"@{k}" for k in CUTOFFS), *(f"{budget}t" for budget in BUDGETS), "interval @10"):
        shown.add_column(column, justify="right")
    for name, report in (("turns", compared.turns), ("turns and memories", compared.both)):
        figures = [recall_at(report.main, k) for k in CUTOFFS]
        figures += [recall_within(report.main, budget) for budget in BUDGETS]
        ends = interval_of(report.main, lambda answers: recall_at(answers, 10))
        shown.add_row(name, *(f"{each:.1f}" for each in figures), f"{ends[0]:.1f} to {ends[1]:.1f}")
    return shown


def _heard(inserts: Sequence[Insert]) -> Iterator[list[Turn]]:
    """The turns as a policy hears them, a few of one session at a time."""
    sessions: dict[str | None, list[Insert]] = {}
    for insert in inserts:
        sessions.setdefault(insert.session, []).append(insert)
    for session in sessions.values():
        for start in range(0, len(session), HEARD):
            yield [
                Turn(
                    key=str(each.key),
                    role="user",
                    text=str(each.value["text"]),
                    at=each.valid_from,
                    speaker=str(each.value["speaker"]),
                )
                for each in session[start : start + HEARD]
                if each.valid_from
            ]


def _write(store: MemoryStore, here: Namespace, policy: Policy, turns: Sequence[Turn]) -> None:
    hits = [
        *store.recall(here, similar_to(turns), k=20, kinds=WRITABLE),
        *store.recall(here, "", k=NEWEST, kinds=WRITABLE),
    ]
    memories = list({hit.memory.key: hit.memory for hit in hits}.values())
    accepted = validate(policy.propose(turns, memories), turns, memories).accepted
    store.apply(here, accepted, actor="evaluation", policy=policy.name)


def _pointed_at(
    found: Sequence[Hit], sources: Mapping[str, Sequence[str]], turns: Mapping[str, Hit]
) -> Iterator[Hit]:
    """Turns only: in place of a memory, those that it was learnt from, unless they came before."""
    seen: set[str] = set()
    for hit in found:
        for key in sources.get(hit.memory.key, (hit.memory.key,)):
            if key in turns and key not in seen:
                seen.add(key)
                yield replace(turns[key], score=hit.score)
