"""Lines of the profile that were made of memories: each changes with its memory, and goes with it. Pure.

Which line is whose stands in the block's value, under "promoted": key of the memory -> line. Lines that it
does not name are somebody's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from memgraph_plugin.memalpha.blocks import block_of
from memgraph_plugin.memalpha.facts import fact_in
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Delete, Memory, MemoryVersion, Operation, Update

REASON = "promoted"


@dataclass(slots=True)
class Lines:
    """A block's lines, and of which memory some are."""

    lines: list[str]
    of: dict[str, str]

    def follow(self, key: str, new: str | None) -> None:
        """Put a memory's new text in place of its line, where that still stands; None takes the line out."""
        old = self.of.pop(key)
        if old in self.lines:
            at = self.lines.index(old)
            self.lines[at : at + 1] = [new] if new else []
        if new:
            self.of[key] = new

    def fit(self, limit: int) -> bool:
        """Take out promoted lines, the longest first, until the rest fits; whether it does."""
        while self.lines and tokens_of(self.lines) > limit:
            ours = [line for line in self.lines if line in self.of.values()]
            if not ours:
                return False
            gone = max(ours, key=len)
            self.lines.remove(gone)
            self.of = {key: line for key, line in self.of.items() if line != gone}
        return True


def promoted_in(block: Memory) -> dict[str, str]:
    """Key of a memory -> its line in this block."""
    named = block.value.get("promoted")
    return {str(key): str(line) for key, line in named.items()} if isinstance(named, Mapping) else {}


def tokens_of(lines: Sequence[str]) -> int:
    return estimate_tokens("\n".join(lines))


def line_of(text: str) -> str:
    return " ".join(text.split())


def is_former(fact_text: str, value: Mapping[str, object]) -> bool:
    """Whether this says what was so once."""
    fact = fact_in(fact_text, value)
    return fact is not None and fact.attribute.startswith("former ")


def in_step(operations: Sequence[Operation], blocks: Iterable[Memory]) -> list[Operation]:
    """The operations, and with them what they change in lines that were made of the memories they write.

    An operation on the block itself is completed, else one is added, of the block's version.
    """
    done = list(operations)
    writes = {each.key: each for each in operations if isinstance(each, Update | Delete)}
    for block in blocks:
        promoted = promoted_in(block)
        touched = [writes[key] for key in promoted if key in writes]
        own = writes.get(block.key)
        if not touched or isinstance(own, Delete):
            continue
        profile = Lines((own.text if own else block.text).splitlines(), promoted)
        for each in touched:
            profile.follow(each.key, _new_line(each))
        if declared := block_of(block):
            profile.fit(declared.limit)
        changed = _written(block, own, profile)
        if own:
            done[done.index(own)] = changed
        else:
            done.append(changed)
    return done


def writes_again(operations: Iterable[Operation]) -> bool:
    """Whether memories that were there before are written, of which there may be lines."""
    return any(isinstance(each, Update | Delete) for each in operations)


def lines_anew(
    batch: Sequence[Operation],
    late: Iterable[Update | Delete],
    histories: Iterable[Sequence[MemoryVersion]],
) -> list[Operation]:
    """What a batch changes in the lines of blocks that somebody else has written meanwhile.

    Of the operations that came too `late` those are meant that `in_step` had added; they cite no evidence.
    """
    added = {each.key for each in late if each.reason == REASON and not each.evidence}
    blocks = [versions[-1].memory for versions in histories if versions and versions[-1].key in added]
    others = [each for each in batch if not (isinstance(each, Update | Delete) and each.key in added)]
    return in_step(others, [block for block in blocks if block])[len(others) :]


def _new_line(operation: Update | Delete) -> str | None:
    if (
        isinstance(operation, Delete)
        or operation.valid_to
        or is_former(operation.text, operation.value or {})
    ):
        return None
    return line_of(operation.text)


def _written(block: Memory, own: Update | None, profile: Lines) -> Update | Delete:
    text = "\n".join(profile.lines)
    change = own or Update(key=block.key, version=block.version, text=text, mode="correct", reason=REASON)
    if not text:
        return Delete(key=change.key, version=change.version, evidence=change.evidence, reason=change.reason)
    value = {**(block.value if change.value is None else change.value), "promoted": profile.of}
    if "text" in value:
        value["text"] = text
    return replace(change, text=text, value=value)
