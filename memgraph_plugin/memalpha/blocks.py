"""Core memory: the profile in labelled blocks, limited in tokens, seen whole by who writes and who answers.

What a block is stands in the `value` of its memory, so that every store keeps, versions, exports and undoes
it without a table of its own. Its key is made of its label: a namespace has one of each, whoever writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.types import Insert, Memory, Namespace

CORE_TOKENS = 512
"""Tokens of a block, at most, where it says nothing else (Mem-alpha's size of the whole profile)."""

_LABEL = re.compile(r"[A-Za-z][\w-]{0,39}")


@dataclass(frozen=True, slots=True)
class CoreBlock:
    """One block of the profile.

    Args:
        label: its name, as in the handle `core:profile`.
        limit: tokens of its text, at most, as the store counts them; a longer text is refused, never cut.
        read_only: no policy may write it; the application still can.
        about: what belongs in it, told to the policy.

    Raises:
        ConfigurationError: a label that is no short name, or a limit below 1.
    """

    label: str
    limit: int = CORE_TOKENS
    read_only: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not _LABEL.fullmatch(self.label):
            raise ConfigurationError(
                f"A core block's label is a letter and up to 39 letters, digits, _ or -: {self.label!r:.60}"
            )
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise ConfigurationError(f"The limit of core block {self.label!r} is 1 token or more.")

    @property
    def key(self) -> str:
        return f"core:{self.label}"

    def insert(self, text: str = "") -> Insert:
        """The operation that writes the block into a store for the first time, with or without a text."""
        return Insert(kind="core", key=self.key, text=text, value=self.as_value(), importance=1.0)

    def as_value(self) -> dict[str, Any]:
        return asdict(self)


PROFILE = CoreBlock("profile", about="who the user is, and what matters in every conversation")
"""The block that there is where none is declared."""


def block_of(memory: Memory) -> CoreBlock | None:
    """What block a memory is; None where it is of another kind, or core without a label."""
    if memory.kind != "core":
        return None
    value: Mapping[str, Any] = memory.value
    try:
        return CoreBlock(
            value.get("label", ""),
            value.get("limit", CORE_TOKENS),
            bool(value.get("read_only", False)),
            str(value.get("about", "")),
        )
    except ConfigurationError:
        return None


def is_missing(memory: Memory) -> bool:
    """Whether this is a declared block that nobody has written yet."""
    return memory.version == 0


def with_declared(
    stored: Iterable[Memory], declared: Iterable[CoreBlock], namespace: Namespace
) -> list[Memory]:
    """The core memories as a policy sees them: as declared, those that are missing empty, as version 0."""
    missing = {block.label: block for block in declared}
    shown = []
    for memory in stored:
        block = block_of(memory)
        now = missing.pop(block.label, None) if block else None
        shown.append(replace(memory, value={**memory.value, **now.as_value()}) if now else memory)
    return shown + [
        Memory(namespace=namespace, key=block.key, text="", kind="core", value=block.as_value(), version=0)
        for block in missing.values()
    ]
