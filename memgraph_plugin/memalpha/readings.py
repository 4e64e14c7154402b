"""What a turn of the user says, clause by clause, whatever is remembered. Pure; English first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from memgraph_plugin.memalpha.facts import OF_RELATION, RELATION, Fact, read_clause
from memgraph_plugin.memalpha.grammar import first_person, is_past, told_of, written_out
from memgraph_plugin.memalpha.sentences import own_clauses
from memgraph_plugin.memalpha.times import SaidTime, find_times
from memgraph_plugin.memalpha.words import words
from memgraph_plugin.types import Turn


@dataclass(frozen=True, slots=True)
class Stated:
    """It is so, since `when` where that was said. `correcting`: it was wrongly remembered before."""

    fact: Fact
    when: SaidTime | None = None
    correcting: bool = False


@dataclass(frozen=True, slots=True)
class Happened:
    """A dated event, told in the third person."""

    text: str
    when: SaidTime
    subject: str


@dataclass(frozen=True, slots=True)
class Ended:
    """It is no longer so, or (`wrong`) never was. `event` stands in where nothing of it is remembered."""

    facts: tuple[Fact, ...]
    wrong: bool
    event: Happened | None = None


@dataclass(frozen=True, slots=True)
class Swapped:
    """ "No, it's Porto": another value for what was just talked about, or for what had the value `old`."""

    new: str
    old: str | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """What the user asked to remember and no rule reads."""

    text: str
    subject: str


@dataclass(frozen=True, slots=True)
class Unwanted:
    """What the user asked to forget: the facts that it states, and its words."""

    what: str
    facts: tuple[Fact, ...]


Finding: TypeAlias = Stated | Ended | Swapped | Happened | Noted | Unwanted

_REMEMBER = re.compile(
    r"^(?:please\s+)?(?:do not forget|remember|note|keep in mind|bear in mind|make a note|take note|"
    r"memori[sz]e)\b"
    r"(?P<to> to\b)?(?:\s+(?:that|this|of this)\b)?[\s:,]*(?P<what>.+)$",
    re.I,
)
_FORGET = re.compile(
    r"^(?:please\s+)?(?:forget|stop remembering|do not remember|(?:delete|remove|erase|"
    r"wipe)(?=\s+(?:what|everything|anything|"
    r"that i|my|the (?:fact|memory|note)|from (?:your |the )?memory)\b))\s+(?P<what>.+)$",
    re.I,
)
_MAY_FORGET = re.compile(r"\b(?:forget|remember|remembering|delete|remove|erase|wipe)\b", re.I)
_FORGET_LEAD = re.compile(
    r"^(?:(?:from (?:your |the )?memory|what(?:ever)?|everything|anything|all|the (?=fact|memory|note|"
    r"information)|fact|memory|note|"
    r"information|you (?:know|remember)|i (?:said|told you)|about|that|of)\b[\s:,]*)+",
    re.I,
)
_CUE = re.compile(
    r"^(?:(?:no|nope|actually|sorry|correction|wait|oops|my mistake|my bad|i misspoke|i was wrong|"
    r"that is wrong|i mean|i meant)"
    r"(?:\b[\s,.:!-]+|$))+(?:to say )?",
    re.I,
)
_CHANGE = re.compile(
    r"\b(?:moved|relocated|now|switched|changed|joined|started|became|become|turned|got|these days)\b", re.I
)
_NOT_X_BUT_Y = (
    re.compile(
        r"^(?P<head>my .+? is|i am|it is|) ?not (?P<old>.+?)(?:,? but |,\s*)(?:it is |rather )?(?P<new>.+)$",
        re.I,
    ),
    re.compile(
        r"^i do not (?P<verb>\w+(?: in| at| as| for)?) (?P<old>.+?),? but (?:(?:in|at|as|for) )?(?P<new>.+)$",
        re.I,
    ),
)
_Y_NOT_X = re.compile(
    r"^(?P<claim>.+?)(?<!\bdo)(?<!\bdoes)(?<!\bdid),? (?:and )?not (?:in |at |as )?(?P<old>[\w' -]{1,60})$",
    re.I,
)
_IT_IS = re.compile(r"^(?P<lead>(?:it|that) (?:is|was|should be) )?(?P<new>[\w'-]+(?: [\w'-]+){0,4})$", re.I)
_NO_VALUE = re.compile(
    r"^(?:thanks?|thank you|fine|ok(?:ay)?|good|great|right|correct|true|false|wrong|problem|worries|"
    r"not|nothing|all|that|this|"
    r"it|too|so|just|because|about|for|what|my|i|we|you|the (?:same|other|problem)|really|very|pretty|"
    r"been|going|done)\b",
    re.I,
)
_ENDED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^i (?:do not|no longer) (.+?)(?: any ?more| any longer)?$", re.I), r"i \1"),
    (re.compile(r"^i am (?:not|no longer) (.+?)(?: any ?more| any longer)?$", re.I), r"i am \1"),
    (re.compile(r"^(my .+?) is (?:not|no longer) (.+?)(?: any ?more| any longer)?$", re.I), r"\1 is \2"),
    (
        re.compile(
            r"^i (?:have )?(?:quit|left|resigned from|got fired from|was fired from|"
            r"was laid off from) (?:my job |working |work )?"
            r"(?:at |for )?(.+)$",
            re.I,
        ),
        r"i work at \1",
    ),
    (re.compile(r"^i (?:have )?(?:sold|lost|gave away|given away) my (.+)$", re.I), r"i own a \1"),
    (re.compile(r"^i (?:have )?(?:stopped|quit|gave up|given up) (?:playing )?(.+)$", re.I), r"i play \1"),
)
_NO_LONGER = re.compile(
    r"\b(?:no longer|any ?more|any longer|quit|left|resigned|fired|laid off|sold|lost|stopped|ga?ve|given)\b",
    re.I,
)
_JOB_AT = re.compile(
    r"^(?P<job>i (?:am|work as|am working as) an? [\w -]+?) (?:at|for) (?P<place>(?-i:[A-Z]).+)$", re.I
)
_OF_OTHERS = frozenset(
    words(
        """location origin job employer age allergy diet likes dislikes language plays studies learning health
        condition owns avoids birthplace"""
    )
) | {"marital status", "birth date", "birth year"}
_STATES = re.compile(r"\b(?:i|my|we|our|is|are|was|were|has|have|will|must|should|can|cannot)\b|\d", re.I)
_TIMED = ("plan", "wish")
_COMING = frozenset(
    words("will going planning leaves starts arrives begins booked flying visiting meeting moving expecting")
)
_HAVE_AN = re.compile(
    r"^i have an? (?:[\w-]+ ){0,3}(?:appointment|meeting|interview|flight|exam|test|wedding|trip|deadline|"
    r"party|concert|surgery|race|match|date|call)\b",
    re.I,
)
_POINTS = re.compile(
    r"^(?:i|we) (?:will )?(?:\w+ly )?(?:remember\b|\w+ (?:it|them|that|this|these|those|one|some)\b)", re.I
)
_NEVER_HAPPENED = re.compile(r"\b(?:(?:could|should|would|might|must) have|almost|nearly|never)\b", re.I)
_YOU = re.compile(r"\b(?:you|your|yours)\b", re.I)


def read_turn(turn: Turn) -> Iterator[Finding]:
    """What the turn says, in order. Nothing but the turn's own statements and wishes is read."""
    cue = False
    for said in own_clauses(turn.text):
        clause = written_out(said)
        rest = _CUE.sub("", clause)
        cue = cue or rest != clause
        rest = _time_last(written_out(rest), turn)
        if rest:
            yield from _read(rest, turn, cue, changed=bool(_CHANGE.search(said)))
            cue = False


def unwanted_in(turn: Turn) -> list[str]:
    """The words of what the turn asks to forget; most turns are not read for it."""
    if not _MAY_FORGET.search(turn.text):
        return []
    return [each.what for each in read_turn(turn) if isinstance(each, Unwanted)]


def speaker(turn: Turn) -> tuple[str, str]:
    """Whom the turn's "I" means: as a fact's subject, and as it is written in a sentence."""
    return (turn.speaker.casefold(), turn.speaker) if turn.speaker else ("user", "The user")


def _read(clause: str, turn: Turn, cue: bool, *, changed: bool) -> Iterator[Finding]:
    if forget := _FORGET.match(clause):
        what = _FORGET_LEAD.sub("", forget["what"])
        yield Unwanted(what, tuple(stated.fact for stated in _facts(written_out(what), turn)))
        return
    if remember := _REMEMBER.match(clause):
        yield from _remember(remember["what"].strip(), turn, reminder=bool(remember["to"]))
        return
    findings = list(_swap(clause, turn)) or [
        Stated(stated.fact, stated.when, cue and not changed) for stated in _facts(clause, turn)
    ]
    findings = findings or list(_denial(clause, turn)) or list(_event(clause, turn))
    if not findings and cue:
        findings = list(_elliptical(clause))
    yield from findings


def _facts(clause: str, turn: Turn) -> Iterator[Stated]:
    subject, name = speaker(turn)
    one = "I" if clause[:1].isupper() else "i"
    clause = re.sub(r"^we ", f"{one} ", re.sub(r"^we are ", f"{one} am ", clause, flags=re.I), flags=re.I)
    job = _JOB_AT.match(clause)
    for part in (job["job"], f"i work at {job['place']}") if job else (clause,):
        yield from _facts_of(part, turn, subject, name)
    belonging = OF_RELATION.match(clause)
    if belonging:
        who = belonging["who"]
        yield from _facts_of(
            f"my {belonging['rest']}", turn, f"{subject}'s {who.casefold()}", f"{name}'s {who}"
        )
    other = RELATION.match(clause)
    if other and (verb := first_person(other["verb"])):
        who = " ".join(part for part in (other["who"], other["name"]) if part)
        theirs = _facts_of(
            f"i {verb} {other['rest']}", turn, f"{subject}'s {who.casefold()}", f"{name}'s {who}"
        )
        yield from (stated for stated in theirs if stated.fact.attribute in _OF_OTHERS)


def _facts_of(clause: str, turn: Turn, subject: str, name: str) -> Iterator[Stated]:
    times = find_times(clause, turn.at)
    since = next((time for time in times if time.first <= turn.at.date()), None)
    facts = list(read_clause(_with_times(clause, times, keep=False), subject, name))
    if not facts or facts[0].attribute.startswith("birth") or facts[0].attribute in _TIMED:
        dated = facts and facts[0].attribute in _TIMED
        facts = (
            list(read_clause(_with_times(clause, times, keep=True) if dated else clause, subject, name))
            or facts
        )
        since = None
    yield from (Stated(fact, since) for fact in facts)


def _with_times(clause: str, times: Sequence[SaidTime], *, keep: bool) -> str:
    """The clause with its times made absolute, or left out."""
    for time in reversed(times):
        clause = f"{clause[: time.begin]}{time.phrase() if keep else ''}{clause[time.end :]}"
    return re.sub(r"\s+(?=[,.])", "", " ".join(clause.split())).strip(" ,")


def _time_last(clause: str, turn: Turn) -> str:
    """ "Yesterday I ran" -> "I ran Yesterday": what a clause is about begins it."""
    first = next(iter(find_times(clause, turn.at)), None)
    if first is None or first.begin:
        return clause
    return written_out(f"{clause[first.end :].strip(' ,')} {clause[: first.end]}")


def _swap(clause: str, turn: Turn) -> Iterator[Finding]:
    """ "Not X but Y", "Y, not X", with or without the rest of the sentence."""
    for pattern in _NOT_X_BUT_Y:
        match = pattern.match(clause)
        if match:
            head = f"i {match['verb']}" if "verb" in match.groupdict() else match["head"]
            if head.lower() in ("", "it is"):
                yield Swapped(match["new"], match["old"])
            else:
                yield from (
                    Stated(stated.fact, stated.when, True)
                    for stated in _facts(f"{head} {match['new']}", turn)
                )
            return
    match = _Y_NOT_X.match(clause)
    if match:
        facts = list(_facts(match["claim"], turn))
        if facts:
            yield from (Stated(stated.fact, stated.when, True) for stated in facts)
        elif (claim := _IT_IS.match(match["claim"])) and claim["lead"]:
            yield Swapped(claim["new"], match["old"])


def _elliptical(clause: str) -> Iterator[Finding]:
    match = _IT_IS.match(clause)
    if match and not _NO_VALUE.match(match["new"]) and (match["lead"] or re.match(r"[A-Z\d]", match["new"])):
        yield Swapped(match["new"])


def _denial(clause: str, turn: Turn) -> Iterator[Finding]:
    for pattern, positive in _ENDED:
        if pattern.match(clause):
            facts = tuple(stated.fact for stated in _facts(pattern.sub(positive, clause), turn))
            if facts:
                event = next(_event(clause, turn), None)
                yield Ended(facts, wrong=not _NO_LONGER.search(clause), event=event)
                return


def _event(clause: str, turn: Turn) -> Iterator[Happened]:
    times = find_times(clause, turn.at)
    verbs = [word.strip(",.'").lower() for word in clause.split()[1:6]]
    tells = re.match(r"^(?:i|we|my)\b", clause, re.I) and not _YOU.search(clause)
    if not times or not tells or "not" in verbs or _POINTS.match(clause) or _NEVER_HAPPENED.search(clause):
        return
    if any(is_past(verb) or verb in _COMING for verb in verbs) or _HAVE_AN.match(clause):
        subject, name = speaker(turn)
        yield Happened(told_of(name, _with_times(clause, times, keep=True)), times[0], subject)


def _remember(what: str, turn: Turn, *, reminder: bool) -> Iterator[Finding]:
    subject, name = speaker(turn)
    clause = written_out(what)
    if reminder:
        dated = _with_times(clause, find_times(clause, turn.at), keep=True)
        yield Noted(told_of(name, f"i want to be reminded to {dated}"), subject)
        return
    if re.match(r"^(?:when|how|what|who|where|why|if|me|us|it|this|that)\b", clause, re.I):
        return
    findings: list[Finding] = [*_facts(clause, turn)] or [*_denial(clause, turn)] or [*_event(clause, turn)]
    dated = _with_times(clause, find_times(clause, turn.at), keep=True)
    noted = [Noted(told_of(name, dated), subject)] if _STATES.search(clause) else []
    yield from findings or noted


def moment_of(when: SaidTime | None, turn: Turn) -> datetime:
    """When it began: as said, else when it was told."""
    return when.moment(turn.at) if when else turn.at
