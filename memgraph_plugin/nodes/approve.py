"""The step that asks a human: what was decided on and waits for approval is asked about, then written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime
from langgraph.types import interrupt
from pydantic import ValidationError

from memgraph_plugin.errors import ConfigurationError, InvalidValue, MemoryNotFound
from memgraph_plugin.memalpha.validation import LIMITS, refusal
from memgraph_plugin.memalpha.words import normalise
from memgraph_plugin.nodes.apply import awrite, write
from memgraph_plugin.nodes.decide import Decision
from memgraph_plugin.nodes.scope import Scope, scope_of
from memgraph_plugin.nodes.transcript import exchange
from memgraph_plugin.state import (
    MemoryContext,
    MemoryState,
    Pending,
    Plain,
    operations_from,
    pending_from,
    plain_operations,
    plain_receipts,
)
from memgraph_plugin.store.storable import storable_operation
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Insert, Operation, Receipt, Update

EDITABLE = ("text", "importance", "valid_from", "valid_to", "mode")
"""The fields of an operation that a human may change; which memory it writes is not among them."""

APPROVED = "approved"
"""Under this name what was approved of an exchange is written, once; the rest of it is `DECIDED`."""


def approve(*, namespace: Sequence[str] | None = None) -> RunnableLambda[MemoryState, dict[str, list[Plain]]]:
    """A node that interrupts the run to ask about what waits for approval, and writes what was approved.

    It stands after `apply`: what was said is stored by then, and what needs nobody's word is written, however
    long a human takes. The node decides nothing, so that what runs again after the interruption is what was
    asked about: a memory that was changed since is not overwritten (`version_conflict`), and of what was
    forgotten since nothing is written. The interrupt carries {"type": "memgraph_plugin.approve",
    "operations": [...]}: the fields of each, and as "before" the text that it would change. Resume with
    "approve" or "reject" for all, or with a list of an answer for each, in their order: "approve", "reject",
    or its changed fields (`EDITABLE`). An answer that is none of these is asked for again, with "error".

    Reads: messages, pending, policy, receipts.
    Writes: receipts (adds to them); empties pending.
    Paper: none.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError, StoreError: as `apply`.
    """

    def approve_now(state: MemoryState) -> dict[str, list[Plain]]:
        waiting = pending_from(state.get("pending", []))
        if not waiting:
            return {}
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        decision = ask(waiting, state.get("policy", ""))
        try:
            receipts = write(scope, state["messages"], decision, **_as_shown(scope, state, waiting))
        except MemoryNotFound:
            receipts = _too_late(decision)
        return _added(state, receipts)

    async def aapprove_now(state: MemoryState) -> dict[str, list[Plain]]:
        waiting = pending_from(state.get("pending", []))
        if not waiting:
            return {}
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        decision = ask(waiting, state.get("policy", ""))
        try:
            receipts = await awrite(scope, state["messages"], decision, **_as_shown(scope, state, waiting))
        except MemoryNotFound:
            receipts = _too_late(decision)
        return _added(state, receipts)

    return RunnableLambda(approve_now, aapprove_now, name="approve")


def ask(waiting: Sequence[Pending], policy: str) -> Decision:
    """Interrupt the run until a human has said what becomes of each operation."""
    listed = [
        {**plain, "before": each.before}
        for each, plain in zip(waiting, plain_operations(each.operation for each in waiting), strict=True)
    ]
    request: dict[str, Any] = {"type": "memgraph_plugin.approve", "operations": listed}
    while True:
        answer = interrupt(request)
        try:
            return answered(waiting, answer, policy)
        except ConfigurationError as error:
            request = {**request, "error": str(error)}


def answered(waiting: Sequence[Pending], answer: object, policy: str) -> Decision:
    """What is to be written by a human's answer.

    Raises:
        ConfigurationError: it is no answer to what was asked.
    """
    answers = answer if isinstance(answer, list | tuple) else [answer] * len(waiting)
    if len(answers) != len(waiting):
        raise ConfigurationError(f"{len(waiting)} operations wait for approval, not {len(answers)}.")
    approved: list[Operation] = []
    rejected: list[Receipt] = []
    for each, said in zip(waiting, answers, strict=True):
        if said == "reject":
            rejected.append(refusal(each.operation, "not_approved"))
        else:
            approved.append(each.operation if said == "approve" else _edited(each.operation, said))
    return Decision(tuple(approved), tuple(rejected), policy)


def _edited(operation: Operation, changes: object) -> Operation:
    if not isinstance(changes, Mapping) or not changes or not set(changes) <= set(EDITABLE):
        raise ConfigurationError(f'Answer "approve", "reject", or the changes of: {", ".join(EDITABLE)}.')
    if not isinstance(operation, Insert | Update):
        raise ConfigurationError('A deletion can be answered by "approve" or "reject".')
    [plain] = plain_operations([operation])
    try:
        [read] = operations_from([{**plain, **changes}])
        edited = storable_operation(read, "changed")
    except (ValidationError, TypeError, InvalidValue) as error:
        raise ConfigurationError(f"These changes make no operation: {error}") from error
    assert isinstance(edited, Insert | Update)  # noqa: S101 - its name is not editable
    if not normalise(edited.text):
        raise ConfigurationError("The text is empty.")
    if edited.importance is not None and not 0 <= edited.importance <= 1:
        raise ConfigurationError("The importance must be between 0 and 1.")
    if edited.valid_from and edited.valid_to and edited.valid_from >= edited.valid_to:
        raise ConfigurationError("It would end before it begins: valid_to must be later than valid_from.")
    value = edited.value or {}
    limit = value.get("limit") if "label" in value else None
    if limit is None and len(edited.text) > LIMITS.characters:
        raise ConfigurationError(
            f"The text has {len(edited.text):,} characters, {LIMITS.characters} are allowed."
        )
    if isinstance(limit, int) and (tokens := estimate_tokens(edited.text)) > limit:
        raise ConfigurationError(f"The text has {tokens} tokens, {limit} are allowed.")
    # What the policy read off its own words does not hold for other words.
    keeps = limit is not None or edited.text == operation.text
    return edited if keeps else replace(edited, value={})


def _as_shown(scope: Scope, state: MemoryState, waiting: Sequence[Pending]) -> dict[str, Any]:
    """How it is written what was approved: as it was shown, or not at all."""
    said = exchange(state["messages"], thread=scope.thread, now=scope.now)
    cited = {key for each in waiting for key in each.operation.evidence}
    # Of the assistant's turns, not all are stored.
    stored = [each.turn.key for each in said if each.turn.role == "user" and each.turn.key in cited]
    return {"once": APPROVED, "stored": stored, "attempts": 0}


def _too_late(decision: Decision) -> list[Receipt]:
    """The receipts where what was said was forgotten before somebody answered."""
    late = [refusal(each, "unknown_evidence", "forgotten meanwhile") for each in decision.operations]
    return [*decision.rejected, *late]


def _added(state: MemoryState, receipts: Sequence[Receipt]) -> dict[str, list[Plain]]:
    news = [each for each in receipts if each.status != "unchanged"]
    return {"receipts": [*state.get("receipts", []), *plain_receipts(news)], "pending": []}
