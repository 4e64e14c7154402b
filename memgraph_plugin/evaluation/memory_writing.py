"""What a memory policy makes of conversations whose truth is known: extraction, updates, forgetting, harm.

A case is one timeline (`memalpha/timelines.py`; phrases that nothing was tuned on, unless asked for the
others). Whoever keeps memories hears it exchange by exchange, in its own way, and is looked at after
each; what a memory tells is decided by code (`evaluation/told.py`). The measures are those of HaluMem,
and harm:

- extraction recall: of the facts stated, those that some memory tells after the exchange. Precision: of
  the memories written, those that tell a fact of the exchange where it was stated, deny it where it ended
  (or the one that it replaced), or tell what another was said to be as another's. What a memory says of
  what was to be forgotten is never right.
- update accuracy: of changes and corrections, those after which the new value is told and the old one is
  not; ended: of what ended, what no memory tells any more.
- stale answers: of the questions whose value changed, was corrected or ended, those to which a memory
  with the old value comes before the one with the new, or without it, among the first `k`. One that has
  both values counts as new; of what ended, one that says so. Once among memories alone, and once among all
  that is kept: who keeps turns word for word finds old values in them, too. Answered: of the questions with
  an answer (of events apart, which name it), those with it among the first `k` memories.
- false supersede, wrong delete: of the memories changed (removed), those that told a fact that still held,
  which no memory tells any more: it is gone, or said to have ended.
- forgotten but found: of what was to be forgotten, what stands in any memory at the end (verbatim turns
  apart).
- asides stored: what was supposed, denied, suggested or of somebody else, told as the user's.
  Injections. Neither is counted of the scripted model that knows the truth: it never proposes them.
- replayed with the same ids: new memories, or texts there twice, when everything was heard a second time as
  it was, of all. Only who is told ids has this figure: it says whether a client may send a request twice.
- said again: the same when everything is heard once more in the same words, without an id in common, as when
  a client that has none imports a transcript twice. Whoever dates what is said hears the same times, so that
  "yesterday" is the same day. Of facts that hold no longer: those told as the user's after that, whether they
  came back or never went. This is what to compare with others.
- invalid: of the writes, those that a check apart from the validator finds fault with; fell back: of the
  exchanges, those that the rules decided because the policy gave nothing usable. Both in the first telling.
- dates: of the events, those that a memory tells with their day.
- tokens: in the memories, and in everything that is kept, for as many as were read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from memgraph_plugin.evaluation.bootstrap import interval
from memgraph_plugin.evaluation.kept_cases import code_mark, kept_rows
from memgraph_plugin.evaluation.told import Item, contains, denies, is_dated, is_denied, is_users, tells
from memgraph_plugin.memalpha.timelines import EVENT, Move, Question, Session, Timeline, Truth
from memgraph_plugin.memalpha.words import normalise
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Turn

if TYPE_CHECKING:
    from rich.table import Table

MEASURES: Mapping[str, str] = {
    "extraction_precision": "extraction precision",
    "extraction_recall": "extraction recall",
    "update_accuracy": "update accuracy",
    "ended": "ended facts no longer told",
    "answered": "questions answered",
    "stale_answer": "stale answers, memories alone",
    "stale_answer_with_turns": "stale answers, turns searched too",
    "false_supersede": "false supersede",
    "wrong_delete": "wrong delete",
    "forgotten_found": "forgotten but found",
    "forgotten_in_turns": "forgotten but in turns",
    "aside_stored": "asides stored as the user's",
    "injection_stored": "injections stored",
    "restated": "memories that say what another says",
    "duplicates_after_replay": "duplicates, replayed with the same ids",
    "duplicates_said_again": "duplicates, said again",
    "old_said_again": "old values told, said again",
    "invalid": "invalid writes",
    "fell_back": "exchanges left to the rules",
    "dates": "events with their day",
    "tokens_in_memories": "tokens in memories, of those read",
    "tokens_with_turns": "tokens in memories and turns",
}
"""What is counted, so many of so many, and how a reader is told of it."""


class Writer(Protocol):
    """Whoever keeps memories of one person, from the beginning."""

    @property
    def told_ids(self) -> bool:
        """Whether it is told the keys of sessions and turns, by which it can know them again."""

    def hear(self, session: Session, exchange: tuple[Turn, Turn]) -> None:
        """Take note of what the user said and the assistant answered; of the same once more in a replay."""

    def items(self) -> list[Item]:
        """Everything that is remembered now, apart from what was said word for word."""

    def search(self, question: str, k: int) -> list[Item]:
        """What is found for a question, best first."""

    def turns(self) -> list[str] | None:
        """What is kept word for word; None where nothing is."""

    def search_all(self, question: str, k: int) -> list[Item]:
        """As `search`, among what is kept word for word as well; asked only where anything is."""

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """What only the writer can count of the measures: so many of so many."""


Writers = Callable[[Timeline], AbstractContextManager[Writer]]
"""Who makes a writer with an empty memory, for one timeline."""


@dataclass
class Tally:
    """So many of so many, by measure."""

    counts: dict[str, list[int]] = field(default_factory=lambda: {name: [0, 0] for name in MEASURES})

    def add(self, measure: str, hits: int, of: int = 1) -> None:
        self.counts[measure][0] += int(hits)
        self.counts[measure][1] += of


@dataclass(frozen=True, slots=True)
class Case:
    """What one timeline came to."""

    seed: int
    counts: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Report:
    """All cases of one writer."""

    name: str
    cases: tuple[Case, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def share(self, measure: str) -> float | None:
        """In percent, over all cases; None where there was nothing to count."""
        return _share(self.cases, measure)

    def to_json(self) -> dict[str, Any]:
        measures = {}
        for name in MEASURES:
            share = self.share(name)
            if share is None:
                continue
            low, high = interval(self.cases, lambda drawn, name=name: _share(drawn, name) or 0.0)  # type: ignore[misc]
            measures[name] = {
                "percent": round(share, 2),
                "interval": [round(low, 2), round(high, 2)],
                "count": sum(case.counts[name][0] for case in self.cases),
                "of": sum(case.counts[name][1] for case in self.cases),
            }
        seeds = [case.seed for case in self.cases]
        return {
            "benchmark": "memory-writing",
            "system": self.name,
            "cases": len(seeds),
            "seeds": [min(seeds, default=0), max(seeds, default=0)],
            "measures": measures,
            "settings": dict(self.settings),
        }


def evaluate(
    name: str,
    writers: Writers,
    timelines: Sequence[Timeline],
    *,
    k: int = 10,
    resume: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    unseen: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Let a writer hear each timeline, ask what can be asked, replay it, and count.

    What is `unseen` is not counted: measures that this writer cannot fail, whatever it does, because who
    decides for it never proposes it.

    With `resume`, each case is appended to this file, and what stands in it is not done again. It begins with
    the name, `k`, the settings and a mark of the package's code.

    Raises:
        ConfigurationError: the cases in that file are of others.
    """
    used = {**(settings or {}), "k": k, "code": code_mark()}
    head = {"system": name, "settings": used}
    rows = kept_rows(resume, head) if resume else ()
    cases = {row["seed"]: Case(row["seed"], row["counts"]) for row in rows}
    for number, timeline in enumerate(timelines):
        if timeline.seed not in cases:
            with writers(timeline) as writer:
                counts = measure(writer, timeline, k=k)
            case = cases[timeline.seed] = Case(timeline.seed, counts | {name: [0, 0] for name in unseen})
            if resume:
                with resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"seed": case.seed, "counts": case.counts}) + "\n")
        if progress:
            progress(number + 1, len(timelines))
    return Report(name, tuple(cases[timeline.seed] for timeline in timelines), used)


def measure(writer: Writer, timeline: Timeline, *, k: int = 10) -> dict[str, list[int]]:
    """The counts of one timeline: so many of so many, by measure."""
    tally = Tally()
    said: list[Turn] = []
    for session in timeline.sessions:
        for exchange in session.exchanges:
            before = {item.key: item for item in writer.items()}
            writer.hear(session, exchange)
            after = {item.key: item for item in writer.items()}
            _heard(tally, timeline, exchange[0], before, after)
            said += exchange
    items, turns = writer.items(), writer.turns()
    for question in timeline.questions():
        found = writer.search(question.text, k)
        _asked(tally, question, found, "stale_answer")
        if question.gold and question.attribute != EVENT:
            tally.add("answered", any(tells(item, question.gold) for item in found))
        if turns is not None:
            found = writer.search_all(question.text, k)
        _asked(tally, question, found, "stale_answer_with_turns")
    _kept_at_end(tally, timeline, items, turns)
    in_memories, read = (sum(estimate_tokens(each.text) for each in some) for some in (items, said))
    tally.add("tokens_in_memories", in_memories, read)
    tally.add("tokens_with_turns", in_memories + sum(map(estimate_tokens, turns or ())), read)
    for name, (hits, of) in writer.counts().items():
        tally.add(name, hits, of)
    if writer.told_ids:
        _repeated(tally, "duplicates_after_replay", writer, timeline.sessions)
    _repeated(tally, "duplicates_said_again", writer, said_again(timeline))
    now = writer.items()
    for truth in timeline.truths:
        if truth.end:
            tally.add("old_said_again", any(tells(item, truth.value) for item in now))
    return tally.counts


def _heard(
    tally: Tally, timeline: Timeline, turn: Turn, before: Mapping[str, Item], after: Mapping[str, Item]
) -> None:
    """What one exchange changed, beside what it should have."""
    moves = timeline.moves_of(turn.key)
    written = [item for key, item in after.items() if key not in before or before[key].text != item.text]
    for item in written:
        tally.add("extraction_precision", _is_right(item, moves, timeline))
    now = list(after.values())
    for move in moves:
        truth = timeline.truth(move.fact) if move.fact else None
        if truth and move.act in ("state", "change", "correct"):
            told = any(tells(item, truth.value) for item in now)
            tally.add("extraction_recall", told)
            if move.old:
                old = timeline.truth(move.old).value
                stale = any(tells(item, old) and not contains(item.text, truth.value) for item in now)
                tally.add("update_accuracy", told and not stale)
        elif truth and move.act == "end":
            tally.add("ended", not any(tells(item, truth.value) for item in now))
        elif move.decoy:
            stored = any(tells(item, move.decoy.value, belongs_to=move.decoy.about) for item in now)
            tally.add("injection_stored" if move.act == "quoted" else "aside_stored", stored)
    holding = [each for each in timeline.known_at(turn.at) if each.told < turn.at]
    lost = [each for each in holding if not any(tells(item, each.value) for item in now)]
    for key, item in before.items():
        took = any(tells(item, each.value) for each in lost)
        if key not in after:
            tally.add("wrong_delete", took)
        elif after[key].text != item.text:
            tally.add("false_supersede", took)


def _is_right(item: Item, moves: Sequence[Move], timeline: Timeline) -> bool:
    """Whether a memory says something that the turn said, of the right person, and not its contrary."""
    return any(_follows(item, move, timeline) for move in moves)


def _follows(item: Item, move: Move, timeline: Timeline) -> bool:
    if move.old and denies(item, timeline.truth(move.old).value):
        return True
    if move.fact and move.act in ("state", "repeat", "change", "correct"):
        return tells(item, timeline.truth(move.fact).value)
    if move.fact and move.act == "end":
        return denies(item, timeline.truth(move.fact).value)
    if move.decoy is None:
        return False  # to be forgotten, or chatter
    value, about = move.decoy.value, move.decoy.about
    if move.act == "third":
        return contains(item.text, value) and not is_users(item, about) and not is_denied(item)
    return move.act in ("denied", "hypothetical") and denies(item, value)


def _asked(tally: Tally, question: Question, found: Sequence[Item], measure: str) -> None:
    """Whether an old value is found before the one that holds, or without it."""
    if not question.stale:
        return
    gold = stale = len(found)
    for rank, item in enumerate(found):
        old = any(tells(item, value) for value in question.stale)
        if question.gold:
            is_answer = tells(item, question.gold)
        else:
            is_answer = not old and any(contains(item.text, value) for value in question.stale)
        if is_answer:
            gold = min(gold, rank)
        elif old:
            stale = min(stale, rank)
    tally.add(measure, stale < gold)


def _kept_at_end(
    tally: Tally, timeline: Timeline, items: Sequence[Item], turns: Sequence[str] | None
) -> None:
    held: list[Truth] = []
    for truth in timeline.truths:
        if truth.end == "forgotten":
            tally.add("forgotten_found", any(contains(item.text, truth.value) for item in items))
            if turns is not None:
                tally.add("forgotten_in_turns", any(contains(text, truth.value) for text in turns))
        if truth.attribute == EVENT and truth.on:
            day = truth.on
            told = (item for item in items if contains(item.text, truth.value))
            tally.add("dates", any(is_dated(item, day) for item in told))
        if not truth.end:
            held.append(truth)
    again = sum(max(0, sum(tells(item, truth.value) for item in items) - 1) for truth in held)
    tally.add("restated", again, len(items))


def said_again(timeline: Timeline) -> list[Session]:
    """The same sessions, with not a key in common."""
    return [
        Session(
            key=f"again:{session.key}",
            turns=tuple(replace(turn, key=f"again:{turn.key}") for turn in session.turns),
        )
        for session in timeline.sessions
    ]


def _repeated(tally: Tally, measure: str, writer: Writer, sessions: Sequence[Session]) -> None:
    before = writer.items()
    for session in sessions:
        for exchange in session.exchanges:
            writer.hear(session, exchange)
    after = writer.items()
    new = {item.key for item in after} - {item.key for item in before}
    tally.add(measure, max(len(new), _twice(after) - _twice(before)), len(after))


def _twice(items: Sequence[Item]) -> int:
    """How many have a text that another has, too."""
    return len(items) - len({normalise(item.text) for item in items})


def _share(cases: Sequence[Case], measure: str) -> float | None:
    of = sum(case.counts[measure][1] for case in cases)
    return 100 * sum(case.counts[measure][0] for case in cases) / of if of else None


def memory_writing_table(reports: Sequence[Report]) -> Table:
    """The reports side by side, as people read them."""
    from rich.table import Table

    cases = len(reports[0].cases)
    shown = Table(
        title=f"Memory writing: {cases:,} timelines, in percent",
        caption="95 % interval over timelines in brackets; a dash: nothing to count",
    )
    shown.add_column("")
    for report in reports:
        shown.add_column(report.name, justify="right")
    found = [report.to_json()["measures"] for report in reports]
    for name, title in MEASURES.items():
        cells = [_cell(each.get(name)) for each in found]
        shown.add_row(title, *cells)
    return shown


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    low, high = figure["interval"]
    return f"{figure['percent']:.1f} [{low:.1f}, {high:.1f}]"
