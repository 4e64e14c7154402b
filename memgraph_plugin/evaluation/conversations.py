"""Do clues bring the words that a question in a conversation leaves out? TREC CAsT 2019 (arXiv 2003.13624).

Each turn is there as the user typed it (raw) and as it would be asked by itself (resolved); there are no
passages. What a resolved question has besides the raw one, its added words, is what a search lacks.

Recall is the share of the added words that is found in what is searched for; precision is the share of the
searched words that is in the resolved question. Words are folded to small letters, without the most common
English ones. What is searched for: `raw`; with `last` also the user's turn before; with `all` those before
that; with `clues` those that a drafter makes of the last turns, as `recall_clues` takes them; `oracle`, the
resolved question. Turns that add no word are left out.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from langchain_core.messages import HumanMessage

from memgraph_plugin.evaluation.bootstrap import interval
from memgraph_plugin.jsonl import read_jsonl
from memgraph_plugin.memorag.clues import PLANS, Ask, ClueDrafter, example, tidy
from memgraph_plugin.nodes.recall_clues import TURNS
from memgraph_plugin.nodes.transcript import said_before

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger(__name__)

Searched: TypeAlias = Literal["raw", "last", "all", "clues", "oracle"]

SEARCHED: tuple[Searched, ...] = get_args(Searched)

_COMMON = """
a about after all also am an and any are as at be because been before being between both but by can
could did do does doing done down during each else ever few for from further get give had has have
having he her here hers him his how i if in into is it its just let like me more most my no nor not
now of off on once one ones only or other our out over own please same she should show so some such
tell than that the their them then there these they this those through to too under until up us very
was we were what when where which while who whom whose why will with would you your s t re ve ll d m
"""
COMMON = frozenset(_COMMON.split())
"""Words that say nothing of what a question is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A turn that leaves something out. `before` are the user's turns before it, in order."""

    conversation: str
    raw: str
    resolved: str
    before: tuple[str, ...]

    @property
    def added(self) -> frozenset[str]:
        """The words that the resolved question has and the raw one has not."""
        return words(self.resolved) - words(self.raw)


@dataclass(frozen=True, slots=True)
class Found:
    """What was searched for in each case, with its recall and precision, 0..1."""

    texts: tuple[tuple[str, ...], ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """`failed` are cases in which the drafter raised; they were searched for with the raw question."""

    cases: tuple[Case, ...]
    found: Mapping[Searched, Found]
    failed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        drafted = self.found.get("clues")
        return {
            "benchmark": "conversations",
            "task": "CAsT 2019",
            "cases": len(self.cases),
            "failed": self.failed,
            "searched": {
                name: {measure: self._figure(getattr(found, measure)) for measure in ("recall", "precision")}
                for name, found in self.found.items()
            },
            "settings": dict(self.settings),
            "drafted": [
                {"raw": case.raw, "resolved": case.resolved, "clues": list(texts[1:])}
                for case, texts in zip(self.cases, drafted.texts if drafted else (), strict=False)
            ],
        }

    def _figure(self, values: Sequence[float]) -> dict[str, Any]:
        """The mean, and its interval over conversations: turns of one are alike."""
        together: dict[str, list[float]] = defaultdict(list)
        for case, value in zip(self.cases, values, strict=True):
            together[case.conversation].append(value)

        def mean(units: Sequence[list[float]]) -> float:
            return fmean(value for unit in units for value in unit)

        ends = interval(list(together.values()), mean)
        return {"%": round(100 * fmean(values), 1), "interval": [round(100 * end, 1) for end in ends]}


def cast(path: Path, limit: int) -> list[Case]:
    """The turns of a file's first conversations that leave something out.

    Raises:
        ConfigurationError: the file is none of this task.
    """
    cases = []
    for conversation in read_jsonl(path, ("id", "turns"))[:limit]:
        before: tuple[str, ...] = ()
        for turn in conversation["turns"]:
            case = Case(
                conversation=conversation["id"], raw=turn["raw"], resolved=turn["resolved"], before=before
            )
            cases += [case] if case.added else []
            before = (*before, turn["raw"])
    return cases


def words(text: str) -> frozenset[str]:
    """The words of a text that say what it is about."""
    return frozenset(re.findall(r"[^\W_]+", text.casefold())) - COMMON


def evaluate(
    cases: Sequence[Case],
    searched: Sequence[Searched],
    drafter: Callable[[Case], ClueDrafter],
    *,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure each way to search on all cases; `drafter` gives one for a case."""
    texts: dict[Searched, list[tuple[str, ...]]] = {name: [] for name in searched}
    failed = 0
    for number, case in enumerate(cases, 1):
        for name in searched:
            more: Sequence[str] = ()
            if name == "clues":
                try:
                    more = _clues(case, drafter(case))
                except Exception as error:  # noqa: BLE001 - as `recall_clues`: the turn goes on without
                    logger.warning("No clues for %r: %s: %s", case.raw, type(error).__name__, error)
                    failed += 1
            elif name in ("last", "all"):
                more = case.before[-1:] if name == "last" else case.before
            texts[name].append((case.resolved,) if name == "oracle" else (case.raw, *more))
        if progress:
            progress(number, len(cases))
    found = {name: _measured(cases, texts[name]) for name in searched}
    return Report(tuple(cases), found, failed, settings or {})


def conversations_table(report: Report) -> Table:
    """The report as people read it."""
    from rich.table import Table

    failed = f"; no clues of {report.failed}, where the drafter failed" if report.failed else ""
    caption = f"CAsT 2019, {len(report.cases)} turns; 95 % interval over conversations{failed}"
    shown = Table(caption=caption)
    for column in ("", "added words found %", "interval", "precision %", "interval"):
        shown.add_column(column, justify="right")
    for name, figures in report.to_json()["searched"].items():
        row = []
        for measure in ("recall", "precision"):
            low, high = figures[measure]["interval"]
            row += [str(figures[measure]["%"]), f"{low} to {high}"]
        shown.add_row(name, *row)
    return shown


def _clues(case: Case, drafter: ClueDrafter) -> list[str]:
    """What would be searched for besides the question, in the scenario "conversation"."""
    limit = PLANS["conversation"].limit
    turns = said_before([HumanMessage(said) for said in (*case.before, case.raw)], TURNS)
    drafted = drafter.draft(Ask(query=case.raw, scenario="conversation", limit=limit, turns=turns))
    known = [case.raw, *example("conversation", case.raw).texts]
    return [clue.text for clue in tidy(drafted, unlike=known, limit=limit)]


def _measured(cases: Sequence[Case], texts: Sequence[tuple[str, ...]]) -> Found:
    recall, precision = [], []
    for case, searched in zip(cases, texts, strict=True):
        found = words(" ".join(searched))
        recall.append(len(case.added & found) / len(case.added))
        precision.append(len(words(case.resolved) & found) / len(found) if found else 0.0)
    return Found(tuple(texts), tuple(recall), tuple(precision))
