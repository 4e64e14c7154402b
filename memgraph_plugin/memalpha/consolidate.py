"""Putting a memory in order: what is there twice, what is said often, what is long ago. Pure.

Four passes, none of which finds anything to do in what it left: `merge`, `promote`, `decay`, `summarise`.
Each finds groups of ordinary operations. A group is a batch that can be undone, and rests on all that it was
made of: where somebody changes, deletes or erases some of that meanwhile, all of it is left. They go by
what a store knows: versions with their evidence, and the no-ops of its log ("duplicate_of:...": said again).
How often something was recalled nobody counts, so use is how often it was said.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from memgraph_plugin.memalpha.blocks import PROFILE, block_of
from memgraph_plugin.memalpha.facts import fact_of
from memgraph_plugin.memalpha.grounding import ungrounded
from memgraph_plugin.memalpha.promoted import REASON, Lines, is_former, line_of, promoted_in, tokens_of
from memgraph_plugin.memalpha.safety import SAFETY
from memgraph_plugin.memalpha.validation import LIMITS, Limits
from memgraph_plugin.memalpha.words import normalise, overlap, words
from memgraph_plugin.types import Delete, Insert, Memory, Operation, Turn, Update

logger = logging.getLogger(__name__)

ACTOR = "consolidate"

SUMMARY = "summary"
"""The attribute of what stands for several events."""

Summarise: TypeAlias = Callable[[Sequence[Memory]], str]
"""Says in one text what several events of one month were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A memory, and what its log says of it.

    Args:
        memory: as it stands.
        evidence: the turns that it comes from, over all of its versions.
        said: when it was last said: by the newest version that nobody consolidated, or again later.
        importance: what it was given then, 0..1.
        times: how often it was said.
    """

    memory: Memory
    evidence: tuple[str, ...]
    said: datetime
    importance: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Group:
    """Operations that stand or fall together, and the versions of the memories that they rest on.

    `requires` is as in `MemoryStore.apply`; where it is empty, each operation stands alone.
    """

    operations: tuple[Operation, ...]
    requires: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """When something is alike, often, or long ago.

    Args:
        cosine: from which two texts of no known attribute may say the same.
        overlap: share of the shorter one's words that they must have in common as well, 0..1.
        times: said so often, a fact belongs into the profile.
        half_life: after so long unsaid, importance halves; twice as long for what was said twice, and so on.
        floor: of importance, below which nothing falls.
        old: events before that are summarised.
        events: of one month, that are worth a summary.
    """

    cosine: float = 0.92
    overlap: float = 0.8
    times: int = 3
    half_life: timedelta = timedelta(days=180)
    floor: float = 0.1
    old: timedelta = timedelta(days=180)
    events: int = 3
    limits: Limits = LIMITS


HABITS = Habits()


def merge(
    known: Sequence[Known],
    cosines: Mapping[frozenset[str], float] | None = None,
    *,
    habits: Habits = HABITS,
) -> list[Group]:
    """Of memories that say the same, keep the most important, else the oldest, with the evidence of all.

    The same is: one subject, attribute and value; or, where no attribute is known, texts with the same
    subject, names, numbers and negations, and a cosine (by pairs of keys) and words in common as `habits` has
    them. What is to expire stays as it is: neither may it last longer, nor take with it what was to last.
    """
    groups: list[list[Known]] = []
    for each in sorted(known, key=lambda one: (-one.importance, _since(one.memory), one.memory.key)):
        memory = each.memory
        if memory.kind not in ("semantic", "episodic") or memory.valid_to or memory.expires_at:
            continue
        for group in groups:
            if _same(group[0].memory, memory, cosines or {}, habits):
                group.append(each)
                break
        else:
            groups.append([each])
    return [Group(tuple(_merged(group)), _versions(group)) for group in groups if len(group) > 1]


def _versions(known: Iterable[Known]) -> dict[str, int]:
    return {each.memory.key: each.memory.version for each in known}


def _merged(group: Sequence[Known]) -> Iterator[Operation]:
    kept, *others = group
    keys = ", ".join(other.memory.key for other in others)
    yield _revision(kept, kept.memory.text, evidence=_evidence(group), reason=f"merged: {keys}"[:500])
    for other in others:
        reason = f"duplicate_of:{kept.memory.key}"
        yield Delete(
            key=other.memory.key, version=other.memory.version, evidence=other.evidence, reason=reason
        )


def _same(a: Memory, b: Memory, cosines: Mapping[frozenset[str], float], habits: Habits) -> bool:
    if a.kind != b.kind or (a.kind == "episodic" and _day(a) != _day(b)):
        return False
    if normalise(a.text) == normalise(b.text):
        return True
    fact, other = fact_of(a), fact_of(b)
    if fact and other and fact.attribute not in _VAGUE and other.attribute not in _VAGUE:
        return (fact.subject, fact.attribute) == (other.subject, other.attribute) and (
            bool(fact.value) and normalise(fact.value) == normalise(other.value)
        )
    return (
        (fact.subject if fact else "user") == (other.subject if other else "user")
        and cosines.get(frozenset((a.key, b.key)), 0) >= habits.cosine
        and _atoms(a.text) == _atoms(b.text)
        and overlap(a.text, b.text) >= habits.overlap
    )


_VAGUE = ("note", "event")
"""Attributes that say nothing of what a text is about."""

_NEGATIONS = frozenset(
    words("no not never none nothing longer stopped quit dislikes hates avoids without ex")
)


def is_vague(memory: Memory) -> bool:
    """Whether only a cosine can tell what it is like."""
    fact = fact_of(memory)
    return fact is None or fact.attribute in _VAGUE


def _atoms(text: str) -> frozenset[str]:
    """What makes two texts of the same words say different things: names, numbers, negations."""
    named = re.findall(r"(?<!^)(?<![.!?] )\b[A-Z][\w'-]*|\d[\d.,:]*", text)
    denied = {word for word in words(text) if word in _NEGATIONS or word.endswith("n't")}
    return frozenset(name.casefold() for name in named) | denied


def promote(known: Sequence[Known], *, habits: Habits = HABITS) -> list[Group]:
    """Write the facts that were said often into the profile, as far as its budget goes.

    Their memories stay. A line follows its memory: it changes with it, and goes with it (`promoted.in_step`
    does so at once). What else is in the profile stays as it is, and a line that somebody took out is not put
    in again. Where somebody's own lines fill the profile and more, nothing is done.
    """
    profile, block = next(
        (
            (each, block)
            for each in known
            if (block := block_of(each.memory)) and block.label == PROFILE.label
        ),
        (None, PROFILE),
    )
    if block.read_only:
        return []
    before = promoted_in(profile.memory) if profile else {}
    facts = {each.memory.key: each for each in known if _is_lasting(each, before, habits)}
    new = Lines(profile.memory.text.splitlines() if profile else [], dict(before))
    for key in before:
        new.follow(key, line_of(facts[key].memory.text) if key in facts else None)
    if not new.fit(block.limit):
        return []
    said = {normalise(line) for line in new.lines}
    for each in sorted(facts.values(), key=lambda one: (-one.times, -one.importance, one.memory.key)):
        line = line_of(each.memory.text)
        if each.memory.key in before or normalise(line) in said:
            continue
        if tokens_of([*new.lines, line]) <= block.limit:
            new.lines.append(line)
            new.of[each.memory.key] = line
            said.add(normalise(line))
    used = [each for key, each in facts.items() if key in new.of]
    operations = tuple(_profile(profile, "\n".join(new.lines), new.of, _evidence(used)))
    rests = {PROFILE.key: 0} if profile is None else _versions([profile])
    return [Group(operations, rests | _versions(used))] if operations else []


def _profile(
    profile: Known | None, text: str, promoted: Mapping[str, str], evidence: tuple[str, ...]
) -> Iterator[Operation]:
    """The one place that knows how a core block is written."""
    if profile is None:
        if text:
            made = PROFILE.insert(text)
            value = {**made.value, "promoted": promoted}
            yield replace(made, value=value, evidence=evidence, reason=REASON)
    elif not text:
        if promoted_in(profile.memory):
            yield Delete(key=profile.memory.key, version=profile.memory.version, reason="nothing to promote")
    elif text != profile.memory.text or promoted != promoted_in(profile.memory):
        value = {**profile.memory.value, "promoted": promoted}
        if "text" in value:
            value["text"] = text
        yield Update(
            key=profile.memory.key,
            version=profile.memory.version,
            text=text,
            mode="refine",
            value=value,
            evidence=evidence,
            reason=REASON,
        )


def _is_lasting(known: Known, before: Mapping[str, str], habits: Habits) -> bool:
    memory = known.memory
    often = known.times >= habits.times or memory.key in before
    ends = memory.valid_to or memory.expires_at or is_former(memory.text, memory.value)
    return memory.kind == "semantic" and often and not ends


def decay(known: Sequence[Known], now: datetime, *, habits: Habits = HABITS) -> list[Group]:
    """Halve the importance of what was not said for long, by whole half-lives, down to the floor."""
    operations: list[Operation] = []
    for each in known:
        memory = each.memory
        if memory.kind not in ("semantic", "episodic"):
            continue
        halvings = int((now - each.said) / (habits.half_life * each.times))
        importance = max(habits.floor, each.importance * 0.5**halvings)
        if halvings > 0 and memory.importance - importance > 1e-4:  # a store keeps single precision
            operations.append(_revision(each, memory.text, importance=importance, reason="unsaid for long"))
    return [Group(tuple(operations))] if operations else []


def summarise(
    known: Sequence[Known], now: datetime, *, by: Summarise | None = None, habits: Habits = HABITS
) -> list[Group]:
    """Put one episodic memory in place of several old ones of one subject and month, with their evidence.

    `by` words it; what it says must be in the events, else, and without `by` or where that fails, they are
    told one after the other, in as many memories as their length asks for. What is to expire is left to that.
    """
    months: dict[tuple[str, str], list[Known]] = {}
    for each in sorted(known, key=lambda one: (_since(one.memory), one.memory.key)):
        memory, fact = each.memory, fact_of(each.memory)
        if memory.kind != "episodic" or memory.valid_from is None or memory.expires_at is not None:
            continue
        if memory.valid_from > now - habits.old:
            continue
        if fact is None or fact.attribute != SUMMARY:
            subject = fact.subject if fact else "user"
            months.setdefault((subject, f"{memory.valid_from:%Y-%m}"), []).append(each)
    return [
        _summary(subject, part, text)
        for (subject, _), events in months.items()
        if len(events) >= habits.events
        for part, text in _worded(events, by, habits)
    ]


def _summary(subject: str, events: Sequence[Known], text: str) -> Group:
    keys = [each.memory.key for each in events]
    value = {"subject": subject, "attribute": SUMMARY, "value": text, "of": keys}
    named = hashlib.sha256("\0".join(sorted(keys)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    key = f"{SUMMARY}:{named}"  # two at once write it once
    insert = Insert(
        key=key,
        kind="episodic",
        text=text,
        value=value,
        importance=max(each.memory.importance for each in events),
        valid_from=events[0].memory.valid_from,
        evidence=_evidence(events),
        reason="summarised",
    )
    deletes = [
        Delete(
            key=each.memory.key,
            version=each.memory.version,
            evidence=each.evidence,
            reason=f"summarised in {key}",
        )
        for each in events
    ]
    return Group((insert, *deletes), {key: 0, **_versions(events)})


def _worded(
    events: Sequence[Known], by: Summarise | None, habits: Habits
) -> Iterator[tuple[Sequence[Known], str]]:
    if by is not None:
        text = _said_by(by, events)
        if text and len(text) <= habits.limits.characters and _holds(text, events):
            yield events, text
            return
    part: list[Known] = []
    for each in events:
        if part and len(_told([*part, each])) > habits.limits.characters:
            if len(part) > 1:  # one alone stays what it is
                yield part, _told(part)
            part = []
        part.append(each)
    if len(part) > 1:
        yield part, _told(part)


def _said_by(by: Summarise, events: Sequence[Known]) -> str:
    """What `by` says in one line; nothing, where it fails."""
    try:
        return line_of(by([each.memory for each in events]))
    except Exception as error:  # noqa: BLE001 - whatever a model trips over, the events are told without it
        logger.warning("No summary was worded (%s); the events are told as they are", type(error).__name__)
        return ""


def _told(events: Iterable[Known]) -> str:
    """Each event with its day."""
    return " ".join(f"{_day(each.memory)}: {line_of(each.memory.text)}" for each in events)


def _holds(text: str, events: Sequence[Known]) -> bool:
    turns = [
        Turn(key=each.memory.key, role="user", text=_told([each]), at=each.memory.valid_from or each.said)
        for each in events
    ]
    return not (ungrounded(text, turns, None) or SAFETY.judge(Insert(text=text)))


def _revision(
    known: Known,
    text: str,
    *,
    importance: float | None = None,
    evidence: tuple[str, ...] = (),
    reason: str,
) -> Update:
    """The same memory, refined: what it says and since when stays."""
    return Update(
        key=known.memory.key,
        version=known.memory.version,
        text=text,
        mode="refine",
        importance=importance,
        evidence=evidence or known.evidence,
        reason=reason,
    )


def _evidence(known: Iterable[Known]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for each in known for key in each.evidence))


def _since(memory: Memory) -> datetime:
    since = memory.valid_from or memory.created_at or datetime.min
    return since if since.tzinfo else since.replace(tzinfo=UTC)


def _day(memory: Memory) -> str:
    return f"{memory.valid_from:%Y-%m-%d}" if memory.valid_from else ""
