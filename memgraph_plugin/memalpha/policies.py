"""The seam of the decide step: whoever can say what a conversation changes in memory is a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from memgraph_plugin.types import Memory, Operation, Turn


@runtime_checkable
class Policy(Protocol):
    """Reads the newest turns and what is already remembered, and proposes operations.

    `memories` are the current memories similar to the turns, and the most recent ones. The answer is never
    empty: nothing to remember is a `NoOp` that says why. A policy holds no state between calls.
    """

    @property
    def name(self) -> str:
        """Written into the log beside every operation."""
        ...

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]: ...

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]: ...
