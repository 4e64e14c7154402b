"""When are two texts about the same, when do they say the same, when do they contradict each other? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memgraph_plugin.memalpha.facts import fact_in, fact_of, same_value
from memgraph_plugin.memalpha.grounding import atoms
from memgraph_plugin.memalpha.words import content_words, overlap, words
from memgraph_plugin.types import Hit, Insert, Memory, NoOp, Operation, Update

RELATED = 0.6
"""Share of content words that two texts of no known attribute must have in common to be about the same."""

NEAR = 0.95
"""Cosine from which two texts are taken to say the same, if nothing in them tells them apart."""

_TURNING = frozenset(
    words(
        """not no nor never none nobody nothing cannot can't don't doesn't didn't isn't wasn't aren't won't
        without longer former formerly stopped quit dislikes hates before until except"""
    )
)
"""Words that turn a sentence into its opposite and hardly move its vector."""


def about(target: Memory) -> frozenset[str]:
    """The words that mean a memory: its own, and those of its subject, attribute and value."""
    named = (said for name, said in target.value.items() if name in ("attribute", "value"))
    return content_words(" ".join([target.text, *(said for said in named if isinstance(said, str))]))


def related(operation: Update, target: Memory, denied: frozenset[str]) -> bool:
    """Whether both are about the same subject and attribute, or at least in much the same words.

    Of what one can have several, as things that one likes, another one is not the same: unless its words are
    `denied` (`wishes.Wishes`), or something is, and the operation corrects.
    """
    new, old = fact_in(operation.text, operation.value or {}), fact_of(target)
    if new and old and new.subject == old.subject and new.attribute == old.attribute:
        return (
            old.single
            or same_value(new.value, old.value)
            or bool(denied & content_words(old.value))
            or bool(denied and operation.mode == "correct")
            or overlap(operation.text, target.text) >= RELATED / 2
        )
    if new and old and new.subject != old.subject:
        return False
    return overlap(operation.text, target.text) >= RELATED


def outdated(operations: Sequence[Insert | Update | None], turns: Sequence[str]) -> set[int]:
    """Those that give something one value which has but one, where another, said later, gives it another.

    `turns` are the keys of the turns in the order in which they were said.
    """
    latest: dict[tuple[str, str], tuple[int, int, str]] = {}
    found: set[int] = set()
    order = {key: place for place, key in enumerate(turns)}
    for index, operation in enumerate(operations):
        fact = operation and fact_in(operation.text, operation.value or {})
        if not operation or not fact or not fact.single or not fact.value:
            continue
        told = (max(order[key] for key in operation.evidence), index, fact.value)
        before = latest.setdefault((fact.subject, fact.attribute), told)
        if not same_value(before[2], told[2]):
            older, newer = sorted((before, told))
            latest[fact.subject, fact.attribute] = newer
            found.add(older[1])
    return found


def take_over(older: Operation, accepted: list[Operation]) -> None:
    """What an update was to replace is replaced by the newer insert of the same fact, in place."""
    if not isinstance(older, Update):
        return
    told = fact_in(older.text, older.value or {})
    for index, newer in enumerate(accepted):
        said = fact_in(newer.text, newer.value) if isinstance(newer, Insert) else None
        if told and said and (told.subject, told.attribute) == (said.subject, said.attribute):
            assert isinstance(newer, Insert)  # noqa: S101 - what says something
            accepted[index] = Update(
                key=older.key,
                version=older.version,
                text=newer.text,
                mode=older.mode,
                value=newer.value,
                importance=newer.importance,
                valid_from=newer.valid_from,
                evidence=newer.evidence,
                reason=newer.reason,
            )
            return


def without_near_duplicates(
    operations: Sequence[Operation], near: Mapping[str, Sequence[Hit]]
) -> tuple[Operation, ...]:
    """The operations, each insert that says what is remembered already as a `NoOp`.

    `near` has what a store found nearest to the text of an insert, with the cosine.
    """
    return tuple(
        NoOp(reason=f"duplicate_of:{known.key}", evidence=operation.evidence)
        if isinstance(operation, Insert) and (known := _known(operation, near.get(operation.text, ())))
        else operation
        for operation in operations
    )


def _known(insert: Insert, hits: Sequence[Hit]) -> Memory | None:
    near = (hit.memory for hit in hits if hit.cosine is not None and hit.cosine >= NEAR)
    return next((memory for memory in near if _says_the_same(insert, memory)), None)


def _says_the_same(insert: Insert, memory: Memory) -> bool:
    """Whether nothing tells them apart that a vector hardly shows: a name, a number, a day, a "not"."""
    if insert.kind != memory.kind or atoms(insert.text) != atoms(memory.text):
        return False
    if set(words(insert.text)) & _TURNING != set(words(memory.text)) & _TURNING:
        return False
    if insert.kind == "episodic" and insert.valid_from and memory.valid_from:
        return insert.valid_from.date() == memory.valid_from.date()
    new, old = fact_in(insert.text, insert.value), fact_of(memory)
    if new is None or old is None:
        return True
    if new.subject != old.subject:
        return False
    return new.attribute != old.attribute or not new.value or same_value(new.value, old.value)
