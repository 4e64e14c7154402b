"""The step after the answer: what the exchange changes in memory. A policy proposes, code validates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import get_runtime

from memgraph_plugin.errors import ModelReplyError
from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock, with_declared
from memgraph_plugin.memalpha.form import FOUND
from memgraph_plugin.memalpha.policies import Decision as Proposed
from memgraph_plugin.memalpha.policies import Policy, adecision_of, decision_of
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.safety import SAFETY, Safety
from memgraph_plugin.memalpha.sameness import without_near_duplicates
from memgraph_plugin.memalpha.validation import refusal, validate
from memgraph_plugin.nodes.forget import is_private
from memgraph_plugin.nodes.retrieve import MOST_BLOCKS
from memgraph_plugin.nodes.scope import Scope, scope_of
from memgraph_plugin.nodes.transcript import as_query, as_read, exchange
from memgraph_plugin.state import (
    MemoryContext,
    MemoryState,
    Pending,
    operations_from,
    plain_held,
    plain_operations,
    plain_pending,
    plain_receipts,
)
from memgraph_plugin.types import (
    Delete,
    Held,
    Hit,
    Insert,
    Memory,
    Operation,
    Receipt,
    Turn,
    Update,
    name_of,
)

logger = logging.getLogger(__name__)

NEWEST = 5
"""Newest memories that a policy sees beside the similar ones: "no, I meant Porto" resembles nothing."""

PolicySource: TypeAlias = Policy | Callable[[], Policy] | None
"""A policy, or who makes it at the first turn; None stands for `RulePolicy`."""


NEAREST = 3
"""Memories that the text of an insert is compared with, by the store's vectors."""

Approval: TypeAlias = Collection[str] | Callable[[Operation, Memory | None], bool]
"""Which operations wait for a human: their names ("delete", "update", "insert"), the kinds that they write
("core", "semantic", "episodic"), or whoever tells by an operation and the memory that it would change."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be applied, what was refused and why, who decided, what waits for a human's approval, and
    what of the refused is to be held."""

    operations: tuple[Operation, ...] = ()
    rejected: tuple[Receipt, ...] = ()
    policy: str = ""
    pending: tuple[Pending, ...] = ()
    held: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class Deciding:
    """How it is decided.

    Args:
        k: similar memories that are shown.
        core: the blocks of the profile.
        approve: which operations wait for a human.
        safety: what is done with instructions, secrets and personal data that would become memories.
        fallback: whether the rules decide where the policy cannot; without it, its error is raised. Where a
            model did reply, if with nothing usable, they decide in any case.
    """

    k: int = 20
    core: Sequence[CoreBlock] = (PROFILE,)
    approve: Approval = ()
    safety: Safety = SAFETY
    fallback: bool = True


DECIDING = Deciding()


def decide(
    policy: PolicySource = None,
    *,
    k: int = 20,
    namespace: Sequence[str] | None = None,
    core: Sequence[CoreBlock] = (PROFILE,),
    approve: Approval = (),
    safety: Safety = SAFETY,
) -> RunnableLambda[MemoryState, dict[str, Any]]:
    """A node that decides what the newest exchange changes, in view of similar memories and the newest.

    The policy sees what the user and the assistant said, never what was recalled for the answer. One that
    raises is logged, and `RulePolicy` decides in its place. What `approve` names is not among the operations
    but among those that the node `approve` asks about; what nobody answered before the next turn lapses. What
    `safety` holds back waits in quarantine.

    Reads: messages, pending.
    Writes: operations, rejected, held, policy, pending.
    Paper: Mem-alpha (arXiv 2509.25911); departs from it: similar memories are shown, not the newest alone.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError: as `retrieve`.
        StoreError: the similar memories could not be read; deciding without them would write twice.
    """
    source, how = policy_source(policy), Deciding(k, core, approve, safety)

    def decide_now(state: MemoryState) -> dict[str, Any]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return plain_decision(decide_exchange(scope, state["messages"], source(), how), _lapsed(state))

    async def adecide_now(state: MemoryState) -> dict[str, Any]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        decider = await asyncio.to_thread(source)
        return plain_decision(await adecide_exchange(scope, state["messages"], decider, how), _lapsed(state))

    return RunnableLambda(decide_now, adecide_now, name="decide")


def policy_source(policy: PolicySource) -> Callable[[], Policy]:
    """Gives the policy; the rules where there is none."""
    if policy is None:
        return RulePolicy
    return (lambda: policy) if isinstance(policy, Policy) else policy


def decide_exchange(
    scope: Scope, messages: Sequence[AnyMessage], policy: Policy, how: Deciding = DECIDING
) -> Decision:
    """What the newest exchange changes in the scope's memory."""
    turns = as_read(exchange(messages, thread=scope.thread, now=scope.now))
    if not turns or is_private(turns):
        return Decision()
    memories = _shown(
        scope,
        how,
        scope.store.recall(scope.namespace, "", k=MOST_BLOCKS, kinds=("core",)),
        scope.store.recall(scope.namespace, similar_to(turns), k=how.k, kinds=FOUND),
        scope.store.recall(scope.namespace, "", k=NEWEST, kinds=FOUND),
    )
    try:
        proposed = _unheard(policy).invoke((turns, memories))
        decision = _settle(proposed, turns, memories, how.safety)
    except GraphBubbleUp:  # a policy that asks a human first
        raise
    except Exception as error:
        if not (how.fallback or _has_replied(error)):
            raise
        # Whatever a model's policy trips over, the turn is decided.
        decision = _by_rules(error, policy, turns, memories, how.safety)
    near = {
        insert.text: scope.store.recall(scope.namespace, insert.text, k=NEAREST, kinds=(insert.kind,))
        for insert in _compared(scope, decision)
    }
    return _finished(scope, decision, near, memories, how.approve)


async def adecide_exchange(
    scope: Scope, messages: Sequence[AnyMessage], policy: Policy, how: Deciding = DECIDING
) -> Decision:
    """Async twin of `decide_exchange`."""
    turns = as_read(exchange(messages, thread=scope.thread, now=scope.now))
    if not turns or is_private(turns):
        return Decision()
    memories = _shown(
        scope,
        how,
        await scope.store.arecall(scope.namespace, "", k=MOST_BLOCKS, kinds=("core",)),
        await scope.store.arecall(scope.namespace, similar_to(turns), k=how.k, kinds=FOUND),
        await scope.store.arecall(scope.namespace, "", k=NEWEST, kinds=FOUND),
    )
    try:
        proposed = await _unheard(policy).ainvoke((turns, memories))
        decision = _settle(proposed, turns, memories, how.safety)
    except GraphBubbleUp:
        raise
    except Exception as error:
        if not (how.fallback or _has_replied(error)):
            raise
        decision = _by_rules(error, policy, turns, memories, how.safety)
    near = {
        insert.text: await scope.store.arecall(scope.namespace, insert.text, k=NEAREST, kinds=(insert.kind,))
        for insert in _compared(scope, decision)
    }
    return _finished(scope, decision, near, memories, how.approve)


def similar_to(turns: Iterable[Turn]) -> str:
    """What to search with for memories that the turns may change."""
    return as_query("\n".join(turn.text for turn in turns))


def plain_decision(decision: Decision, lapsed: Sequence[Receipt] = ()) -> dict[str, Any]:
    """A decision as the state keeps it."""
    return {
        "operations": plain_operations(decision.operations),
        "rejected": plain_receipts([*lapsed, *decision.rejected]),
        "held": plain_held(decision.held),
        "policy": decision.policy,
        "pending": plain_pending(decision.pending),
    }


def _lapsed(state: MemoryState) -> list[Receipt]:
    """What waited for approval, and the conversation went on."""
    waiting = operations_from(each["operation"] for each in state.get("pending", []))
    return [refusal(operation, "not_approved", "nobody answered") for operation in waiting]


def _unheard(policy: Policy) -> Runnable[tuple[list[Turn], list[Memory]], Proposed]:
    """The policy, so called that what its model says is not streamed to whoever reads the answer."""

    def propose(shown: tuple[list[Turn], list[Memory]]) -> Proposed:
        return decision_of(policy, *shown)

    async def apropose(shown: tuple[list[Turn], list[Memory]]) -> Proposed:
        return await adecision_of(policy, *shown)

    return RunnableLambda(propose, apropose, name=f"policy:{policy.name}").with_config(tags=[TAG_NOSTREAM])


def _shown(
    scope: Scope, how: Deciding, core: Iterable[Hit], similar: Iterable[Hit], newest: Iterable[Hit]
) -> list[Memory]:
    blocks = with_declared((hit.memory for hit in core), how.core, scope.namespace)
    found = {hit.memory.key: hit.memory for hit in (*similar, *newest)}
    return [*blocks, *found.values()]


def _settle(
    proposed: Proposed, turns: Sequence[Turn], memories: Sequence[Memory], safety: Safety
) -> Decision:
    validated = validate(proposed.operations, turns, memories, safety=safety)
    return Decision(
        validated.accepted,
        (*proposed.rejected, *validated.rejected),
        proposed.policy,
        held=validated.held,
    )


def _has_replied(error: Exception) -> bool:
    """Whether the model is there: what it replied will not be much better in a minute."""
    return isinstance(error, ModelReplyError) and bool(error.raw)


def _by_rules(
    error: Exception, policy: Policy, turns: Sequence[Turn], memories: Sequence[Memory], safety: Safety
) -> Decision:
    logger.warning("Policy %s failed (%s); the rules decide instead", policy.name, type(error).__name__)
    rules = RulePolicy()
    return _settle(Proposed(tuple(rules.propose(turns, memories)), rules.name), turns, memories, safety)


def _compared(scope: Scope, decision: Decision) -> list[Insert]:
    """The inserts that may say in other words what is remembered; without vectors nobody can tell."""
    if scope.store.embeddings is None:
        return []
    return [each for each in decision.operations if isinstance(each, Insert) and each.kind in FOUND]


def _finished(
    scope: Scope,
    decision: Decision,
    near: Mapping[str, Sequence[Hit]],
    memories: Sequence[Memory],
    approve: Approval,
) -> Decision:
    known = {memory.key: memory for memory in memories}
    free: list[Operation] = []
    pending: list[Pending] = []
    for operation in without_near_duplicates(decision.operations, near):
        target = known.get(operation.key) if isinstance(operation, Update | Delete) else None
        if _needs_approval(operation, target, approve):
            if isinstance(operation, Update | Delete) and target:  # approved for what is shown, and no other
                operation = replace(operation, version=target.version)
            pending.append(Pending(operation, target.text if target else ""))
        else:
            free.append(operation)
    done = replace(decision, operations=tuple(free), pending=tuple(pending))
    _tell(scope, done)
    return done


def _needs_approval(operation: Operation, target: Memory | None, approve: Approval) -> bool:
    if not isinstance(operation, Insert | Update | Delete):
        return False
    if callable(approve):
        return approve(operation, target)
    kind = operation.kind if isinstance(operation, Insert) else target.kind if target else ""
    return name_of(operation) in approve or kind in approve


def _tell(scope: Scope, decision: Decision) -> None:
    scope.emit(
        {
            "type": "memgraph_plugin.decide",
            "policy": decision.policy,
            "operations": [name_of(operation) for operation in decision.operations],
            "rejected": [receipt.code for receipt in decision.rejected],
            "pending": len(decision.pending),
        }
    )
