"""The model proposes, code disposes: every operation passes these rules, in order, before a store sees it.

What breaks a rule becomes a rejected `Receipt` with a code (`prompts.REJECTIONS` says what each means).
Two faults are
mended instead: a duplicate becomes a `NoOp`, and an update of an unrelated memory becomes an `Insert`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from memgraph_plugin.errors import OperationRejected
from memgraph_plugin.memalpha.facts import fact_in, fact_of, same_value
from memgraph_plugin.memalpha.grounding import ungrounded
from memgraph_plugin.memalpha.safety import is_instruction, is_secret
from memgraph_plugin.memalpha.words import content_words, normalise, overlap, words
from memgraph_plugin.prompts import REJECTIONS, strip_memory_blocks
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Receipt, Turn, Update

Write: TypeAlias = Insert | Update | Delete

Name: TypeAlias = Literal["insert", "update", "delete", "noop"]

NAMES: Mapping[type, Name] = {Insert: "insert", Update: "update", Delete: "delete", NoOp: "noop"}

WRITABLE = ("core", "semantic", "episodic")
RELATED = 0.6
"""Share of content words that two texts of no known attribute must have in common to be about the same."""

_FIRST_PERSON = re.compile(
    r"""\W*(?:i['’](?:m|ve|ll|d)|my|we|
    i\ (?:am|was|have|had|will|do|live|work|play|like|love|hate|want|need|prefer|moved|went))\b""",
    re.I | re.X,
)

_THIS_BATCH = "this_batch"
REPEATED = f"duplicate_of:{_THIS_BATCH}"
"""Reason of the no-op that a write becomes whose text an earlier one of the batch has already."""

_FORGETTING = frozenset(
    words(
        """forget delete remove erase wipe wrong incorrect untrue vergiss vergessen lösche löschen oublie
        oubliez supprime efface olvida borra elimina esquece apaga dimentica cancella vergeet verwijder"""
    )
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one proposal may cost: operations, and characters of a text and of the profile (kind core)."""

    operations: int = 20
    characters: int = 600
    core_characters: int = 2_000


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Validated:
    """The operations that may be applied, in their order, and what was refused."""

    accepted: tuple[Operation, ...]
    rejected: tuple[Receipt, ...] = ()


def validate(
    operations: Sequence[Operation],
    turns: Sequence[Turn],
    memories: Sequence[Memory],
    *,
    limits: Limits = LIMITS,
) -> Validated:
    """Check every operation against the turns it cites and the memories it was shown. Raises nothing."""
    check = _Check({turn.key: turn for turn in turns}, {memory.key: memory for memory in memories}, limits)
    accepted: list[Operation] = []
    rejected: list[Receipt] = []
    for operation in operations[: limits.operations]:
        try:
            accepted.append(check(operation))
        except OperationRejected as error:
            rejected.append(refusal(operation, error.code, error.reason))
    if len(operations) > limits.operations:
        extra = operations[limits.operations]
        rejected.append(refusal(extra, "too_many", f"{len(operations)} given, {limits.operations} allowed"))
    return Validated(tuple(accepted), tuple(rejected))


def name_of(operation: Operation) -> Name:
    """What receipts call an operation."""
    return NAMES[type(operation)]


def refusal(operation: Operation, code: str, detail: str = "") -> Receipt:
    """The receipt of an operation that broke a rule."""
    return Receipt(
        operation=name_of(operation),
        status="rejected",
        key=getattr(operation, "key", None),
        code=code,
        reason=REJECTIONS[code] + (f": {detail}" if detail else ""),
    )


@dataclass(slots=True)
class _Check:
    """One batch under way: what it has written so far decides what may still be written."""

    turns: Mapping[str, Turn]
    memories: Mapping[str, Memory]
    limits: Limits
    written: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.texts = {
            normalise(memory.text): memory.key for memory in self.memories.values() if memory.kind != "turn"
        }

    def __call__(self, operation: Operation) -> Operation:
        if isinstance(operation, NoOp):
            return operation
        self._form(operation)
        target = self._target(operation)
        evidence = self._evidence(operation, target)
        if isinstance(operation, Delete):
            self._support(evidence, target)
            return self._claim(operation)
        written = self._kind(operation, evidence)
        duplicate = self._duplicate(written)
        if duplicate:
            return NoOp(reason=f"duplicate_of:{duplicate}", evidence=written.evidence)
        written = self._related(written, target)
        self._content(written, evidence, target if isinstance(written, Update) else None)
        return self._claim(written)

    def _form(self, operation: Write) -> None:
        if isinstance(operation, Delete):
            return
        if not isinstance(operation.text, str) or not normalise(operation.text):
            raise OperationRejected("schema", "text is empty")
        if _FIRST_PERSON.match(operation.text):
            raise OperationRejected("schema", "text must be in the third person")
        importance = operation.importance
        if importance is not None and not (math.isfinite(importance) and 0 <= importance <= 1):
            raise OperationRejected("schema", "importance must be between 0 and 1")
        if isinstance(operation, Insert) and operation.kind not in WRITABLE:
            raise OperationRejected("read_only", str(operation.kind))
        if isinstance(operation, Update) and operation.mode not in ("correct", "refine", "supersede"):
            raise OperationRejected("schema", f"mode is {operation.mode!r}")

    def _target(self, operation: Write) -> Memory | None:
        if isinstance(operation, Insert):
            self._length(operation.text, operation.kind)
            if operation.kind == "core" and any(memory.kind == "core" for memory in self.memories.values()):
                raise OperationRejected("core_exists", "")
            return None
        target = self.memories.get(operation.key)
        if target is not None and target.kind in ("passage", "self"):
            raise OperationRejected("read_only", target.kind)
        if target is None or (operation.version is not None and operation.version != target.version):
            raise OperationRejected("unknown_handle", "")
        if isinstance(operation, Update):
            if target.kind not in WRITABLE:
                raise OperationRejected("read_only", target.kind)
            self._length(operation.text, target.kind)
        return target

    def _length(self, text: str, kind: str) -> None:
        allowed = self.limits.core_characters if kind == "core" else self.limits.characters
        if len(text) > allowed:
            raise OperationRejected("too_long", f"{len(text)} characters, {allowed} allowed")

    def _evidence(self, operation: Write, target: Memory | None) -> list[Turn]:
        unknown = [key for key in operation.evidence if key not in self.turns]
        if unknown or not operation.evidence:
            raise OperationRejected("unknown_evidence", ", ".join(unknown)[:200] or "none given")
        evidence = [self.turns[key] for key in operation.evidence]
        if all(turn.role != "user" for turn in evidence):
            raise OperationRejected("no_user_evidence", "")
        if (
            isinstance(operation, Update)
            and operation.mode == "supersede"
            and target
            and target.kind != "episodic"
        ):
            newest = max(_aware(turn.at) for turn in evidence)
            if target.valid_from and newest < _aware(target.valid_from):
                raise OperationRejected("stale_evidence", "")
        return evidence

    def _support(self, evidence: Sequence[Turn], target: Memory | None) -> None:
        said = " ".join(strip_memory_blocks(turn.text) for turn in evidence)
        about = content_words(target.text) if target else frozenset()
        if not (content_words(said) & about or _FORGETTING & set(words(said))):
            raise OperationRejected("unsupported_delete", "")

    def _kind(self, operation: Insert | Update, evidence: Sequence[Turn]) -> Insert | Update:
        """An event without a date happened when it was told; what supersedes holds since then, too.

        The store, which does not know when that was, would take it to be so only since it was written.
        """
        if operation.valid_from is None and (
            operation.kind == "episodic" if isinstance(operation, Insert) else operation.mode == "supersede"
        ):
            return replace(operation, valid_from=max((turn.at for turn in evidence), key=_aware))
        return operation

    def _duplicate(self, operation: Insert | Update) -> str | None:
        return self.texts.get(normalise(operation.text))

    def _related(self, operation: Insert | Update, target: Memory | None) -> Insert | Update:
        if (
            isinstance(operation, Insert)
            or target is None
            or target.kind == "core"
            or _related(operation, target)
        ):
            return operation
        return Insert(
            text=operation.text,
            kind=target.kind,
            value=operation.value or {},
            importance=0.5 if operation.importance is None else operation.importance,
            valid_from=operation.valid_from,
            evidence=operation.evidence,
            reason=f"unrelated_supersede: {REJECTIONS['unrelated_supersede']}",
            embedding=operation.embedding,
        )

    def _content(self, operation: Insert | Update, evidence: Sequence[Turn], target: Memory | None) -> None:
        value = {**(operation.value or {})}
        value["attribute"] = str(value.get("attribute", "")).casefold()
        inner = [said for said in value.values() if isinstance(said, str)]
        checks: tuple[tuple[str, Callable[[str], bool]], ...] = (
            ("instruction_like", is_instruction),
            ("secret", is_secret),
        )
        missing = ungrounded(operation.text, evidence, target)
        if operation.valid_from:
            missing += ungrounded(operation.valid_from.date().isoformat(), evidence, target)
        missing += [atom for said in inner for atom in ungrounded(f": {said}", evidence, target)]
        if missing:
            raise OperationRejected("ungrounded", ", ".join(dict.fromkeys(missing))[:200])
        for code, broken in checks:
            if any(broken(said) for said in (operation.text, *inner)):
                raise OperationRejected(code, "")

    def _claim(self, operation: Write) -> Write:
        if isinstance(operation, Update | Delete):
            if operation.key in self.written:
                raise OperationRejected("one_write_per_handle", "")
            self.written.add(operation.key)
            self.texts.pop(normalise(self.memories[operation.key].text), None)
        if isinstance(operation, Insert | Update):
            self.texts[normalise(operation.text)] = _THIS_BATCH
        return operation


def _related(operation: Update, target: Memory) -> bool:
    """Whether both are about the same subject and attribute, or at least in much the same words."""
    new, old = fact_in(operation.text, operation.value or {}), fact_of(target)
    if new and old and new.subject == old.subject and new.attribute == old.attribute:
        return (
            old.single
            or same_value(new.value, old.value)
            or overlap(operation.text, target.text) >= RELATED / 2
        )
    if new and old and new.subject != old.subject:
        return False
    return overlap(operation.text, target.text) >= RELATED


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
