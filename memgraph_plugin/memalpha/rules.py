"""The policy without a model: what the user plainly states, by rule. Deterministic, pure, English first.

It would rather miss than invent: what it does not understand stays retrievable as the verbatim turn. It is
the
fallback of `ChatModelPolicy`, the baseline of training, and what makes tests repeatable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from memgraph_plugin.memalpha.facts import ALIASES, OPPOSITES, Fact, fact_of, same_value
from memgraph_plugin.memalpha.promoted import promoted_in
from memgraph_plugin.memalpha.readings import (
    Ended,
    Finding,
    Happened,
    Noted,
    Stated,
    Swapped,
    Unwanted,
    moment_of,
    read_turn,
    speaker,
)
from memgraph_plugin.memalpha.safety import UNCHECKED
from memgraph_plugin.memalpha.validation import LIMITS, Limits, validate
from memgraph_plugin.memalpha.words import content_words, normalise, share
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Turn, Update, UpdateMode

FORGET_THRESHOLD = 0.75
"""Share of the words of "forget about ..." that a memory must contain to be meant."""

LONG_BEFORE = timedelta(days=366)
"""A dated fact that much older than what is remembered is history, and replaces nothing."""

_FORGETTABLE = ("semantic", "episodic", "turn")
_EVERYTHING = re.compile(r"^(?:me|us|everything|all(?: of it)?|anything)?$", re.I)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_NOTHING_NAMED = re.compile(r"^(?:it|this|that|them|these|those|to\b.*)$", re.I)


@dataclass(frozen=True, slots=True)
class RulePolicy:
    """Patterns in, operations out: Mem-alpha's action space without its model.

    Every operation it proposes has passed `validate`, safety apart. Turns of the assistant make no facts.
    """

    name: str = "rules"
    limits: Limits = LIMITS

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        batch = _Batch(memories)
        asked = ""
        for turn in turns:
            if turn.role == "user":
                for finding in read_turn(turn):
                    batch.take(finding, turn, asked)
            asked = turn.text if turn.role == "assistant" else ""
        validated = validate(batch.operations(), turns, memories, limits=self.limits, safety=UNCHECKED)
        refused = [NoOp(reason=receipt.code or "") for receipt in validated.rejected]
        return [*validated.accepted] or [*refused[:1]] or [NoOp(reason="nothing_new")]

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return self.propose(turns, memories)


class _Batch:
    """The operations of one call, each in a slot (a memory's key, or subject and attribute), so that what is
    said later takes the place of what was said before."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        self._memories = {memory.key: memory for memory in memories}
        self._facts = {
            memory.key: fact
            for memory in memories
            if not promoted_in(memory) and (fact := fact_of(memory))  # lines follow their memories
        }
        self._texts = {normalise(memory.text): memory.key for memory in memories if memory.kind != "turn"}
        self._slots: dict[tuple[str, ...], Operation] = {}
        self._last: Fact | None = None

    def operations(self) -> list[Operation]:
        return list(self._slots.values())

    def take(self, finding: Finding, turn: Turn, asked: str) -> None:
        match finding:
            case Stated():
                self._state(finding, turn)
            case Swapped():
                self._swap(finding, turn, asked)
            case Ended():
                self._end(finding, turn)
            case Happened(text, when, subject):
                value = {"subject": subject, "attribute": "event", "value": text}
                self._insert(
                    text, turn, value, kind_of_event=True, valid_from=when.moment(turn.at), importance=0.4
                )
            case Noted(text, subject):
                value = {"subject": subject, "attribute": "note", "value": text}
                self._insert(text, turn, value, valid_from=turn.at, importance=0.7, reason="user_request")
            case Unwanted():
                self._forget(finding, turn)

    def _state(self, stated: Stated, turn: Turn) -> None:
        fact = self._last = stated.fact
        same = self._about(fact)
        known = self._texts.get(normalise(fact.text)) or next(
            (key for key in same if same_value(self._facts[key].value, fact.value)), None
        )
        if known:
            self._slots[(known,)] = NoOp(reason=f"duplicate_of:{known}", evidence=(turn.key,))
            return
        if fact.tentative and same and not stated.correcting:
            self._slots[("doubted", fact.attribute)] = NoOp(reason=f"doubted:{same[0]}", evidence=(turn.key,))
            return
        opposite = replace(fact, attribute=OPPOSITES.get(fact.attribute, ""))
        opposed = [key for key in self._about(opposite) if same_value(self._facts[key].value, fact.value)]
        target = opposed[0] if opposed else self._newest(same) if fact.single and same else None
        if target is None:
            slot = (fact.subject, fact.attribute, *(() if fact.single else (normalise(fact.value),)))
            self._slots.pop((fact.subject, opposite.attribute, normalise(fact.value)), None)
            since = moment_of(stated.when, turn)
            self._insert(fact.text, turn, fact.as_value(), slot, valid_from=since, importance=fact.importance)
        elif self._is_history(stated, target):
            value = fact.as_value() | {"attribute": f"former {fact.attribute}"}
            text = f"{fact.text.removesuffix('.')} ({stated.when.phrase()})." if stated.when else fact.text
            self._insert(
                text, turn, value, kind_of_event=True, valid_from=moment_of(stated.when, turn), importance=0.3
            )
        else:
            self._update(target, fact, turn, stated)
            # Two runs at once may each have inserted a value of what has but one.
            for key in same if fact.single else ():
                if key != target:
                    self._end_one(key, turn)

    def _end_one(self, key: str, turn: Turn) -> None:
        """What this memory says is no longer so."""
        old = self._facts[key]
        text = _no_longer(self._memories[key].text)
        past = replace(old, attribute=f"former {old.attribute}", text=text)
        self._update(key, past, turn, Stated(past))

    def _update(self, key: str, fact: Fact, turn: Turn, stated: Stated) -> None:
        was_denied = isinstance(self._slots.get((key,)), Delete)
        mode: UpdateMode = "correct" if stated.correcting or was_denied else "supersede"
        self._slots[(key,)] = Update(
            key=key,
            version=self._memories[key].version,
            text=fact.text,
            mode=mode,
            value=fact.as_value(),
            importance=fact.importance,
            valid_from=None if mode == "correct" else moment_of(stated.when, turn),
            evidence=(turn.key,),
            reason="corrected" if mode == "correct" else "changed",
        )

    def _swap(self, swapped: Swapped, turn: Turn, asked: str) -> None:
        """Another value for a fact: the one with the old value, the last stated, or the one asked about."""
        known = [*self._facts.values(), *([self._last] if self._last else [])]
        if swapped.old is not None:
            meant = [fact for fact in known if same_value(fact.value, swapped.old)]
        else:
            words = content_words(asked)
            mentioned = [
                fact for fact in self._facts.values() if share(content_words(fact.value), words) == 1
            ]
            meant = [self._last] if self._last else mentioned if len(mentioned) == 1 else []
        for fact in meant[-1:]:
            if fact.value and fact.value in fact.text and _alike(fact.value, swapped.new):
                text = fact.text.replace(fact.value, swapped.new)
                new = replace(fact, value=swapped.new, text=text, single=True)
                old_slot = (fact.subject, fact.attribute, normalise(fact.value))
                self._slots.pop(old_slot, None)
                self._state(Stated(new, correcting=True), turn)

    def _end(self, ended: Ended, turn: Turn) -> None:
        found = False
        for fact in ended.facts:
            for key in self._about(fact):
                memory, old = self._memories[key], self._facts[key]
                if not (same_value(old.value, fact.value) or fact.value in ("their job", "job")):
                    continue
                found = True
                if ended.wrong:
                    self._slots[(key,)] = Delete(
                        key=key, version=memory.version, evidence=(turn.key,), reason="wrong"
                    )
                    continue
                self._end_one(key, turn)
        if not found and ended.event:
            self.take(ended.event, turn, "")
        elif not found:
            self._slots[("ended", normalise(ended.facts[0].text))] = NoOp(
                reason="denied:no_match", evidence=(turn.key,)
            )

    def _forget(self, unwanted: Unwanted, turn: Turn) -> None:
        what = unwanted.what.strip(" .,:")
        if _NOTHING_NAMED.match(what):
            return
        keys = [] if _EVERYTHING.match(what) else self._meant(what, unwanted.facts, speaker(turn)[0])
        for key in keys:
            self._slots[(key,)] = Delete(
                key=key, version=self._memories[key].version, evidence=(turn.key,), reason="user_request"
            )
        keys += [] if _EVERYTHING.match(what) else self._leave_out(what, turn)
        for slot, operation in list(self._slots.items()):
            if isinstance(operation, Insert) and _covers(what, operation.text):
                del self._slots[slot]
                keys.append("")
        if not keys:
            reason = "forget:everything_needs_forget" if _EVERYTHING.match(what) else "forget:no_match"
            self._slots[("forget", normalise(what))] = NoOp(reason=reason, evidence=(turn.key,))

    def _leave_out(self, what: str, turn: Turn) -> list[str]:
        """Take the sentences that say it out of the core blocks, where nothing else would."""
        changed = []
        for key, memory in self._memories.items():
            lines = memory.text.splitlines() if memory.kind == "core" else []
            kept = [line for line in (_without(what, line) for line in lines) if line]
            if kept != lines:
                common: dict[str, Any] = {"version": memory.version, "evidence": (turn.key,)}
                common["reason"] = "user_request"
                self._slots[(key,)] = (
                    Update(key=key, text="\n".join(kept), mode="correct", **common)
                    if kept
                    else Delete(key=key, **common)
                )
                changed.append(key)
        return changed

    def _meant(self, what: str, facts: Sequence[Fact], subject: str) -> list[str]:
        stated = [
            key
            for fact in facts
            for key in self._about(fact)
            if same_value(self._facts[key].value, fact.value)
        ]
        if stated:
            return stated
        noun = normalise(re.sub(r"^my\s+", "", what, flags=re.I))
        attribute = ALIASES.get(noun, noun)
        named = [
            key
            for key, fact in self._facts.items()
            if fact.subject == subject and fact.attribute == attribute
        ]
        return named or [
            key
            for key, memory in self._memories.items()
            if memory.kind in _FORGETTABLE and _covers(what, memory.text)
        ]

    def _about(self, fact: Fact) -> list[str]:
        """The keys of the memories with the same subject and attribute."""
        return [
            key
            for key, other in self._facts.items()
            if other.subject == fact.subject and other.attribute == fact.attribute
        ]

    def _newest(self, keys: Iterable[str]) -> str:
        return max(keys, key=lambda key: _known_since(self._memories[key]))

    def _is_history(self, stated: Stated, key: str) -> bool:
        since = self._memories[key].valid_from
        return bool(stated.when and since and stated.when.last + LONG_BEFORE < since.date())

    def _insert(
        self,
        text: str,
        turn: Turn,
        value: dict[str, str],
        slot: tuple[str, ...] = (),
        *,
        valid_from: datetime,
        importance: float,
        kind_of_event: bool = False,
        reason: str = "",
    ) -> None:
        self._slots[slot or ("text", normalise(text))] = Insert(
            text=text,
            kind="episodic" if kind_of_event else "semantic",
            value=value,
            importance=importance,
            valid_from=valid_from,
            evidence=(turn.key,),
            reason=reason,
        )


def _without(what: str, line: str) -> str:
    """A line, less the sentences that say it."""
    sentences = _SENTENCE_END.split(line)
    kept = [sentence for sentence in sentences if not _covers(what, sentence)]
    return " ".join(kept) if len(kept) < len(sentences) else line


def _covers(what: str, text: str) -> bool:
    return share(content_words(what), content_words(text)) >= FORGET_THRESHOLD


def _alike(old: str, new: str) -> bool:
    """A name replaces a name and a number a number: "no, it's fine" corrects nothing."""
    return (
        bool(re.match(r"[A-Z]", old)) == bool(re.match(r"[A-Z]", new))
        and old[:1].isdigit() == new[:1].isdigit()
    )


def _no_longer(text: str) -> str:
    """ "The user lives in Lisbon." -> "The user no longer lives in Lisbon."; else said in front."""
    match = re.match(r"^(The user|[A-Z][\w'-]*) (?!no longer)(is |)(?=[a-z])(.+)$", text)
    if match and not match[1].endswith("'s"):
        return f"{match[1]} {match[2]}no longer {match[3]}"
    return f"It is no longer so that {text[:1].lower()}{text[1:]}"


def _known_since(memory: Memory) -> datetime:
    since = memory.updated_at or memory.created_at or memory.valid_from or datetime.min
    return since if since.tzinfo else since.replace(tzinfo=UTC)
