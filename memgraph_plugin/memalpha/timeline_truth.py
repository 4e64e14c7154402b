"""What a made-up conversation over months consists of, what is true of it, and what can be asked. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Literal, TypeAlias

from memgraph_plugin.memalpha import timeline_phrases as phrases
from memgraph_plugin.memalpha.timeline_phrases import Split
from memgraph_plugin.types import Turn

Act: TypeAlias = Literal[
    "state", "repeat", "change", "correct", "end", "forget",
    "hypothetical", "denied", "third", "suggested", "quoted", "chatter",
]  # fmt: skip
"""What a turn does. The first six are about the user; the others change nothing of what is known of them."""

MEMORABLE: tuple[Act, ...] = ("state", "change", "correct", "end", "forget")
"""Acts after which memory is to be another. A repetition is none, nor is it wrong to take note of one."""

QuestionKind: TypeAlias = Literal["current", "changed", "corrected", "ended", "forgotten", "never", "event"]

EVENT = "event"
"""The attribute of what happened on a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A fact about the user, as it was told: from `since` until just before `until`.

    Args:
        text: the fact in the third person, without a date.
        told: when it was said; `since` is that, or for an event the day of `on`.
        end: what became of it, if anything; one that was corrected never was.
        evidence: keys of the turns that say it, the first one first.
        ended_by: the key of the turn that ended it.
        instead: the id of the fact that took its place.
    """

    id: str
    attribute: str
    value: str
    text: str
    since: datetime
    told: datetime
    subject: str = "user"
    on: date | None = None
    until: datetime | None = None
    end: Literal["changed", "corrected", "ended", "forgotten"] | None = None
    evidence: tuple[str, ...] = ()
    ended_by: str = ""
    instead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoy:
    """What is no fact about the user: `about` names who it is a fact about, "" for nobody."""

    attribute: str
    value: str
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What one turn of the user's does; a turn may have several. `fact` and `old` are ids of truths."""

    turn: str
    act: Act
    fact: str = ""
    old: str = ""
    decoy: Decoy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What memory is to be asked.

    Args:
        gold: the value that answers it; "" where nothing does.
        stale: values that were so, or were said by mistake.
        absent: values that must not be found: forgotten, or never the user's.
        whose: by absent value, whom it is a fact about, if about anybody.
        evidence: keys of the turns that say the gold value, or else of those that tell that nothing does.
    """

    kind: QuestionKind
    text: str
    attribute: str
    gold: str = ""
    on: date | None = None
    stale: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    whose: Mapping[str, str] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One conversation. Turns of user and assistant take turns; `key` is its thread."""

    key: str
    turns: tuple[Turn, ...]

    @property
    def exchanges(self) -> tuple[tuple[Turn, Turn], ...]:
        """What the user said, and the reply."""
        return tuple(zip(self.turns[::2], self.turns[1::2], strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A person's conversations, oldest first, and what is true of them."""

    name: str
    seed: int
    split: Split
    sessions: tuple[Session, ...]
    truths: tuple[Truth, ...]
    moves: tuple[Move, ...]

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(turn for session in self.sessions for turn in session.turns)

    @property
    def memorable(self) -> frozenset[str]:
        """Keys of the turns after which memory is to be another."""
        return frozenset(move.turn for move in self.moves if move.act in MEMORABLE)

    def moves_of(self, turn: str) -> tuple[Move, ...]:
        return tuple(move for move in self.moves if move.turn == turn)

    def truth(self, id_: str) -> Truth:
        return next(truth for truth in self.truths if truth.id == id_)

    def known_at(self, at: datetime) -> tuple[Truth, ...]:
        """What was told until then and still holds."""
        return tuple(
            each for each in self.truths if each.told <= at and (each.until is None or each.until > at)
        )

    def questions(self, at: datetime | None = None) -> tuple[Question, ...]:
        """What can be asked when everything was said, or at a time between."""
        last = at or self.sessions[-1].turns[-1].at
        said = {turn.key for turn in self.turns if turn.at <= last}
        truths = [_as_at(truth, last, said) for truth in self.truths if truth.told <= last]
        moves = [move for move in self.moves if move.turn in said]
        asked = random.Random(f"questions {self.name}")  # noqa: S311 - to be repeated
        return tuple(_questions(truths, moves, self.split, asked))


def _as_at(truth: Truth, at: datetime, said: set[str]) -> Truth:
    """A truth as it stood: what ended it later had not been said."""
    evidence = tuple(key for key in truth.evidence if key in said)
    if truth.until and truth.until > at:
        return replace(truth, evidence=evidence, until=None, end=None, ended_by="", instead="")
    return replace(truth, evidence=evidence)


def _questions(
    truths: Sequence[Truth], moves: Sequence[Move], split: Split, rng: random.Random
) -> list[Question]:
    asked: list[Question] = []
    decoys = [move.decoy for move in moves if move.decoy]
    for attribute in phrases.ATTRIBUTES:
        about = [truth for truth in truths if truth.attribute == attribute.name]
        never = [decoy for decoy in decoys if decoy.attribute == attribute.name]
        if not about and not never:
            continue
        forgotten = [each for each in about if each.end == "forgotten"]
        past = [each for each in about if each.end and each.end != "forgotten"]
        now = [each for each in about if not each.end]
        kind: QuestionKind = "current"
        if now and past:
            kind = "corrected" if all(each.end == "corrected" for each in past) else "changed"
        elif not now:
            kind = "forgotten" if forgotten else "ended" if past else "never"
        asked.append(
            Question(
                kind=kind,
                text=rng.choice(attribute.ask.of(split)),
                attribute=attribute.name,
                gold=now[-1].value if now else "",
                stale=tuple(each.value for each in past),
                absent=(*(each.value for each in forgotten), *(each.value for each in never)),
                whose={each.value: each.about for each in never if each.about},
                evidence=now[-1].evidence if now else tuple(e.ended_by for e in (*past, *forgotten)),
            )
        )
    asked += [
        Question(
            kind="event",
            text=rng.choice(phrases.EVENT_ASKED.of(split)).format(v=each.value),
            attribute=EVENT,
            gold=each.value,
            on=each.on,
            evidence=each.evidence,
        )
        for each in truths
        if each.attribute == EVENT
    ]
    return asked
