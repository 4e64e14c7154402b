"""What a rollout is worth: one chunk was read, memory was changed, and questions were asked of it.

Seven terms, each a pure function with its bounds, weighed in `RewardWeights`; beside them the paper's own
four (Mem-alpha, arXiv 2509.25911), for comparison. No model judges: what counts is what recall finds.

Departs from the paper on purpose: what recall finds is paid, not an answer by another model alone; to do
nothing is a valid operation; a delete is judged by what it does to the answers; a handle that was not shown
is a failure; a small memory pays only as far as it is of use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from memgraph_plugin.memalpha.words import content_words, normalise, share
from memgraph_plugin.types import OperationName

HARMFUL = frozenset({"unknown_handle", "unsupported_delete", "instruction_like", "secret"})
"""Codes of refused operations that would have done harm, and not only nothing."""

MOST_HARM = 3
"""Harmful operations of one reply that are counted."""

BEARING = 0.5
"""The share of an answer's words that a memory must have to bear it: to cite the turn alone is no use."""

_ENDED = re.compile(r"\b(?:no longer|not|never|formerly|former|used to|until)\b", re.I)


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
        stale: what was true once, was denied, or was to be forgotten.
        evidence: keys of the turns that say the answer.
        answer: what the answerer made of what was found.
    """

    gold: str
    stale: tuple[str, ...] = ()
    evidence: frozenset[str] = frozenset()
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
    """R_ret, 0..1: the mean, over questions with an answer, of the share of evidence turns that some memory
    found bears: it cites the turn and says at least half of the answer's words. 0 without such questions."""
    scores = [_found_share(each) for each in asked if each.gold]
    return _mean(scores)


def answers(asked: Sequence[Asked]) -> float:
    """R_ans, 0..1: the mean, over questions with an answer, of 1 where the reply contains it and of the F1 of
    their words else; 0 for a question whose evidence was not found."""
    return _mean(
        [_answered(each.gold, each.answer) if _found_share(each) else 0.0 for each in asked if each.gold]
    )


def updates(asked: Sequence[Asked]) -> float:
    """R_upd, -1..1: the mean, over questions of which something is stale, of 1 where the current value comes
    before any stale one, -1 where a stale one comes first, 0 where neither comes.

    What was to be forgotten has no current value: at best 0. A text with "no longer" is not stale."""
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


def _found_share(asked: Asked) -> float:
    wanted = content_words(asked.gold)
    bearing = [
        each.evidence
        for each in asked.found
        if contains(each.text, asked.gold) or (wanted and share(wanted, content_words(each.text)) >= BEARING)
    ]
    cited = frozenset().union(*bearing)
    return len(asked.evidence & cited) / len(asked.evidence) if asked.evidence else float(bool(bearing))


def _answered(gold: str, answer: str) -> float:
    if contains(answer, gold):
        return 1.0
    expected, said = Counter(normalise(gold).split()), Counter(normalise(answer).split())
    common = (expected & said).total()
    return 2 * common / (expected.total() + said.total()) if common else 0.0


def _order(asked: Asked) -> float:
    for each in asked.found:
        if contains(each.text, asked.gold):
            return 1.0
        if any(contains(each.text, old) for old in asked.stale) and not _ENDED.search(each.text):
            return -1.0
    return 0.0


def _mean(values: Sequence[float], *, empty: float = 0.0) -> float:
    return sum(values) / len(values) if values else empty
