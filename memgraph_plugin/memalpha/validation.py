"""The model proposes, code disposes: every operation passes these rules, in order, before a store sees it.

1. form, and how many and how long (schema, too_many, too_long)
2. the memory: shown, as it stands, writable (unknown_handle, read_only, unknown_block, core_exists)
3. the evidence: turns shown, one of them the user's, none older than what it replaces (unknown_evidence,
   no_user_evidence, stale_evidence); a deletion's names what goes (unsupported_delete, delete_all)
4. the kind: an event has a date, a core block is written as it was declared
5. no duplicates: the same words (of the same day) here; nearly the same sense in `duplicates`, where a store
   lends its vectors
6. what replaces a memory is about the same subject and attribute; of several values, one that is taken back
7. what is said stands in the evidence or the memory (ungrounded)
8. safety (instruction_like, secret)
9. the batch agrees with itself (one_write_per_handle, contradiction)

What breaks a rule becomes a rejected `Receipt` with a code (`prompts.REJECTIONS` says what each means). Some
faults are mended: a duplicate becomes a `NoOp`, an update of an unrelated memory an `Insert`, an update of a
block that nobody has written yet likewise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TypeAlias

from memgraph_plugin.errors import OperationRejected
from memgraph_plugin.memalpha.blocks import CORE_TOKENS, PROFILE, block_of, is_missing
from memgraph_plugin.memalpha.facts import fact_in, fact_of
from memgraph_plugin.memalpha.form import WRITABLE, check_form
from memgraph_plugin.memalpha.grounding import ungrounded
from memgraph_plugin.memalpha.safety import SAFETY, Ruling, Safety
from memgraph_plugin.memalpha.sameness import about, outdated, related, take_over
from memgraph_plugin.memalpha.times import aware
from memgraph_plugin.memalpha.wishes import wishes
from memgraph_plugin.memalpha.words import content_words, normalise, share
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

_THIS_BATCH = "this_batch"
REPEATED = f"duplicate_of:{_THIS_BATCH}"
"""Reason of the no-op that a write becomes whose text an earlier one of the batch has already."""

MOST_UNNAMED = 3
"""Memories that one batch may delete whose words nobody said ("no, that's wrong")."""

MOST_KEPT = 0.5
"""Share of a core block's words that an edit keeps; what takes out more needs the user's word for it."""

_PART = re.compile(r"[.!?;:\n]\s*|,\s+|\band\b")

MOST_DENIED = 6
"""Memories that one batch may delete that nobody wants forgotten, but says not to be so ("no, not tea")."""


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
        older = accepted.pop(index)
        rejected.append(refusal(older, "contradiction", ""))
        take_over(older, accepted)
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
    denied: int = 0
    texts: dict[str, dict[str, date | None]] = field(default_factory=dict)
    """Of each text, the memories that have it, with the day of an event."""
    blocks: dict[str, Memory] = field(init=False)

    def __post_init__(self) -> None:
        for key, memory in self.memories.items():
            if memory.kind not in ("turn", "core"):
                day = _day(memory.kind, memory.valid_from)
                self.texts.setdefault(normalise(memory.text), {})[key] = day
        self.blocks = {
            block.label: memory for memory in self.memories.values() if (block := block_of(memory))
        }

    def __call__(self, operation: Operation) -> Operation:
        check_form(operation)
        operation = replace(operation, reason=self.safety.reason(operation.reason))
        if isinstance(operation, NoOp):
            return operation
        target = self._target(operation)
        evidence = self._evidence(operation, target)
        if isinstance(operation, Delete):
            asked = self.safety.judge_request(turn.text for turn in evidence if turn.role == "user")
            self._safe(operation, target, asked)
            if target and target.kind == "core":
                self._dropped(evidence, target, "")
            else:
                self._support(evidence, about(target) if target else frozenset())
            return self._claim(operation)
        written = self._kind(operation, target, evidence)
        duplicate = self._duplicate(written, target, operation.valid_from)
        if duplicate:
            return NoOp(reason=f"duplicate_of:{duplicate}", evidence=written.evidence)
        written = self._placed(written, target, evidence)
        if isinstance(written, Update) and target and target.kind == "core":
            self._dropped(evidence, target, written.text)
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
            newest = max(aware(turn.at) for turn in evidence)
            if target.valid_from and newest < aware(target.valid_from):
                raise OperationRejected("stale_evidence", "")
        return evidence

    def _dropped(self, evidence: Sequence[Turn], block: Memory, text: str) -> None:
        """A block that loses most of its words is not edited: each part that goes must be wanted gone."""
        kept, old, new = content_words(text), fact_of(block), fact_in(text, {})
        parts = [words for part in _PART.split(block.text) if (words := content_words(part))]
        if not parts or share(content_words(block.text), kept) >= MOST_KEPT:
            return
        if len(parts) == 1 and old and new and (old.subject, old.attribute) == (new.subject, new.attribute):
            return
        for part in parts:
            if share(part, kept) < MOST_KEPT:
                self._support(evidence, part)

    def _support(self, evidence: Sequence[Turn], meant: frozenset[str]) -> None:
        """Who wants something gone says what, in their own words; a few that are only pointed at may go.

        `meant` are the words of what goes.
        """
        said = wishes(tuple(evidence))
        if said.named & meant:
            return
        if said.denied & meant and self.denied < MOST_DENIED:
            self.denied += 1
            return
        if not said.asked:
            raise OperationRejected("unsupported_delete", "")
        if said.everything or self.unnamed >= MOST_UNNAMED:
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
            operation = replace(operation, valid_from=max(aware(turn.at) for turn in evidence))
        elif operation.valid_from:
            operation = replace(operation, valid_from=aware(operation.valid_from))
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

    def _duplicate(
        self, operation: Insert | Update, target: Memory | None, when: datetime | None
    ) -> str | None:
        """What says the same in the same words; an event of another day, as `when` says, is another event."""
        if self.is_core(operation):  # a fact may well stand in the profile, too
            same = target and normalise(operation.text) == normalise(target.text)
            return target.key if target and same else None
        known, day = self.texts.get(normalise(operation.text), {}), _day(self._kind_of(operation), when)
        return next((key for key, other in known.items() if not (day and other) or day == other), None)

    def _placed(
        self, operation: Insert | Update, target: Memory | None, evidence: Sequence[Turn]
    ) -> Insert | Update:
        if (
            isinstance(operation, Insert)
            or target is None
            or target.kind == "core"
            or related(operation, target, wishes(tuple(evidence)).denied)
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
        return self._kind_of(operation) == "core"

    def _kind_of(self, operation: Insert | Update) -> str:
        return operation.kind if isinstance(operation, Insert) else self.memories[operation.key].kind

    def _claim(self, operation: Write) -> Write:
        if operation.key is not None:
            if operation.key in self.written:
                code = "core_exists" if isinstance(operation, Insert) else "one_write_per_handle"
                raise OperationRejected(code, "")
            self.written.add(operation.key)
        if isinstance(operation, Update | Delete):
            self.texts.get(normalise(self.memories[operation.key].text), {}).pop(operation.key, None)
        if isinstance(operation, Insert | Update) and not self.is_core(operation):
            day = _day(self._kind_of(operation), operation.valid_from)
            self.texts.setdefault(normalise(operation.text), {})[_THIS_BATCH] = day
        return operation


def _day(kind: str, moment: datetime | None) -> date | None:
    """The day of an event; a fact has none."""
    return moment.date() if kind == "episodic" and moment else None
