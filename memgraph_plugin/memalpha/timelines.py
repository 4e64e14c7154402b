"""Conversations of a made-up person over months, with the truth about what is to be remembered of them. Pure.

A timeline is made from a seed alone, the same one everywhere. What is stated in it changes, is corrected,
ends, is repeated and is to be forgotten again; between that stand things that look like facts about the user
and are none: of others, supposed, denied, suggested by the assistant, or an order hidden in a quotation.
Phrases and values come from `timeline_phrases`, in two disjoint sets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from memgraph_plugin.memalpha import timeline_phrases as phrases
from memgraph_plugin.memalpha.timeline_phrases import BY_NAME, Attribute, Split, Ways
from memgraph_plugin.memalpha.timeline_truth import (
    EVENT,
    MEMORABLE,
    Act,
    Decoy,
    Move,
    Question,
    Session,
    Timeline,
    Truth,
)
from memgraph_plugin.types import Turn

__all__ = [
    "EVENT", "MEMORABLE", "Act", "Decoy", "Move", "Question", "Session", "Split", "Timeline", "Truth",
    "timeline",
]  # fmt: skip

_DAYS_AGO = Ways(("yesterday|1", "two days ago|2", "a week ago|7"), ("the day before yesterday|2", "three days ago|3", "two weeks ago|14"))  # fmt: skip # noqa: E501
_START = datetime(2025, 1, 6, 18, tzinfo=UTC)


def timeline(
    seed: int,
    *,
    split: Split = "held_out",
    sessions: int = 5,
    facts: int = 7,
    difficulty: float = 0.5,
    asides: bool = True,
) -> Timeline:
    """The timeline of a seed.

    Args:
        split: which half of the phrases and values it is made of.
        sessions: conversations, weeks apart; at least 2.
        facts: attributes of the user that are stated, 1..12, beside one or two events.
        difficulty: 0..1: how often a fact is said in a way that has to be understood, and half as often
            everything is in lower case.
        asides: whether what is no fact about the user stands in it, too.

    Raises:
        ValueError: an argument is out of range.
    """
    if sessions < 2 or not 1 <= facts <= len(phrases.ATTRIBUTES) or not 0 <= difficulty <= 1:
        raise ValueError(
            f"a timeline has 2 sessions or more, 1..{len(phrases.ATTRIBUTES)} facts, difficulty 0..1"
        )
    made_of = f"{split} {seed} {sessions} {facts} {difficulty} {asides}"
    rng = random.Random(made_of)  # noqa: S311 - to be repeated
    name = f"{split.replace('_', '-')}-{seed}"
    return _Writer(rng, split, difficulty, name).write(seed, _plan(rng, split, sessions, facts, asides))


@dataclass(frozen=True, slots=True)
class _Beat:
    """Something to be said: what, of which attribute; `value` where it is not the attribute's own."""

    act: Act
    attribute: str = ""


def _plan(rng: random.Random, split: Split, sessions: int, facts: int, asides: bool) -> list[list[_Beat]]:
    """What is said in each session. What has a later half comes in a session before it."""
    days: list[list[_Beat]] = [[] for _ in range(sessions)]
    chosen = rng.sample(phrases.ATTRIBUTES, facts)
    rest = [attribute.name for attribute in chosen]

    def take(fit: Sequence[str], most: int) -> list[str]:
        taken = rng.sample(fit, min(most, len(fit)))
        for each in taken:
            rest.remove(each)
        return taken

    changing = take([name for name in rest if BY_NAME[name].change.of(split)], max(1, facts // 3))
    ending = take([name for name in rest if BY_NAME[name].end.of(split)], 1)
    forgotten, corrected = take(rest, 1), take(rest, 1)
    for attribute in chosen:
        first = rng.randrange(sessions - 1)
        days[first].append(_Beat("correct" if attribute.name in corrected else "state", attribute.name))
        later = rng.randrange(first + 1, sessions)
        if attribute.name in changing:
            days[later].append(_Beat("change", attribute.name))
            if later + 1 < sessions and rng.random() < 0.3:
                days[rng.randrange(later + 1, sessions)].append(_Beat("change", attribute.name))
        elif attribute.name in ending:
            days[later].append(_Beat("end", attribute.name))
        elif attribute.name in forgotten:
            days[later].append(_Beat("forget", attribute.name))
        elif rng.random() < 0.6:
            days[later].append(_Beat("repeat", attribute.name))
    for day in rng.sample(days, rng.randint(1, 2)):
        day.append(_Beat("state", EVENT))
    kinds: tuple[Act, ...] = ("hypothetical", "denied", "third", "third", "suggested", "quoted")
    for kind in kinds if asides else ():
        rng.choice(days).append(_Beat(kind, rng.choice(phrases.ATTRIBUTES).name))
    for day in days:
        day += [_Beat("chatter")] * rng.randint(1, 2)
        rng.shuffle(day)
    return days


class _Writer:
    """Puts a plan into words, and keeps the books."""

    def __init__(self, rng: random.Random, split: Split, difficulty: float, name: str) -> None:
        self._rng, self._split, self._difficulty, self._name = rng, split, difficulty, name
        self._used: set[str] = set()
        self._truths: dict[str, Truth] = {}
        self._moves: list[Move] = []
        self._at = _START + timedelta(days=rng.randrange(120), minutes=rng.randrange(200))
        self._turn = ""

    def write(self, seed: int, plan: Sequence[Sequence[_Beat]]) -> Timeline:
        sessions = []
        for number, day in enumerate(plan):
            sessions.append(self._session(f"{self._name}:{number}", day))
            self._at += timedelta(days=self._rng.randrange(9, 40), minutes=self._rng.randrange(-90, 90))
        return Timeline(
            name=self._name,
            seed=seed,
            split=self._split,
            sessions=tuple(sessions),
            truths=tuple(self._truths.values()),
            moves=tuple(self._moves),
        )

    def _session(self, key: str, day: Sequence[_Beat]) -> Session:
        turns: list[Turn] = []
        beats = [beat for each in day for beat in ([_Beat("state", each.attribute), each] if each.act == "correct" else [each])]  # fmt: skip # noqa: E501
        begun = self._at
        while beats:
            beat = beats.pop(0)
            self._turn, reply = f"{key}:{len(turns)}", self._rng.choice(phrases.REPLIES)
            said = [self._say(beat)]
            if beat.act == "state" and beats and beats[0].act == "state" and self._rng.random() < 0.3:
                said.append(self._say(beats.pop(0)))
            elif beat.act not in ("chatter", "correct", "quoted", "suggested") and self._rng.random() < 0.2:
                said.insert(0, self._any(phrases.CHATTER))
            text = " ".join(filter(None, said))
            if not text:
                continue
            if beat.act == "suggested":
                reply = self._suggestion(beat)
            if beat.act in ("state", "repeat", "change", "correct") and self._chance(self._difficulty / 2):
                text = text.lower()
            for role, words, seconds in (("user", text, 0), ("assistant", reply, 25)):
                at = self._at + timedelta(seconds=seconds)
                turns.append(Turn(key=f"{key}:{len(turns)}", role=role, text=words, at=at))  # type: ignore[arg-type]
            self._at += timedelta(seconds=self._rng.randrange(60, 300))
        self._at = begun
        return Session(key=key, turns=tuple(turns))

    def _say(self, beat: _Beat) -> str:
        """The words of a beat, noted down; "" where there is nothing (left) to say of it."""
        if beat.act == "chatter":
            self._note("chatter")
            return self._any(phrases.CHATTER)
        if beat.act == "quoted":
            bank = self._rng.choice(phrases.BANKS)
            self._note("quoted", decoy=Decoy(attribute="bank", value=bank))
            return self._any(phrases.QUOTED).format(v=bank)
        if beat.attribute == EVENT:
            return self._event()
        attribute, current = BY_NAME[beat.attribute], self._current(beat.attribute)
        if beat.act == "state":
            value = self._value(attribute)
            return self._state("state", attribute, value, self._phrase(attribute, value)) if value else ""
        if beat.act in ("change", "correct"):
            return self._replace(beat.act, attribute, current)
        if beat.act in ("repeat", "end", "forget"):
            return self._again(beat.act, attribute, current) if current else ""
        if beat.act == "suggested":
            return self._any(phrases.SUGGESTED)
        return self._aside(beat.act, attribute)

    def _state(self, act: Act, attribute: Attribute, value: str, text: str, old: str = "") -> str:
        id_ = f"f{len(self._truths) + 1}"
        self._truths[id_] = Truth(
            id=id_,
            attribute=attribute.name,
            value=value,
            text=attribute.written.format(S="The user", v=value),
            since=self._at,
            told=self._at,
            evidence=(self._turn,),
        )
        self._note(act, fact=id_, old=old)
        return text

    def _replace(self, act: Literal["change", "correct"], attribute: Attribute, old: Truth | None) -> str:
        value = self._value(attribute)
        if not value or not old:
            return ""
        way = self._any(attribute.change) if act == "change" else self._any(phrases.CORRECTED)
        said = self._state(act, attribute, value, _sentence(way.format(v=value, old=old.value)), old.id)
        instead = f"f{len(self._truths)}"
        self._end(old, "changed" if act == "change" else "corrected", instead)
        return said

    def _again(self, act: Literal["repeat", "end", "forget"], attribute: Attribute, fact: Truth) -> str:
        self._note(act, fact=fact.id)
        if act == "repeat":
            self._truths[fact.id] = replace(fact, evidence=(*fact.evidence, self._turn))
            return self._phrase(attribute, fact.value)
        if act == "end":
            self._end(fact, "ended")
            return _sentence(self._any(attribute.end).format(v=fact.value))
        self._end(fact, "forgotten")
        ways = [way for way in phrases.FORGET.of(self._split) if attribute.single or "{noun}" not in way]
        outright = attribute.plain.of(self._split)[0].format(v=fact.value).rstrip(".")
        clause = outright if outright.startswith("I") else outright[0].lower() + outright[1:]
        return self._rng.choice(ways).format(noun=attribute.noun, clause=clause, v=fact.value)

    def _end(
        self, fact: Truth, end: Literal["changed", "corrected", "ended", "forgotten"], instead: str = ""
    ) -> None:
        self._truths[fact.id] = replace(fact, until=self._at, end=end, ended_by=self._turn, instead=instead)

    def _event(self) -> str:
        events = [e for e in phrases.EVENTS[self._split == "held_out" :: 2] if e[1] not in self._used]
        happened, value = self._rng.choice(events)
        self._used.add(value)
        when, days = self._any(_DAYS_AGO).split("|")
        day = (self._at - timedelta(days=int(days))).date()
        id_ = f"f{len(self._truths) + 1}"
        self._truths[id_] = Truth(
            id=id_,
            attribute=EVENT,
            value=value,
            text=f"The user {happened.replace(' my ', ' their ')}.",
            since=datetime.combine(day, datetime.min.time(), UTC),
            told=self._at,
            on=day,
            evidence=(self._turn,),
        )
        self._note("state", fact=id_)
        return _sentence(self._any(phrases.EVENT_SAID).format(v=happened, when=when))

    def _aside(self, act: Act, attribute: Attribute) -> str:
        value = self._value(attribute)
        if not value:
            return ""
        who = self._any(phrases.WHO) if act == "third" else ""
        decoy = Decoy(attribute=attribute.name, value=value, about=who.split()[-1] if who else "")
        self._note(act, decoy=decoy)
        ways = {
            "hypothetical": phrases.HYPOTHETICAL,
            "denied": phrases.DENIED,
            "third": phrases.THIRD,
        }[act]
        way = self._any(ways)
        told = who if way.startswith("{who}") else who.replace("My", "my")
        past, third = attribute.past.format(v=value), attribute.third.format(v=value)
        return way.format(past=past, third=third, who=told)

    def _suggestion(self, beat: _Beat) -> str:
        """The assistant's idea; without a value left, any word of its own."""
        attribute = BY_NAME[beat.attribute]
        value = self._value(attribute)
        if not value:
            return self._rng.choice(phrases.REPLIES)
        self._note("suggested", decoy=Decoy(attribute=attribute.name, value=value))
        return self._any(phrases.SUGGESTION).format(third=attribute.third.format(v=value))

    def _phrase(self, attribute: Attribute, value: str) -> str:
        ways = attribute.indirect if self._chance(self._difficulty) else attribute.plain
        return _sentence(self._any(ways).format(v=value))

    def _note(self, act: Act, *, fact: str = "", old: str = "", decoy: Decoy | None = None) -> None:
        self._moves.append(Move(turn=self._turn, act=act, fact=fact, old=old, decoy=decoy))

    def _current(self, attribute: str) -> Truth | None:
        known = [each for each in self._truths.values() if each.attribute == attribute and not each.end]
        return known[-1] if known else None

    def _value(self, attribute: Attribute) -> str:
        free = [each for each in phrases.values_of(attribute, self._split) if each not in self._used]
        value = self._rng.choice(free) if free else ""
        self._used.add(value)
        return value

    def _any(self, ways: Ways) -> str:
        return self._rng.choice(ways.of(self._split))

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
