"""LoCoMo by retrieval alone: how much of the gold evidence does `recall` bring, without any language model?

Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents" (arXiv 2402.17753).
Categories go by number, since published tables mislabel them: 1 multi-hop, 2 temporal, 3 open-domain,
4 single-hop, 5 adversarial. Recall is fractional: the share of a question's evidence turns among the first k.
Main figures are of categories 1 to 4. Evidence that names no turn is dropped, and a question without any.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from memgraph_plugin.evaluation import bootstrap
from memgraph_plugin.ingestion import ingest, locomo_samples, read_conversations
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.ranking import within_budget
from memgraph_plugin.types import Hit

if TYPE_CHECKING:
    from rich.table import Table

CUTOFFS = (1, 5, 10, 20)
BUDGETS = (500, 1_000, 2_000)
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
MAIN = (1, 2, 3, 4)
DEEPEST = 200
"""Hits asked for: enough to fill the largest budget with short turns."""


@dataclass(frozen=True, slots=True)
class Question:
    conversation: str
    text: str
    category: int
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What retrieval brought for one question: keys, best first, and those within each token budget."""

    question: Question
    found: tuple[str, ...]
    within: Mapping[int, frozenset[str]]

    def recall(self, found: Iterable[str]) -> float:
        return len(self.question.evidence & set(found)) / len(self.question.evidence)

    def reciprocal_rank(self) -> float:
        ranks = (rank for rank, key in enumerate(self.found, start=1) if key in self.question.evidence)
        return 1 / next(ranks, float("inf"))


@dataclass(frozen=True, slots=True)
class Report:
    answers: tuple[Answer, ...]
    seconds: float
    settings: Mapping[str, Any]

    @property
    def main(self) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if answer.question.category in MAIN)

    def of(self, category: int) -> tuple[Answer, ...]:
        return tuple(answer for answer in self.answers if answer.question.category == category)

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": "locomo",
            "n_questions": len(self.main),
            "recall": {str(k): recall_at(self.main, k) for k in CUTOFFS},
            "recall_interval_10": list(interval(self.main, lambda answers: recall_at(answers, 10))),
            "recall_by_category": {str(c): recall_at(self.of(c), 10) for c in CATEGORIES if self.of(c)},
            "mrr": _percent(answer.reciprocal_rank() for answer in self.main),
            "recall_at_tokens": {str(budget): recall_within(self.main, budget) for budget in BUDGETS},
            "seconds": round(self.seconds, 2),
            "settings": dict(self.settings),
        }


def evaluate(
    store: MemoryStore,
    path: Path,
    *,
    namespace: tuple[str, ...] = ("locomo",),
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Store each conversation's turns under its own namespace, and recall every question's evidence.

    `progress` is called with done and all, over turns and questions together; `seconds` is the wall time.
    """
    conversations = read_conversations(path)
    questions = read_questions(path, conversations)
    total = sum(map(len, conversations.values())) + len(questions)
    began = time.perf_counter()
    done = 0
    for sample, turns in conversations.items():
        start = done

        def report(stored: int, _: int, start: int = start) -> None:
            if progress:
                progress(start + stored, total)

        ingest(store, (*namespace, sample), turns, progress=report)
        done += len(turns)
    answers = []
    for question in questions:
        answers.append(
            answer_of(question, store.recall((*namespace, question.conversation), question.text, k=DEEPEST))
        )
        done += 1
        if progress:
            progress(done, total)
    return Report(tuple(answers), time.perf_counter() - began, settings or {})


def reward(answer: Answer, k: int = 10) -> float:
    """What a memory policy is rewarded with: the fraction of the evidence among the first `k`, 0..1."""
    return answer.recall(answer.found[:k])


def read_questions(path: Path, conversations: Mapping[str, Sequence[Any]]) -> list[Question]:
    """The questions with evidence that names turns; nine of LoCoMo's evidence strings do not."""
    questions = []
    for sample in locomo_samples(path.read_text(encoding="utf-8"), path):
        keys = {turn.key for turn in conversations[sample["sample_id"]]}
        for item in sample["qa"]:
            evidence = keys.intersection(re.findall(r"D\d+:\d+", json.dumps(item["evidence"])))
            if evidence:
                questions.append(
                    Question(sample["sample_id"], item["question"], item["category"], frozenset(evidence))
                )
    return questions


def recall_at(answers: Sequence[Answer], k: int) -> float:
    """Mean fractional recall among the first `k`, in percent."""
    return _percent(answer.recall(answer.found[:k]) for answer in answers)


def recall_within(answers: Sequence[Answer], budget: int) -> float:
    """Mean fractional recall within a token budget, in percent."""
    return _percent(answer.recall(answer.within[budget]) for answer in answers)


def interval(answers: Sequence[Answer], measure: Callable[[Sequence[Answer]], float]) -> tuple[float, float]:
    """95 % bootstrap interval over conversations, which are the independent units."""
    by_conversation: dict[str, list[Answer]] = {}
    for answer in answers:
        by_conversation.setdefault(answer.question.conversation, []).append(answer)
    groups = list(by_conversation.values())
    return bootstrap.interval(groups, lambda drawn: measure([each for group in drawn for each in group]))


def table(report: Report) -> Table:
    """The report as people read it."""
    from rich.table import Table

    shown = Table(title="LoCoMo: evidence recalled, in percent", caption=_caption(report))
    depths = [f"@{k}" for k in CUTOFFS] + ["MRR"] + [f"{budget}t" for budget in BUDGETS]
    for column in ("category", "n", *depths):
        shown.add_column(column, justify="right")
    rows = [("1-4", report.main)] + [(str(category), report.of(category)) for category in CATEGORIES]
    for name, answers in rows:
        if answers:
            figures = [
                *(recall_at(answers, k) for k in CUTOFFS),
                _percent(answer.reciprocal_rank() for answer in answers),
                *(recall_within(answers, budget) for budget in BUDGETS),
            ]
            shown.add_row(name, str(len(answers)), *(f"{figure:.1f}" for figure in figures))
    return shown


def _caption(report: Report) -> str:
    low, high = interval(report.main, lambda answers: recall_at(answers, 10))
    names = ", ".join(f"{category} {name}" for category, name in CATEGORIES.items())
    return (
        f"@10 of categories 1-4: 95 % interval over conversations {low:.1f} to {high:.1f}. "
        f"500t: within 500 tokens. {names}. {report.seconds:.0f} s"
    )


def answer_of(question: Question, hits: Sequence[Hit]) -> Answer:
    """What was found, by its keys and within each budget."""
    within = {budget: frozenset(hit.memory.key for hit in within_budget(hits, budget)) for budget in BUDGETS}
    return Answer(question, tuple(hit.memory.key for hit in hits), within)


def _percent(shares: Iterable[float]) -> float:
    return round(100 * fmean(list(shares) or [0.0]), 2)
