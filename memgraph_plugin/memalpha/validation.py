"""The model proposes, code disposes: every operation passes these rules, in order, before a store sees it.

1. form, and how many and how long (schema, too_many, too_long)
2. the memory: shown, as it stands, writable (unknown_handle, read_only, unknown_block, core_exists)
3. the evidence: turns shown, one of them the user's, none older than what it replaces (unknown_evidence,
   no_user_evidence, stale_evidence); a deletion's names what goes (unsupported_delete, delete_all)
4. the kind: an event has a date, a core block is written as it was declared
5. no duplicates: the same words here; nearly the same sense in `duplicates`, where a store lends its vectors
6. what replaces a memory is about the same subject and attribute
7. what is said stands in the evidence or the memory (ungrounded)
8. safety (instruction_like, secret)
9. the batch agrees with itself (one_write_per_handle, contradiction)

What breaks a rule becomes a rejected `Receipt` with a code (`prompts.REJECTIONS` says what each means). Some
faults are mended: a duplicate becomes a `NoOp`, an update of an unrelated memory an `Insert`, an update of a
block that nobody has written yet likewise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias

from memgraph_plugin.errors import OperationRejected
from memgraph_plugin.memalpha.blocks import CORE_TOKENS, PROFILE, block_of, is_missing
from memgraph_plugin.memalpha.grounding import ungrounded
from memgraph_plugin.memalpha.safety import SAFETY, Ruling, Safety
from memgraph_plugin.memalpha.sameness import about, outdated, related
from memgraph_plugin.memalpha.sentences import own_words
from memgraph_plugin.memalpha.words import content_words, normalise, words
from memgraph_plugin.prompts import REJECTIONS
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import (
    Delete,
    Held,
    Insert,
    Memory,
    NoOp,
    Operation,
    Receipt,
    Turn,
    Update,
    name_of,
)

Write: TypeAlias = Insert | Update | Delete

WRITABLE = ("core", "semantic", "episodic")

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
_EVERYTHING = re.compile(
    r"\b(?:everything|anything|every\s+memory|alles|todo|tout|tudo|tutto)\b|\ball\b(?!\s+about)", re.I
)

MOST_UNNAMED = 3
"""Memories that one batch may delete whose words nobody said ("no, that's wrong")."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch may cost: operations, characters of a text, tokens of a core block without a limit."""

    operations: int = 20
    characters: int = 600
    core_tokens: int = CORE_TOKENS


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Validated:
    """The operations that may be applied, in their order; what was refused, and what of that to hold."""

    accepted: tuple[Operation, ...]
    rejected: tuple[Receipt, ...] = ()
    held: tuple[Held, ...] = ()


def validate(
    operations: Sequence[Operation],
    turns: Sequence[Turn],
    memories: Sequence[Memory],
    *,
    limits: Limits = LIMITS,
    safety: Safety = SAFETY,
) -> Validated:
    """Check every operation against the turns it cites and the memories it was shown. Raises nothing.

    What is refused for `safety` alone is also `held`, with its secrets masked, where that says so.
    """
    shown = {memory.key: memory for memory in memories}
    check = _Check({turn.key: turn for turn in turns}, shown, limits, safety)
    accepted: list[Operation] = []
    rejected: list[Receipt] = []
    for operation in operations[: limits.operations]:
        try:
            accepted.append(check(operation))
        except OperationRejected as error:
            rejected.append(refusal(operation, error.code, error.reason))
    facts = [None if isinstance(each, NoOp | Delete) or check.is_core(each) else each for each in accepted]
    for index in sorted(outdated(facts, [turn.key for turn in turns]), reverse=True):
        rejected.append(refusal(accepted.pop(index), "contradiction", ""))
    if len(operations) > limits.operations:
        extra = operations[limits.operations]
        rejected.append(refusal(extra, "too_many", f"{len(operations)} given, {limits.operations} allowed"))
    return Validated(tuple(accepted), tuple(rejected), tuple(check.held))


def refusal(operation: Operation, code: str, detail: str = "") -> Receipt:
    """The receipt of an operation that broke a rule."""
    return Receipt(
        operation=name_of(operation),
        status="rejected",
        key=key if isinstance(key := getattr(operation, "key", None), str) else None,
        code=code,
        reason=REJECTIONS[code] + (f": {detail}" if detail else ""),
    )


@dataclass(slots=True)
class _Check:
    """One batch under way: what it has written so far decides what may still be written."""

    turns: Mapping[str, Turn]
    memories: Mapping[str, Memory]
    limits: Limits
    safety: Safety
    held: list[Held] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    unnamed: int = 0
    texts: dict[str, str] = field(init=False)
    blocks: dict[str, Memory] = field(init=False)

    def __post_init__(self) -> None:
        self.texts = {
            normalise(memory.text): memory.key
            for memory in self.memories.values()
            if memory.kind not in ("turn", "core")
        }
        self.blocks = {
            block.label: memory for memory in self.memories.values() if (block := block_of(memory))
        }

    def __call__(self, operation: Operation) -> Operation:
        _form(operation)
        if isinstance(operation, NoOp):
            return operation
        target = self._target(operation)
        evidence = self._evidence(operation, target)
        if isinstance(operation, Delete):
            asked = self.safety.judge_request(turn.text for turn in evidence if turn.role == "user")
            self._safe(operation, target, asked)
            self._support(evidence, target)
            return self._claim(operation)
        written = self._kind(operation, target, evidence)
        duplicate = self._duplicate(written, target)
        if duplicate:
            return NoOp(reason=f"duplicate_of:{duplicate}", evidence=written.evidence)
        written = self._placed(written, target)
        self._content(written, evidence, target if isinstance(written, Update) else None)
        return self._claim(written)

    def _target(self, operation: Write) -> Memory | None:
        """The memory that is written; for a core insert, the block as shown, if it is."""
        if isinstance(operation, Insert):
            target = self._block(operation) if operation.kind == "core" else None
            self._length(operation.text, operation.kind, target)
            return target
        target = self.memories.get(operation.key)
        if target is not None and target.kind in ("passage", "self"):
            raise OperationRejected("read_only", target.kind)
        if target is None or (operation.version is not None and operation.version != target.version):
            raise OperationRejected("unknown_handle", "")
        if target.kind == "core":
            self._writable(target)
            if isinstance(operation, Delete) and is_missing(target):
                raise OperationRejected("unknown_handle", "it is empty")
        if isinstance(operation, Update):
            if target.kind not in WRITABLE:
                raise OperationRejected("read_only", target.kind)
            self._length(operation.text, target.kind, target)
        return target

    def _block(self, operation: Insert) -> Memory | None:
        """The empty block that a core insert fills; None is the profile, where no block is shown at all."""
        label = operation.value.get("label") or PROFILE.label
        target = self.blocks.get(label) if isinstance(label, str) else None
        if target is None and (self.blocks or label != PROFILE.label):
            there = ", ".join(self.blocks) or PROFILE.label
            raise OperationRejected("unknown_block", f"{label!r:.60}; there are: {there}")
        if target:
            self._writable(target)
        has_core = any(memory.kind == "core" for memory in self.memories.values())
        if has_core if target is None else not is_missing(target):
            raise OperationRejected("core_exists", "")
        return target

    def _writable(self, target: Memory) -> None:
        if (block := block_of(target)) and block.read_only:
            raise OperationRejected("read_only", block.key)

    def _length(self, text: str, kind: str, target: Memory | None) -> None:
        if kind == "core":
            block = block_of(target) if target else PROFILE
            tokens, allowed = estimate_tokens(text), block.limit if block else self.limits.core_tokens
            if tokens > allowed:
                where = f" in {block.key}" if block else ""
                raise OperationRejected("too_long", f"{tokens} tokens, {allowed} allowed{where}")
        elif len(text) > self.limits.characters:
            raise OperationRejected("too_long", f"{len(text)} characters, {self.limits.characters} allowed")

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
        """A user who deletes says what, in words of their own; a few that are only pointed at may go, too."""
        said = " ".join(own_words(turn.text) for turn in evidence if turn.role == "user")
        if target and content_words(said) & about(target):
            return
        if not _FORGETTING & set(words(said)):
            raise OperationRejected("unsupported_delete", "")
        if _EVERYTHING.search(said) or self.unnamed >= MOST_UNNAMED:
            raise OperationRejected("delete_all", "")
        self.unnamed += 1

    def _kind(
        self, operation: Insert | Update, target: Memory | None, evidence: Sequence[Turn]
    ) -> Insert | Update:
        """An event without a date happened when it was told, what supersedes holds since then; a core block
        stays what it was declared.

        The store, which does not know when that was, would take both to be so only since they were written.
        """
        if operation.valid_from is None and (
            operation.kind == "episodic" if isinstance(operation, Insert) else operation.mode == "supersede"
        ):
            operation = replace(operation, valid_from=max((turn.at for turn in evidence), key=_aware))
        if isinstance(operation, Insert) and operation.kind == "core":
            return self._filled(operation, target)
        if target is None or target.kind != "core" or isinstance(operation, Insert):
            return operation
        if is_missing(target):
            return self._filled(operation, target)
        block = block_of(target)
        return replace(operation, value={**target.value, **block.as_value()} if block else None)

    def _filled(self, operation: Insert | Update, target: Memory | None) -> Insert:
        block = (block_of(target) if target else None) or PROFILE
        return replace(
            block.insert(operation.text),
            key=target.key if target else block.key,
            valid_from=operation.valid_from,
            evidence=operation.evidence,
            reason=operation.reason,
        )

    def _duplicate(self, operation: Insert | Update, target: Memory | None) -> str | None:
        if self.is_core(operation):  # a fact may well stand in the profile, too
            same = target and normalise(operation.text) == normalise(target.text)
            return target.key if target and same else None
        return self.texts.get(normalise(operation.text))

    def _placed(self, operation: Insert | Update, target: Memory | None) -> Insert | Update:
        if (
            isinstance(operation, Insert)
            or target is None
            or target.kind == "core"
            or related(operation, target)
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
        value = {} if self.is_core(operation) else {**(operation.value or {})}
        value["attribute"] = str(value.get("attribute", "")).casefold()
        inner = [said for said in value.values() if isinstance(said, str)]
        missing = ungrounded(operation.text, evidence, target)
        if operation.valid_from:
            missing += ungrounded(operation.valid_from.date().isoformat(), evidence, target)
        missing += [atom for said in inner for atom in ungrounded(f": {said}", evidence, target)]
        if missing:
            raise OperationRejected("ungrounded", ", ".join(dict.fromkeys(missing))[:200])
        self._safe(operation, target, self.safety.judge(operation))

    def _safe(self, operation: Write, target: Memory | None, ruling: Ruling | None) -> None:
        if ruling is None:
            return
        if ruling.verdict == "quarantine":
            held = operation if isinstance(operation, Delete) else self.safety.masked(operation)
            if not isinstance(held, Insert) and target:  # released only while it is what was shown
                held = replace(held, version=target.version)
            reason = refusal(held, ruling.code, ruling.detail).reason
            waiting = Held(operation=held, code=ruling.code, reason=reason)
            self.held += [waiting] if waiting not in self.held else []
        raise OperationRejected(ruling.code, ruling.detail)

    def is_core(self, operation: Insert | Update) -> bool:
        """Whether it writes a block, whose value is the application's and no fact."""
        if isinstance(operation, Insert):
            return operation.kind == "core"
        return self.memories[operation.key].kind == "core"

    def _claim(self, operation: Write) -> Write:
        if operation.key is not None:
            if operation.key in self.written:
                code = "core_exists" if isinstance(operation, Insert) else "one_write_per_handle"
                raise OperationRejected(code, "")
            self.written.add(operation.key)
        if isinstance(operation, Update | Delete):
            self.texts.pop(normalise(self.memories[operation.key].text), None)
        if isinstance(operation, Insert | Update) and not self.is_core(operation):
            self.texts[normalise(operation.text)] = _THIS_BATCH
        return operation


def _form(operation: Operation) -> None:
    """Whatever a policy hands over: what is no operation, or cannot be stored, is refused here."""
    if not isinstance(operation, Insert | Update | Delete | NoOp):
        raise OperationRejected("schema", f"a {type(operation).__name__} is no operation")
    cited: object = operation.evidence
    if not isinstance(cited, tuple | list) or not all(isinstance(key, str) for key in cited):
        raise OperationRejected("schema", "evidence must be keys of turns")
    _storable([operation.reason, list(operation.evidence), getattr(operation, "key", None)])
    if not isinstance(operation.reason, str):
        raise OperationRejected("schema", "reason must be a string")
    if isinstance(operation, Delete | NoOp):
        return
    if not isinstance(operation.text, str) or not normalise(operation.text):
        raise OperationRejected("schema", "text is empty")
    if operation.value is not None and not isinstance(operation.value, Mapping):
        raise OperationRejected("schema", "value must be an object")
    _storable([operation.text, operation.value and dict(operation.value)])
    if _FIRST_PERSON.match(operation.text):
        raise OperationRejected("schema", "text must be in the third person")
    importance = operation.importance
    if importance is not None and not (isinstance(importance, int | float) and 0 <= importance <= 1):
        raise OperationRejected("schema", "importance must be between 0 and 1")
    if isinstance(operation, Insert) and operation.kind not in WRITABLE:
        raise OperationRejected("read_only", str(operation.kind))
    if isinstance(operation, Update) and operation.mode not in ("correct", "refine", "supersede"):
        raise OperationRejected("schema", f"mode is {operation.mode!r}")


def _storable(value: object) -> None:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # what is no JSON, and half of a surrogate pair
        raise OperationRejected("schema", "it cannot be stored as JSON text") from None
    if b"\\u0000" in written:
        raise OperationRejected("schema", "it has NUL characters")


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
