"""The seam of the decide step: whoever can say what a conversation changes in memory is a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from memgraph_plugin.errors import ModelReplyError
from memgraph_plugin.types import Memory, Operation, Receipt, Turn


@runtime_checkable
class Policy(Protocol):
    """Reads the newest turns and what is already remembered, and proposes operations.

    `memories` are the core blocks, the current memories similar to the turns, and the most recent ones. A
    block that is declared and not written yet is among them, empty, as version 0. The answer is never empty:
    nothing to remember is a `NoOp` that says why. What is safe to keep is not its business but that of
    whoever applies it (`validate(..., safety=)`). A policy holds no state between calls.
    """

    @property
    def name(self) -> str:
        """Written into the log beside every operation."""
        ...

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]: ...

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a model decided. `raw` is each of its replies as it came; `error` is why none could be used,
    if so, and then `policy` is the fallback's name and `operations` are the fallback's."""

    operations: tuple[Operation, ...]
    policy: str
    rejected: tuple[Receipt, ...] = ()
    raw: tuple[str, ...] = ()
    error: ModelReplyError | None = None


@runtime_checkable
class DecidingPolicy(Policy, Protocol):
    """A policy that also says what it refused, and who decided in the end; the log then says so, too."""

    def decide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision: ...

    async def adecide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision: ...


def decision_of(policy: Policy, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
    """What any policy decides; of one that tells no more, what it proposes."""
    if isinstance(policy, DecidingPolicy):
        return policy.decide(turns, memories)
    return Decision(tuple(policy.propose(turns, memories)), policy.name)


async def adecision_of(policy: Policy, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
    """Async twin of `decision_of`."""
    if isinstance(policy, DecidingPolicy):
        return await policy.adecide(turns, memories)
    return Decision(tuple(await policy.apropose(turns, memories)), policy.name)
