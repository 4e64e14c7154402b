"""Two policies on the same turns: the first decides, the second is watched before it may decide."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from memgraph_plugin.memalpha.policies import Decision, Policy, adecision_of, decision_of
from memgraph_plugin.memalpha.validation import validate
from memgraph_plugin.memalpha.words import normalise
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Turn, Update

logger = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds that the second policy may take, unless said otherwise; the first one's decision waits for it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two policies agree on one exchange, in operations that `validate` accepts of each.

    `agreed`: both would do it (the same words, to the same memory). `error`: why the second had nothing to
    compare, by the name of its exception.
    """

    first: str
    second: str
    agreed: int = 0
    only_first: int = 0
    only_second: int = 0
    error: str = ""


class ShadowPolicy:
    """What `first` proposes; what `second` would have proposed is compared, logged and forgotten.

    Nothing of the second is ever applied, and whatever it raises, or how long it takes beyond `timeout`
    seconds, the first's decision stands.

    Args:
        report: is given each `Comparison`, to count by; what it raises is logged.
    """

    def __init__(
        self,
        first: Policy,
        second: Policy,
        *,
        report: Callable[[Comparison], None] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._first, self._second = first, second
        self._report = report
        self._timeout = timeout

    @property
    def name(self) -> str:
        """The first one's: it is who decides."""
        return self._first.name

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list(self.decide(turns, memories).operations)

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list((await self.adecide(turns, memories)).operations)

    def decide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """The first one's decision: what it refused, and who decided in its place, too."""
        decided = decision_of(self._first, turns, memories)
        found: list[list[Operation] | Exception] = []
        thread = threading.Thread(
            target=lambda: found.append(self._tried(list(turns), list(memories))),
            daemon=True,
            name="memgraph_plugin.shadow",
        )
        thread.start()
        thread.join(self._timeout)
        self._compare(decided.operations, found[0] if found else TimeoutError(), turns, memories)
        return decided

    async def adecide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """Async twin of `decide`."""
        decided = await adecision_of(self._first, turns, memories)
        watched: list[Operation] | Exception
        try:
            watched = await asyncio.wait_for(
                self._second.apropose(list(turns), list(memories)), self._timeout
            )
        except Exception as error:  # noqa: BLE001 - a shadow does no harm
            watched = error
        self._compare(decided.operations, watched, turns, memories)
        return decided

    def _tried(self, turns: list[Turn], memories: list[Memory]) -> list[Operation] | Exception:
        try:
            return self._second.propose(turns, memories)
        except Exception as error:  # noqa: BLE001
            return error

    def _compare(
        self,
        decided: Sequence[Operation],
        watched: Sequence[Operation] | Exception,
        turns: Sequence[Turn],
        memories: Sequence[Memory],
    ) -> None:
        try:
            names = (self._first.name, self._second.name)
            if isinstance(watched, Exception):
                comparison = Comparison(*names, error=type(watched).__name__)
            else:
                first, second = (validate(each, turns, memories).accepted for each in (decided, watched))
                comparison = _compared(names, first, second)
            logger.info("%s", comparison)
            if self._report:
                self._report(comparison)
        except Exception as error:  # noqa: BLE001
            logger.warning("A shadow policy could not be compared (%s)", type(error).__name__)


def _compared(names: tuple[str, str], first: Sequence[Operation], second: Sequence[Operation]) -> Comparison:
    one, other = Counter(map(_what, first)), Counter(map(_what, second))
    for what in (one, other):
        what.pop(("noop",), None)
    return Comparison(*names, (one & other).total(), (one - other).total(), (other - one).total())


def _what(operation: Operation) -> tuple[Hashable, ...]:
    """What an operation does, whatever the reasons."""
    match operation:
        case Insert(text=text, kind=kind):
            return ("insert", kind, normalise(text))
        case Update(key=key, text=text):
            return ("update", key, normalise(text))
        case Delete(key=key):
            return ("delete", key)
        case NoOp():
            return ("noop",)
