"""The step after the answer: what the exchange changes in memory. A policy proposes, code validates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import get_runtime

from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.validation import name_of, validate
from memgraph_plugin.nodes.forget import is_private
from memgraph_plugin.nodes.scope import Scope, scope_of
from memgraph_plugin.nodes.transcript import as_query, as_read, exchange
from memgraph_plugin.state import (
    MemoryContext,
    MemoryState,
    plain_operations,
    plain_receipts,
)
from memgraph_plugin.types import Hit, Memory, MemoryKind, Operation, Receipt, Turn

logger = logging.getLogger(__name__)

WRITABLE: tuple[MemoryKind, ...] = ("core", "semantic", "episodic")
"""Kinds of memory that a policy sees and may change."""

NEWEST = 5
"""Newest memories that a policy sees beside the similar ones: "no, I meant Porto" resembles nothing."""

PolicySource: TypeAlias = Policy | Callable[[], Policy] | None
"""A policy, or who makes it at the first turn; None stands for `RulePolicy`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be applied, what was refused and why, and who decided."""

    operations: tuple[Operation, ...] = ()
    rejected: tuple[Receipt, ...] = ()
    policy: str = ""


def decide(
    policy: PolicySource = None, *, k: int = 20, namespace: Sequence[str] | None = None
) -> RunnableLambda[MemoryState, dict[str, Any]]:
    """A node that decides what the newest exchange changes, in view of similar memories and the newest.

    The policy sees what the user and the assistant said, never what was recalled for the answer. One that
    raises is logged, and `RulePolicy` decides in its place.

    Reads: messages.
    Writes: operations, rejected, policy.
    Paper: Mem-alpha (arXiv 2509.25911); departs from it: similar memories are shown, not the newest alone.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError: as `retrieve`.
        StoreError: the similar memories could not be read; deciding without them would write twice.
    """
    source = policy_source(policy)

    def decide_now(state: MemoryState) -> dict[str, Any]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return plain_decision(decide_exchange(scope, state["messages"], source(), k=k))

    async def adecide_now(state: MemoryState) -> dict[str, Any]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return plain_decision(
            await adecide_exchange(scope, state["messages"], await asyncio.to_thread(source), k=k)
        )

    return RunnableLambda(decide_now, adecide_now, name="decide")


def policy_source(policy: PolicySource) -> Callable[[], Policy]:
    """Gives the policy; the rules where there is none."""
    if policy is None:
        return RulePolicy
    return (lambda: policy) if isinstance(policy, Policy) else policy


def decide_exchange(scope: Scope, messages: Sequence[AnyMessage], policy: Policy, *, k: int = 20) -> Decision:
    """What the newest exchange changes in the scope's memory."""
    turns = as_read(exchange(messages, thread=scope.thread, now=scope.now))
    if not turns or is_private(turns):
        return Decision()
    similar = scope.store.recall(scope.namespace, similar_to(turns), k=k, kinds=WRITABLE)
    newest = scope.store.recall(scope.namespace, "", k=NEWEST, kinds=WRITABLE)
    memories = _shown([*similar, *newest])
    try:
        decision = _settle(_unheard(policy).invoke((turns, memories)), turns, memories, policy.name)
    except GraphBubbleUp:  # a policy that asks a human first
        raise
    except Exception as error:  # noqa: BLE001 - whatever a model's policy trips over, the turn is decided
        decision = _by_rules(error, policy, turns, memories)
    _tell(scope, decision)
    return decision


async def adecide_exchange(
    scope: Scope, messages: Sequence[AnyMessage], policy: Policy, *, k: int = 20
) -> Decision:
    """Async twin of `decide_exchange`."""
    turns = as_read(exchange(messages, thread=scope.thread, now=scope.now))
    if not turns or is_private(turns):
        return Decision()
    similar = await scope.store.arecall(scope.namespace, similar_to(turns), k=k, kinds=WRITABLE)
    newest = await scope.store.arecall(scope.namespace, "", k=NEWEST, kinds=WRITABLE)
    memories = _shown([*similar, *newest])
    try:
        decision = _settle(await _unheard(policy).ainvoke((turns, memories)), turns, memories, policy.name)
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001
        decision = _by_rules(error, policy, turns, memories)
    _tell(scope, decision)
    return decision


def similar_to(turns: Iterable[Turn]) -> str:
    """What to search with for memories that the turns may change."""
    return as_query("\n".join(turn.text for turn in turns))


def plain_decision(decision: Decision) -> dict[str, Any]:
    """A decision as the state keeps it."""
    return {
        "operations": plain_operations(decision.operations),
        "rejected": plain_receipts(decision.rejected),
        "policy": decision.policy,
    }


def _unheard(policy: Policy) -> Runnable[tuple[list[Turn], list[Memory]], list[Operation]]:
    """The policy, so called that what its model says is not streamed to whoever reads the answer."""

    def propose(shown: tuple[list[Turn], list[Memory]]) -> list[Operation]:
        return policy.propose(*shown)

    async def apropose(shown: tuple[list[Turn], list[Memory]]) -> list[Operation]:
        return await policy.apropose(*shown)

    return RunnableLambda(propose, apropose, name=f"policy:{policy.name}").with_config(tags=[TAG_NOSTREAM])


def _shown(hits: Iterable[Hit]) -> list[Memory]:
    return list({hit.memory.key: hit.memory for hit in hits}.values())


def _settle(
    proposed: Sequence[Operation], turns: Sequence[Turn], memories: Sequence[Memory], policy: str
) -> Decision:
    validated = validate(proposed, turns, memories)
    return Decision(tuple(validated.accepted), tuple(validated.rejected), policy)


def _by_rules(
    error: Exception, policy: Policy, turns: Sequence[Turn], memories: Sequence[Memory]
) -> Decision:
    logger.warning("Policy %s failed (%s); the rules decide instead", policy.name, type(error).__name__)
    rules = RulePolicy()
    return _settle(rules.propose(turns, memories), turns, memories, rules.name)


def _tell(scope: Scope, decision: Decision) -> None:
    scope.emit(
        {
            "type": "memgraph_plugin.decide",
            "policy": decision.policy,
            "operations": [name_of(operation) for operation in decision.operations],
            "rejected": [receipt.code for receipt in decision.rejected],
        }
    )
