"""The last step of a turn: what was said, word for word, and what was decided, written in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime

from memgraph_plugin.errors import MemoryNotFound
from memgraph_plugin.memalpha.promoted import in_step, lines_anew, writes_again
from memgraph_plugin.memalpha.safety import UNCHECKED
from memgraph_plugin.memalpha.validation import validate
from memgraph_plugin.nodes.decide import Decision
from memgraph_plugin.nodes.forget import (
    REQUEST_KEPT,
    Forgotten,
    ato_forget,
    is_private,
    to_forget,
    wishes_in,
)
from memgraph_plugin.nodes.retrieve import MOST_BLOCKS
from memgraph_plugin.nodes.scope import Scope, scope_of
from memgraph_plugin.nodes.transcript import TURN, Said, as_read, exchange, storable
from memgraph_plugin.state import (
    MemoryContext,
    MemoryState,
    Plain,
    held_from,
    operations_from,
    plain_receipts,
    receipts_from,
)
from memgraph_plugin.store.held import refused
from memgraph_plugin.types import Delete, Insert, MemoryVersion, Operation, Receipt, Update

ACTOR = "graph"
"""Who the log says wrote."""

DECIDED = "decided"
"""Under this name an exchange is decided on once, now or later."""

ATTEMPTS = 3
"""Times that an operation is validated anew when its memory was changed by somebody else meanwhile.

None where a human has approved it for the memory as it was."""


def apply(*, namespace: Sequence[str] | None = None) -> RunnableLambda[MemoryState, dict[str, list[Plain]]]:
    """A node that stores the newest exchange word for word, and applies the operations that were decided on.

    One transaction, and once: the same messages decided on again change nothing, whoever decides. Where the
    user asked to forget, what would bring it back goes too (see `memgraph_plugin.nodes.forget`). A line of
    the profile that was made of a memory follows it (`memgraph_plugin.memalpha.promoted`). What was refused
    for safety waits in quarantine.

    Reads: messages, operations, rejected, held, policy.
    Writes: receipts (of turns, of operations, of what was refused); empties operations, rejected and held.
    Paper: Mem-alpha (arXiv 2509.25911); departs from it: turns are kept, so a poor decision loses nothing.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError: as `retrieve`.
        StoreError: nothing was written; the answer is out by now, and stays in the thread.
    """

    def apply_now(state: MemoryState) -> dict[str, list[Plain]]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return _written(write(scope, state["messages"], _decision_in(state)))

    async def aapply_now(state: MemoryState) -> dict[str, list[Plain]]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return _written(await awrite(scope, state["messages"], _decision_in(state)))

    return RunnableLambda(apply_now, aapply_now, name="apply")


def write(
    scope: Scope,
    messages: Sequence[AnyMessage],
    decision: Decision,
    *,
    once: str = DECIDED,
    stored: Sequence[str] | None = None,
    attempts: int = ATTEMPTS,
) -> list[Receipt]:
    """Store the newest exchange and what was decided on it; one receipt for each turn and operation.

    Args:
        once: the same exchange is written once under this name, whoever decided.
        stored: the keys of the turns that were decided on, where they were stored before. They are not
            stored again: who had them erased meanwhile does not want them back, nor what was read off them.
        attempts: see `ATTEMPTS`.

    Raises:
        MemoryNotFound: one of `stored` is gone; nothing was written.
        StoreError: nothing was written.
    """
    said = exchange(messages, thread=scope.thread, now=scope.now)
    forgotten = to_forget(scope, wishes_in(as_read(said), decision.operations))
    decision = _without(decision, forgotten)
    batch = batch_of(scope, said if stored is None else (), decision, forgotten)
    if writes_again(batch):
        hits = scope.store.recall(scope.namespace, "", k=MOST_BLOCKS, kinds=("core",))
        batch = in_step(batch, [hit.memory for hit in hits])
    rejected = _to_log(decision)
    if not (batch or decision.held or rejected):
        return []
    key = _idempotency_key(scope, said, once)
    who: dict[str, Any] = {"actor": ACTOR, "policy": decision.policy}
    more: dict[str, Any] = {"held": decision.held, "rejected": rejected}
    more["requires"] = (*(stored or ()), *forgotten.summaries)
    for each in forgotten.held:
        scope.store.discard(scope.namespace, each)
    try:
        receipts = scope.store.apply(scope.namespace, batch, idempotency_key=key, **who, **more).receipts
    except MemoryNotFound:
        if stored is not None or not forgotten.summaries:
            raise
        return write(scope, messages, decision, once=once)  # somebody else had an event forgotten
    who["requires"] = _still_there(stored, forgotten)
    for attempt in range(1, attempts + 1):
        conflicts = _conflicts(batch, receipts)
        histories = [scope.store.history(scope.namespace, operation.key) for operation in conflicts]
        retry = [*_validated_anew(conflicts, histories, said), *lines_anew(batch, conflicts, histories)]
        if not retry:
            break
        again = scope.store.apply(scope.namespace, retry, idempotency_key=f"{key}:{attempt}", **who)
        receipts = _merged(receipts, again.receipts)
    return _finished(scope, receipts)


async def awrite(
    scope: Scope,
    messages: Sequence[AnyMessage],
    decision: Decision,
    *,
    once: str = DECIDED,
    stored: Sequence[str] | None = None,
    attempts: int = ATTEMPTS,
) -> list[Receipt]:
    """Async twin of `write`."""
    said = exchange(messages, thread=scope.thread, now=scope.now)
    forgotten = await ato_forget(scope, wishes_in(as_read(said), decision.operations))
    decision = _without(decision, forgotten)
    batch = batch_of(scope, said if stored is None else (), decision, forgotten)
    if writes_again(batch):
        hits = await scope.store.arecall(scope.namespace, "", k=MOST_BLOCKS, kinds=("core",))
        batch = in_step(batch, [hit.memory for hit in hits])
    rejected = _to_log(decision)
    if not (batch or decision.held or rejected):
        return []
    key = _idempotency_key(scope, said, once)
    who: dict[str, Any] = {"actor": ACTOR, "policy": decision.policy}
    more: dict[str, Any] = {"held": decision.held, "rejected": rejected}
    more["requires"] = (*(stored or ()), *forgotten.summaries)
    for each in forgotten.held:
        await scope.store.adiscard(scope.namespace, each)
    try:
        first = await scope.store.aapply(scope.namespace, batch, idempotency_key=key, **who, **more)
    except MemoryNotFound:
        if stored is not None or not forgotten.summaries:
            raise
        return await awrite(scope, messages, decision, once=once)
    receipts = first.receipts
    who["requires"] = _still_there(stored, forgotten)
    for attempt in range(1, attempts + 1):
        conflicts = _conflicts(batch, receipts)
        histories = [await scope.store.ahistory(scope.namespace, operation.key) for operation in conflicts]
        retry = [*_validated_anew(conflicts, histories, said), *lines_anew(batch, conflicts, histories)]
        if not retry:
            break
        again = await scope.store.aapply(scope.namespace, retry, idempotency_key=f"{key}:{attempt}", **who)
        receipts = _merged(receipts, again.receipts)
    return _finished(scope, receipts)


def batch_of(scope: Scope, said: Sequence[Said], decision: Decision, forgotten: Forgotten) -> list[Operation]:
    """The turns, the deletions of forgotten turns, the decided operations, and what is kept of summaries."""
    kept = _kept(said, forgotten)
    turns = [_insert(scope, each) for each in kept]
    # A policy may itself delete a turn that goes along; a batch writes each key once.
    written = {turn.key for turn in turns} | {
        operation.key for operation in decision.operations if isinstance(operation, Update | Delete)
    }
    gone = [each for each in forgotten.turns if each.key not in written]
    return [*turns, *gone, *decision.operations, *forgotten.kept]


def _without(decision: Decision, forgotten: Forgotten) -> Decision:
    """The decision, which holds nothing that a request to forget says."""
    asking = _asking(forgotten)
    held = (
        each
        for each in decision.held
        if isinstance(each.operation, Delete) or asking.isdisjoint(each.operation.evidence)
    )
    return replace(decision, held=tuple(held))


def _asking(forgotten: Forgotten) -> set[str]:
    """The turns that ask for what was found."""
    found = forgotten.turns or forgotten.held
    return {wish.turn for wish in forgotten.wishes if found or wish.key}


def _still_there(stored: Sequence[str] | None, forgotten: Forgotten) -> list[str]:
    """The turns that are stored after the first batch."""
    gone = {each.key for each in forgotten.turns}
    return [key for key in stored or () if key not in gone]


def _kept(said: Sequence[Said], forgotten: Forgotten) -> list[Said]:
    """What is stored of an exchange: without the words of a request to forget, and the answer to one."""
    asking = _asking(forgotten)
    asking |= {each.turn.key for each in said if is_private([each.turn])}
    if not asking:
        return list(said)
    gone = {each.key for each in forgotten.turns}
    return [
        replace(each, turn=replace(each.turn, text=REQUEST_KEPT)) if each.turn.key in asking else each
        for each in said
        if each.turn.role == "user" and (each.turn.key in asking or each.turn.key not in gone)
    ]


def _insert(scope: Scope, said: Said) -> Insert:
    turn = said.turn
    return Insert(
        text=turn.text,
        kind="turn",
        key=turn.key,
        value={"role": turn.role, "message_id": said.message_id},
        session=scope.session,
        position=said.position,
        source=turn.role,
        valid_from=turn.at,
    )


def _idempotency_key(scope: Scope, said: Sequence[Said], name: str) -> str:
    ids = [each.message_id for each in said]
    named = json.dumps([scope.namespace, scope.thread, ids, name])
    return hashlib.sha256(named.encode()).hexdigest()


def _conflicts(batch: Sequence[Operation], receipts: Sequence[Receipt]) -> list[Update | Delete]:
    late = {receipt.key for receipt in receipts if receipt.code == "version_conflict"}
    return [each for each in batch if isinstance(each, Update | Delete) and each.key in late]


def _validated_anew(
    conflicts: Sequence[Update | Delete], histories: Sequence[Sequence[MemoryVersion]], said: Sequence[Said]
) -> list[Operation]:
    """The operations that still hold for what their memories have become; a deleted memory stays deleted."""
    current = {
        versions[-1].key: versions[-1].memory for versions in histories if versions and versions[-1].memory
    }
    operations = [
        replace(each, version=memory.version) for each in conflicts if (memory := current.get(each.key))
    ]
    return list(
        validate(
            operations, as_read(said), [memory for memory in current.values() if memory], safety=UNCHECKED
        ).accepted
    )


def _merged(receipts: Sequence[Receipt], again: Sequence[Receipt]) -> tuple[Receipt, ...]:
    newer = {receipt.key: receipt for receipt in again}
    return tuple(
        newer.get(receipt.key, receipt) if receipt.code == "version_conflict" else receipt
        for receipt in receipts
    )


def _to_log(decision: Decision) -> list[Receipt]:
    """What was refused, as a database can keep it; what is held of it, the store logs by itself."""
    told = [refused(each) for each in decision.held]
    return [
        replace(each, key=each.key and storable(each.key), reason=storable(each.reason))
        for each in decision.rejected
        if each not in told
    ]


def _finished(scope: Scope, receipts: Sequence[Receipt]) -> list[Receipt]:
    """The receipts as a reader understands them, told to the stream: a turn stored before is no refusal."""
    done = [
        replace(receipt, status="unchanged", code=None, reason="stored before")
        if receipt.code == "key_exists" and receipt.key and receipt.key.startswith(TURN)
        else receipt
        for receipt in receipts
    ]
    scope.emit(
        {
            "type": "memgraph_plugin.apply",
            "applied": [[each.operation, each.key] for each in done if each.status == "applied"],
            "rejected": [[each.operation, each.code] for each in done if each.status == "rejected"],
        }
    )
    return done


def _decision_in(state: MemoryState) -> Decision:
    return Decision(
        operations=tuple(operations_from(state.get("operations", []))),
        rejected=tuple(receipts_from(state.get("rejected", []))),
        policy=state.get("policy", ""),
        held=tuple(held_from(state.get("held", []))),
    )


def _written(receipts: Sequence[Receipt]) -> dict[str, list[Plain]]:
    # What was decided is emptied, or a later turn that decides nothing would apply it again.
    return {"receipts": plain_receipts(receipts), "operations": [], "rejected": [], "held": []}
