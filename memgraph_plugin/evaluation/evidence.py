"""Do clues find the evidence? Recall within a token budget, with and without them, by who drafts them.

Tasks: HotpotQA's distractor questions (gold paragraphs among all questions' paragraphs; arXiv 1809.09600),
QMSum's queries (the turns of the relevant spans; arXiv 2104.05938), and probes over whole books (a passage
for each evidence string). A need is a paragraph, a span or a string, and is met by any passage of it.

What is compared, on the same store and budget: `query`, the question alone; `hyde`, with a draft of a model
that remembers nothing (arXiv 2212.10496); `spans`, `questions`, `both` and `draft`, clues of a kind from the
document's memory; `routed`, as the graph does it; `oracle`, with the evidence itself for a clue, which no
drafter can beat by much.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from langchain_core.messages import HumanMessage

from memgraph_plugin.evaluation.bootstrap import interval
from memgraph_plugin.jsonl import read_jsonl
from memgraph_plugin.memorag.clues import Ask, ClueDrafter, Scenario
from memgraph_plugin.nodes.recall_clues import Way, recall_by_clues
from memgraph_plugin.nodes.scope import Scope
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.ranking import within_budget
from memgraph_plugin.types import Clue, ClueKind, Insert, Namespace

if TYPE_CHECKING:
    from rich.table import Table

System: TypeAlias = Literal["query", "hyde", "spans", "questions", "both", "draft", "routed", "oracle"]

SYSTEMS: tuple[System, ...] = get_args(System)

KINDS: Mapping[System, tuple[ClueKind, ...]] = {
    "hyde": ("draft",),
    "spans": ("span",),
    "questions": ("question",),
    "both": ("span", "question"),
    "draft": ("span", "question", "draft"),
    "routed": ("span", "question", "entity"),
}


Drafters: TypeAlias = Callable[[str | None, tuple[ClueKind, ...]], ClueDrafter]
"""Who makes a drafter for the memory of a document, or of nothing, and the kinds of clues."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A question, the document whose memory may help, and what must be brought for it.

    Args:
        needs: each satisfied by any one of these passages' keys.
        evidence: the words of the evidence, for `oracle`.
    """

    question: str
    scenario: Scenario
    document: str
    needs: tuple[frozenset[str], ...]
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """Cases over the same passages, and the documents' texts."""

    name: str
    passages: tuple[Insert, ...]
    documents: Mapping[str, str]
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a system brought: recall and seconds of drafting of each case, and how many clues it had."""

    recall: tuple[float, ...]
    seconds: tuple[float, ...]
    clues: int


@dataclass(frozen=True, slots=True)
class Report:
    task: str
    budget: int
    found: Mapping[System, Found]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": "evidence",
            "task": self.task,
            "token_budget": self.budget,
            "systems": {
                name: {
                    "recall": round(100 * fmean(found.recall), 1),
                    "interval": [round(100 * end, 1) for end in interval(found.recall, fmean)],
                    "seconds": round(fmean(found.seconds), 2),
                    "clues": found.clues,
                    "cases": len(found.recall),
                }
                for name, found in self.found.items()
            },
            "settings": dict(self.settings),
        }


def evaluate(
    store: MemoryStore,
    task: Task,
    systems: Sequence[System],
    drafter: Drafters,
    *,
    k: int = 10,
    budget: int = 1200,
    namespace: Namespace = ("evidence",),
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Store a task's passages, and search for the evidence of each of its questions by each system.

    What a drafter once said to a request serves all systems that ask the same; its seconds count for each.
    """
    for start in range(0, len(task.passages), 64):
        store.apply(namespace, task.passages[start : start + 64], actor="evaluation")
    scope = Scope(store, namespace, None, None, datetime.now(UTC), lambda _: None)
    recall: dict[System, list[float]] = {name: [] for name in systems}
    seconds: dict[System, list[float]] = {name: [] for name in systems}
    drafted: dict[System, int] = dict.fromkeys(systems, 0)
    for number, case in enumerate(task.cases):
        hits = store.recall(namespace, case.question, k=k)
        said: dict[Any, Any] = {}
        # Who asks for most kinds goes first: they are drafted in one pass.
        for name in sorted(systems, key=lambda name: -len(KINDS.get(name, ()))):
            brought, document = hits, None if name == "hyde" else case.document
            source = _Sharing(drafter, said, document, KINDS.get(name, ()), always=name != "routed")
            if name != "query":
                way = Way(k=k, token_budget=budget, scenario=None if name == "routed" else case.scenario)
                asked = _Oracle(case) if name == "oracle" else source
                recalled = recall_by_clues(scope, [HumanMessage(case.question)], hits, asked, way)
                brought, drafted[name] = list(recalled.hits), drafted[name] + len(recalled.clues)
            recall[name].append(reward(case, [hit.memory.key for hit in within_budget(brought, budget)]))
            seconds[name].append(source.seconds)
        if progress:
            progress(number + 1, len(task.cases))
    found = {name: Found(tuple(recall[name]), tuple(seconds[name]), drafted[name]) for name in systems}
    return Report(task.name, budget, found, settings or {})


def reward(case: Case, keys: Sequence[str]) -> float:
    """What a drafter is rewarded with: the share of the needs that these passages meet, 0..1."""
    return fmean(bool(need & set(keys)) for need in case.needs)


def evidence_table(report: Report) -> Table:
    """The report as people read it."""
    from rich.table import Table

    caption = f"{report.task}: evidence within {report.budget:,} tokens; 95 % interval over cases"
    shown = Table(caption=caption)
    for column in ("", "cases", "recall %", "interval", "clues", "s to draft"):
        shown.add_column(column, justify="right")
    for name, found in report.to_json()["systems"].items():
        low, high = found["interval"]
        figures = (found["cases"], found["recall"], f"{low} to {high}", found["clues"], found["seconds"])
        shown.add_row(name, *map(str, figures))
    return shown


# The tasks.


def hotpotqa(path: Path, limit: int) -> Task:
    """Two gold paragraphs a question, among those of all questions; a question's own are its document."""
    passages: dict[str, Insert] = {}
    documents, cases = {}, []
    for item in read_jsonl(path)[:limit]:
        needs, evidence, text = [], [], []
        for position, passage in enumerate(item["passages"]):
            key = f"{item['id']}:{position}"
            said = f"{passage['title']}: {''.join(passage['sentences']).strip()}"
            text.append(said)
            passages[key] = Insert(key=key, kind="passage", text=said, session=item["id"], position=position)
            if passage["supporting"]:
                needs.append(frozenset({key}))
                place = item["titles_gold"].index(passage["title"])
                evidence += [passage["sentences"][i].strip() for i in item["supporting_sentence_idx"][place]]
        documents[item["id"]] = "\n\n".join(text)
        cases.append(_case(item["question"], "multi_hop", item["id"], needs, evidence))
    return Task("HotpotQA", tuple(passages.values()), documents, tuple(cases))


def qmsum(path: Path, limit: int) -> Task:
    """Queries about a part of a meeting: each relevant span of turns is a need; turns are passages."""
    passages, documents, cases = [], {}, []
    for meeting in read_jsonl(path)[:limit]:
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["turns"]]
        keys = [f"{meeting['id']}:{position}" for position in range(len(turns))]
        passages += [
            Insert(key=key, kind="passage", text=text, session=meeting["id"], position=position)
            for position, (key, text) in enumerate(zip(keys, turns, strict=True))
        ]
        documents[meeting["id"]] = "\n".join(turns)
        for asked in meeting["specific"]:
            spans = [range(int(first), int(last) + 1) for first, last in asked["relevant_text_span"]]
            needs = [frozenset(keys[i] for i in span if i < len(keys)) for span in spans]
            evidence = [asked["answer"]]
            cases.append(_case(asked["query"], "aggregation", meeting["id"], needs, evidence))
    return Task("QMSum", tuple(passages), documents, tuple(cases))


def books(path: Path, limit: int) -> Task:
    """Probes over whole books, which lie beside the file; several questions of a probe are one case each."""
    from memgraph_plugin.documents import read_document
    from memgraph_plugin.integrations.llama_index import passages_of

    kinds: dict[str, Scenario] = {
        "vague_intent": "vague",
        "multi_hop": "multi_hop",
        "aggregation": "aggregation",
        "personalisation": "personal",
        "conversational": "conversation",
    }
    probes = read_jsonl(path)[:limit]
    texts = {name: read_document(path.with_name(name)) for name in {probe["book"] for probe in probes}}
    passages = {name: passages_of(document) for name, document in texts.items()}
    cases = []
    for probe in probes:
        asked = probe["question"] if isinstance(probe["question"], list) else [probe["question"]]
        evidence = probe["evidence_strings"]
        pairs = zip(asked, evidence, strict=True) if len(asked) > 1 else [(asked[0], evidence)]
        for question, strings in pairs:
            wanted = [strings] if isinstance(strings, str) else strings
            needs = [
                frozenset(str(each.key) for each in passages[probe["book"]] if string in each.text)
                for string in wanted
            ]
            said = [_sentence(texts[probe["book"]].text, string) for string in wanted]
            cases.append(_case(question, kinds[probe["scenario"]], probe["book"], needs, said))
    everything = tuple(passage for each in passages.values() for passage in each)
    return Task("Books", everything, {name: each.text for name, each in texts.items()}, tuple(cases))


def _sentence(text: str, string: str) -> str:
    """The first sentence that has the string; "" where none has."""
    place = text.find(string)
    if place < 0:
        return ""
    before = max(text.rfind(end, 0, place) for end in (". ", "! ", "? ", "\n\n"))
    after = re.search(r"[.!?]\s|\n\n", text[place:])
    return " ".join(text[before + 1 : place + after.end() if after else None].split()).lstrip(". ")


TASKS: Mapping[str, Callable[[Path, int], Task]] = {"hotpotqa": hotpotqa, "qmsum": qmsum, "books": books}
"""By name: what makes a task of a file and so many of its lines."""


@dataclass(frozen=True, slots=True)
class _Oracle:
    """Drafts the evidence itself."""

    case: Case
    name = "oracle"

    def draft(self, _: Ask) -> list[Clue]:
        return [Clue("span", text) for text in self.case.evidence]

    async def adraft(self, ask: Ask) -> list[Clue]:
        return self.draft(ask)


@dataclass
class _Sharing:
    """Clues of some kinds, out of what was `said` for the case already, or else from a drafter.

    With `always` it is not told what the question found, for which it might draft nothing.
    """

    drafter: Drafters
    said: dict[tuple[str | None, Ask, ClueKind], tuple[list[Clue], float]]
    document: str | None
    kinds: tuple[ClueKind, ...]
    always: bool
    seconds: float = 0.0
    name = "shared"

    def draft(self, ask: Ask) -> list[Clue]:
        ask = replace(ask, now=None, nearest=None if self.always else ask.nearest)
        keys = {kind: (self.document, ask, kind) for kind in self.kinds}
        missing = tuple(kind for kind in self.kinds if keys[kind] not in self.said)
        if missing:
            began = time.perf_counter()
            clues = self.drafter(self.document, missing).draft(ask)
            each = (time.perf_counter() - began) / len(missing)
            for kind in missing:
                self.said[keys[kind]] = [clue for clue in clues if clue.kind == kind], each
        self.seconds += sum(self.said[key][1] for key in keys.values())
        return [clue for key in keys.values() for clue in self.said[key][0]]

    async def adraft(self, ask: Ask) -> list[Clue]:
        return self.draft(ask)


def _case(
    question: str,
    scenario: Scenario,
    document: str,
    needs: Sequence[frozenset[str]],
    evidence: Sequence[str],
) -> Case:
    return Case(
        question=question,
        scenario=scenario,
        document=document,
        needs=tuple(need for need in needs if need),
        evidence=tuple(evidence),
    )
