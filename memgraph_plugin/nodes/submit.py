"""The last step of a turn where memory is written later: what was said is stored now, and decided on after.

What waits is a `Submission`: whose turns, and their keys. The words are in the store alone, which seals,
guards and forgets them; whoever decides later reads them there, and decides nothing on turns that are gone.
A request to forget does not wait. Before it, what waits in its namespace is decided on, so that what the user
means is there to be forgotten; who comes upon such a submission later finds it done (`apply` does it once).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime
from pydantic import TypeAdapter

from memgraph_plugin.errors import ConfigurationError, MemoryNotFound
from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.readings import unwanted_in
from memgraph_plugin.memalpha.safety import SAFETY, Safety
from memgraph_plugin.nodes.apply import awrite, write
from memgraph_plugin.nodes.decide import (
    DECIDING,
    Approval,
    Deciding,
    Decision,
    PolicySource,
    adecide_exchange,
    decide_exchange,
    policy_source,
)
from memgraph_plugin.nodes.forget import REQUEST_KEPT, is_private
from memgraph_plugin.nodes.scope import Scope, ahistory, history, scope_of
from memgraph_plugin.nodes.transcript import exchange, turn_key
from memgraph_plugin.state import MemoryContext, MemoryState, Plain, plain_receipts
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Memory, MemoryVersion, Namespace, Receipt

logger = logging.getLogger(__name__)

TURNS_ONLY = Decision(policy="turns")
"""What is written at once: the words, and no decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An exchange that was stored and is to be decided on: the keys of its turns, and its scope."""

    namespace: Namespace
    thread: str | None
    session: str | None
    now: datetime
    turns: tuple[str, ...]


class MemoryWriter(Protocol):
    """Decides on exchanges after the turn that they belong to. Whoever made it closes it.

    `submit` takes a submission over; it is not lost from then on, as far as the writer promises. `pending`
    are those of a namespace that are not decided on yet, oldest first; what failed and may be tried again
    is among them.
    """

    def submit(
        self, store: MemoryStore, submission: Submission, policy: Callable[[], Policy], how: Deciding
    ) -> None: ...

    async def asubmit(
        self, store: MemoryStore, submission: Submission, policy: Callable[[], Policy], how: Deciding
    ) -> None: ...

    def pending(self, namespace: Namespace) -> list[Submission]: ...

    async def apending(self, namespace: Namespace) -> list[Submission]: ...


def check_attended(approve: Approval, writer: MemoryWriter | None) -> None:
    """
    Raises:
        ConfigurationError: a human is to be asked, and it is decided when nobody is there.
    """
    if approve and writer is not None:
        raise ConfigurationError("A writer decides when nobody is there to ask: approve= or writer=.")


_SUBMISSION: TypeAdapter[Submission] = TypeAdapter(Submission)


def plain_submission(submission: Submission) -> Plain:
    """A submission as JSON."""
    plain: Plain = _SUBMISSION.dump_python(submission, mode="json")
    return plain


def submission_from(plain: Plain) -> Submission:
    """The submission that `plain_submission` wrote down."""
    return _SUBMISSION.validate_python(plain)


def submit(
    writer: MemoryWriter,
    policy: PolicySource = None,
    *,
    namespace: Sequence[str] | None = None,
    core: Sequence[CoreBlock] = (PROFILE,),
    safety: Safety = SAFETY,
) -> RunnableLambda[MemoryState, dict[str, list[Plain]]]:
    """A node that stores the newest exchange word for word, and leaves to a writer what changes in memory.

    Reads: messages.
    Writes: receipts (of turns; where the user asks to forget, of all that was done, at once).
    Paper: Mem-alpha (arXiv 2509.25911); departs from it: deciding waits until the conversation pauses.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError: as `retrieve`.
        StoreError: nothing was written, or the turns were and nobody will decide on them: run it again.
    """
    source, how = policy_source(policy), Deciding(core=core, safety=safety)

    def submit_now(state: MemoryState) -> dict[str, list[Plain]]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return {"receipts": plain_receipts(hand_over(writer, scope, state["messages"], source, how))}

    async def asubmit_now(state: MemoryState) -> dict[str, list[Plain]]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return {"receipts": plain_receipts(await ahand_over(writer, scope, state["messages"], source, how))}

    return RunnableLambda(submit_now, asubmit_now, name="submit")


def hand_over(
    writer: MemoryWriter,
    scope: Scope,
    messages: Sequence[AnyMessage],
    policy: Callable[[], Policy],
    how: Deciding,
) -> list[Receipt]:
    """Store the newest exchange and submit it; or decide on it now, where it cannot wait.

    Raises:
        StoreError: as the node `submit`.
    """
    submission = submission_of(scope, messages)
    if submission is None:
        for earlier in writer.pending(scope.namespace):
            with _not_in_the_way():
                settle(scope.store, earlier, policy(), how)
        return write(scope, messages, decide_exchange(scope, messages, policy(), how))
    receipts = write(scope, messages, TURNS_ONLY, once=TURNS_ONLY.policy)
    if submission.turns:
        writer.submit(scope.store, submission, policy, how)
    return receipts


async def ahand_over(
    writer: MemoryWriter,
    scope: Scope,
    messages: Sequence[AnyMessage],
    policy: Callable[[], Policy],
    how: Deciding,
) -> list[Receipt]:
    """Async twin of `hand_over`."""
    submission = submission_of(scope, messages)
    if submission is None:
        decider = await asyncio.to_thread(policy)
        for earlier in await writer.apending(scope.namespace):
            with _not_in_the_way():
                await asettle(scope.store, earlier, decider, how)
        return await awrite(scope, messages, await adecide_exchange(scope, messages, decider, how))
    receipts = await awrite(scope, messages, TURNS_ONLY, once=TURNS_ONLY.policy)
    if submission.turns:
        await writer.asubmit(scope.store, submission, policy, how)
    return receipts


@contextmanager
def _not_in_the_way() -> Iterator[None]:
    """What cannot be decided on stays with its writer, and keeps nobody from having something forgotten."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        logger.warning("An earlier exchange could not be decided on (%s)", type(error).__name__)


def submission_of(scope: Scope, messages: Sequence[AnyMessage]) -> Submission | None:
    """The newest exchange as what waits; None where it cannot wait."""
    said = exchange(messages, thread=scope.thread, now=scope.now)
    turns = [each.turn for each in said]
    if is_private(turns) or any(unwanted_in(turn) for turn in turns if turn.role == "user"):
        return None
    if any(each.turn.key != turn_key(scope.thread, each.message_id) for each in said):
        return None  # an id that no store keeps: its turn would not be known again
    return Submission(
        namespace=scope.namespace,
        thread=scope.thread,
        session=scope.session,
        now=scope.now,
        turns=tuple(turn.key for turn in turns),
    )


def settle(
    store: MemoryStore, submission: Submission, policy: Policy, how: Deciding = DECIDING
) -> list[Receipt]:
    """Decide on a submission and write that; a second time, nothing changes.

    Of turns that are erased or forgotten while it decides, nothing comes back: it decides on what is left.

    Raises:
        StoreError: nothing was written.
    """
    scope = _scope(store, submission)
    for _ in range(len(submission.turns) + 1):
        turns = _left(history(scope, key) for key in submission.turns)
        messages = _said_again(turns)
        if not _asked(messages):
            return []
        decision = decide_exchange(scope, messages, policy, how)
        with suppress(MemoryNotFound):
            return write(scope, messages, decision, stored=[turn.key for turn in turns])
    return []  # there was less of it each time


async def asettle(
    store: MemoryStore, submission: Submission, policy: Policy, how: Deciding = DECIDING
) -> list[Receipt]:
    """Async twin of `settle`."""
    scope = _scope(store, submission)
    for _ in range(len(submission.turns) + 1):
        turns = _left([await ahistory(scope, key) for key in submission.turns])
        messages = _said_again(turns)
        if not _asked(messages):
            return []
        decision = await adecide_exchange(scope, messages, policy, how)
        with suppress(MemoryNotFound):
            return await awrite(scope, messages, decision, stored=[turn.key for turn in turns])
    return []  # there was less of it each time


def _scope(store: MemoryStore, submission: Submission) -> Scope:
    return Scope(
        store=store,
        namespace=submission.namespace,
        thread=submission.thread,
        session=submission.session,
        now=submission.now,
        emit=_say_nothing,  # whoever read the answer is gone
    )


def _say_nothing(_: Any) -> None:
    pass


def _asked(messages: Sequence[AnyMessage]) -> bool:
    return any(isinstance(message, HumanMessage) for message in messages)


def _left(histories: Iterable[Sequence[MemoryVersion]]) -> list[Memory]:
    """The turns that are still there, in words."""
    turns = [versions[-1].memory for versions in histories if versions]
    return [turn for turn in turns if turn is not None and turn.text != REQUEST_KEPT]


def _said_again(turns: Iterable[Memory]) -> list[AnyMessage]:
    """Turns as the messages that they were."""
    return [_message(turn) for turn in turns]


def _message(turn: Memory) -> AnyMessage:
    said = AIMessage if turn.source == "assistant" else HumanMessage
    return said(turn.text, id=turn.value["message_id"])
