"""What a rollout is worth: one chunk was read, memory was changed, and questions were asked of it.

Seven terms, each a pure function with its bounds, weighed in `RewardWeights`; beside them the paper's own
four (Mem-alpha, arXiv 2509.25911), for comparison. No model judges: what counts is what recall finds.

Departs from the paper on purpose: what recall finds is paid, not an answer by another model alone; to do
nothing is a valid operation; a delete is judged by what it does to the answers; a handle that was not shown
is a failure; a small memory pays only as far as it is of use.

A memory bears an answer if it says at least half of its words, affirms it, says it of the user and not in
words of "I" and "my", and says what of the user it is, where the question's attribute is known: a turn's
words copied into memory bear little, and a denial nothing. English, as the rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from memgraph_plugin.memalpha.facts import ALIASES, fact_in, read_clause
from memgraph_plugin.memalpha.words import content_words, normalise, share, stem, words
from memgraph_plugin.types import OperationName

HARMFUL = frozenset(
    {"unknown_handle", "unsupported_delete", "delete_all", "no_user_evidence", "instruction_like", "secret"}
)
"""Codes of refused operations that would have done harm, and not only nothing."""

MOST_HARM = 3
"""Harmful operations of one reply that are counted."""

BEARING = 0.5
"""The share of an answer's words that a memory must have to bear it: to cite the turn alone is no use."""

_DENIED = re.compile(
    r"\b(?:no longer|not|never|no|false|former(?:ly)?|ex|previous(?:ly)?|used to|once|gave up|given up|"
    r"stopped|quit|dropped|ended|until)\b|n['’]t\b",
    re.I,
)
_CLAUSE = re.compile(r"[,;:.]|\bbut\b")
_OWN = re.compile(r"\b(?:I|i|[Mm]y|[Mm]ine|[Mm]e|[Ww]e|[Oo]ur)\b")
_USERS = re.compile(r"^the user(?P<whose>['’]s)? (?P<verb>\w+)", re.I)
_FIRST = {"is": "am", "has": "have", "does": "do", "was": "was"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardWeights:
    """What each term counts for in the sum.

    Compression at 0.2, and memories of a question within 20 tokens (`Environment`): where it was 0.05 and
    within 60, to copy every turn paid more than the rules on generated timelines (1.40 against 1.15).
    """

    retrieval: float = 1.0
    answer: float = 0.5
    update: float = 0.5
    format: float = 0.1
    compression: float = 0.2
    grounding: float = 0.2
    harm: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A memory that was found for a question, and the keys of the turns that it rests on."""

    text: str
    evidence: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and what was found for it, best first.

    Args:
        gold: the answer; "" of a question about something that was to be forgotten.
        question, attribute: what was asked, and what of the user that is, as in `facts`; "" where unknown.
        stale: what was true once, was denied, or was to be forgotten.
        evidence: keys of the turns that say the answer, each by itself.
        ended: keys of the turns that say that something stale is not so (any more).
        answer: what the answerer made of what was found.
    """

    gold: str
    question: str = ""
    attribute: str = ""
    stale: tuple[str, ...] = ()
    evidence: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    found: tuple[Recalled, ...] = ()
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One proposed operation, and what became of it: a `code` where it was refused."""

    operation: OperationName
    code: str | None = None
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that a reward may look at.

    Args:
        supported: of each proposed insert and update, the share of its words that its evidence says, or what
            it changes; 0 where a name, a number or a date is of neither.
        readable: whether the reply could be read at all.
        before, read, after: tokens of the memory, of the turns, of the memory that was made of both.
    """

    asked: tuple[Asked, ...]
    calls: tuple[Call, ...]
    supported: tuple[float, ...] = ()
    readable: bool = True
    before: int = 0
    read: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """The terms of one rollout, in the order of `RewardWeights`."""

    retrieval: float
    answer: float
    update: float
    format: float
    compression: float
    grounding: float
    harm: float

    def total(self, weights: RewardWeights) -> float:
        """The weighted sum; by the default weights between -2 and 2.5."""
        return float(sum(getattr(weights, name) * getattr(self, name) for name in TERMS))


TERMS = tuple(RewardWeights.__dataclass_fields__)


def rewards(outcome: Outcome) -> Rewards:
    """Every term of a rollout."""
    return Rewards(
        retrieval=retrieval(outcome.asked),
        answer=answers(outcome.asked),
        update=updates(outcome.asked),
        format=well_formed(outcome),
        compression=compression(outcome),
        grounding=grounding(outcome),
        harm=harm(outcome.calls),
    )


def retrieval(asked: Sequence[Asked]) -> float:
    """R_ret, 0..1: the share of questions with an answer for which a memory was found that bears it and cites
    a turn that says it: any one, else each repetition would have to be noted. 0 without such questions."""
    return _mean([float(_is_found(each)) for each in asked if each.gold])


def answers(asked: Sequence[Asked]) -> float:
    """R_ans, 0..1: the mean, over questions with an answer, of 1 where the reply contains it and of the F1 of
    their words else; 0 where it denies it, or where no memory that bears the answer was found."""
    return _mean([_answered(each) if _is_found(each) else 0.0 for each in asked if each.gold])


def updates(asked: Sequence[Asked]) -> float:
    """R_upd, -1..1: the mean, over questions of which something is stale, of 1 where a memory that bears the
    current value comes before any stale one, -1 where a stale one comes first, 0 where neither comes.

    What was to be forgotten has no current value: at best 0. A text with "no longer" is not stale where it
    cites the turn that says so."""
    return _mean([_order(each) for each in asked if each.stale])


def well_formed(outcome: Outcome) -> float:
    """R_fmt, 0..1: valid operations / operations. To do nothing is valid, and so is an empty list; what
    cannot be read is 0."""
    if not outcome.readable:
        return 0.0
    return _mean([float(call.code is None) for call in outcome.calls], empty=1.0)


def compression(outcome: Outcome) -> float:
    """R_cmp, 0..1: clip(1 - what memory has grown by / what was read, 0, 1) in tokens, times R_ret: an empty
    memory is small, and worth nothing."""
    grown = outcome.after - outcome.before
    saved = 1 - grown / outcome.read if outcome.read else 0.0
    return min(max(saved, 0.0), 1.0) * retrieval(outcome.asked)


def grounding(outcome: Outcome) -> float:
    """R_grd, 0..1: the mean, over proposed writes, of the share of their words that is supported. 1 where
    nothing was written, else a needless memory would pay; 0 where nothing could be read."""
    return _mean(outcome.supported, empty=float(outcome.readable))


def harm(calls: Sequence[Call]) -> float:
    """R_harm, -3..0: minus the number of operations refused as harmful (`HARMFUL`), three at most."""
    return -float(min(sum(call.code in HARMFUL for call in calls), MOST_HARM))


# The paper's own.


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRewards:
    """Mem-alpha's r1..r4 and their sum r1 + r2 + 0.05 r3 + 0.1 r4, of a trajectory of one chunk."""

    correctness: float
    tool_format: float
    compression: float
    content: float

    def total(self, *, beta: float = 0.05, gamma: float = 0.1) -> float:
        return self.correctness + self.tool_format + beta * self.compression + gamma * self.content


def paper_rewards(outcome: Outcome) -> PaperRewards:
    """What Mem-alpha would have paid.

    r1, 0..1: the share of questions whose answer is contained in the reply. r2, 0..1: successful calls /
    calls, 0 without one; a duplicate fails, a delete of what is not there succeeds. r3, at most 1 and
    unbounded below: 1 - memory / chunk in tokens. r4, 0..1: the share of calls whose text is fit for its
    kind, where deletes never are; their judge is a model of 32B, ours is the validator.
    """
    calls = [call for call in outcome.calls if call.operation != "noop" or call.duplicate]  # it has no no-op
    succeeded = [
        not call.duplicate
        and (call.code is None or (call.operation == "delete" and call.code == "unknown_handle"))
        for call in calls
    ]
    fit = [call.code is None and call.operation in ("insert", "update") for call in calls]
    return PaperRewards(
        correctness=_mean([float(contains(each.answer, each.gold)) for each in outcome.asked if each.gold]),
        tool_format=_mean([float(each) for each in succeeded]),
        compression=1 - outcome.after / outcome.read if outcome.read else 0.0,
        content=_mean([float(each) for each in fit]),
    )


# Parts.


def contains(text: str, value: str) -> bool:
    """Whether the words of `value` stand in `text`, in their order; case and punctuation aside."""
    return bool(value) and f" {normalise(value)} " in f" {normalise(text)} "


def denies(text: str) -> bool:
    """Whether a text says of something that it is not so, or no longer."""
    return bool(_DENIED.search(text))


def _is_found(asked: Asked) -> bool:
    return any(
        _bears(asked, each.text) and (not asked.evidence or asked.evidence & each.evidence)
        for each in asked.found
    )


def _bears(asked: Asked, text: str) -> bool:
    """Whether a memory of this text gives the answer (the module says when)."""
    wanted, said = content_words(asked.gold), content_words(text)
    return (
        (contains(text, asked.gold) or (bool(wanted) and share(wanted, said) >= BEARING))
        and _affirms(asked, text)
        and (not _OWN.search(text) or bool(_OWN.search(asked.gold)))
        and (not asked.attribute or _is_about(asked, text))
    )


def _affirms(asked: Asked, text: str) -> bool:
    """Whether the text denies as much as the answer does. "no longer in Lisbon" beside it denies nothing."""
    parts = (
        part
        for part in _CLAUSE.split(text)
        if not (denies(part) and any(contains(part, old) for old in asked.stale))
    )
    return denies(" ".join(parts)) == denies(asked.gold)


def _is_about(asked: Asked, text: str) -> bool:
    """Whether a text names the attribute, states it in a known way, or has a word of the question's own."""
    named = (asked.attribute, *(alias for alias, name in ALIASES.items() if name == asked.attribute))
    meant = {stem(word) for name in named if " " not in name for word in words(name)}
    meant |= content_words(f"{asked.question} {asked.attribute}") - content_words(asked.gold)
    return asked.attribute in _attributes(text) or not meant.isdisjoint(map(stem, words(text)))


@lru_cache(maxsize=4096)  # the same memories are found for many questions of many rollouts
def _attributes(text: str) -> frozenset[str]:
    """What of the user a text states: as the rules write it, or as the user would say it of themselves."""
    written = fact_in(text, {})
    said = (fact.attribute for fact in read_clause(_as_said(text), "user", "The user"))
    return frozenset([*said, *([written.attribute] if written and written.subject == "user" else [])])


def _as_said(text: str) -> str:
    """A sentence about the user in the user's mouth: "The user enjoys tea." is "I enjoy tea"."""

    def said(match: re.Match[str]) -> str:
        verb = match["verb"]
        return f"My {verb}" if match["whose"] else f"I {_FIRST.get(verb.lower()) or verb.removesuffix('s')}"

    return _USERS.sub(said, text).removesuffix(".")


def _answered(asked: Asked) -> float:
    if not _affirms(asked, asked.answer):
        return 0.0
    if contains(asked.answer, asked.gold):
        return 1.0
    expected, said = Counter(normalise(asked.gold).split()), Counter(normalise(asked.answer).split())
    common = (expected & said).total()
    return 2 * common / (expected.total() + said.total()) if common else 0.0


def _order(asked: Asked) -> float:
    for each in asked.found:
        if _bears(asked, each.text):
            return 1.0
        if _misleads(asked, each):
            return -1.0
    return 0.0


def _misleads(asked: Asked, found: Recalled) -> bool:
    """Whether it tells something stale: not beside the answer, nor as ended by a turn that does end it."""
    if not any(contains(found.text, old) for old in asked.stale):
        return False
    if contains(found.text, asked.gold) and _affirms(asked, found.text):
        return False
    return not (denies(found.text) and asked.ended & found.evidence)


def _mean(values: Sequence[float], *, empty: float = 0.0) -> float:
    return sum(values) / len(values) if values else empty
