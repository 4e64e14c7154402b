"""The first step of a turn: what is remembered that bears on what the user just said."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime

from memgraph_plugin.nodes.scope import Scope, scope_of
from memgraph_plugin.nodes.transcript import question_of, turn_key
from memgraph_plugin.state import MemoryContext, MemoryState, Plain, plain_hits
from memgraph_plugin.types import Hit

logger = logging.getLogger(__name__)

MOST_EXTRA = 200
"""Hits asked for beyond `k`, at most, to make up for those that the conversation still shows."""

MOST_BLOCKS = 50
"""Core blocks that are read, at most."""


def retrieve(
    *, k: int = 10, token_budget: int = 1200, namespace: Sequence[str] | None = None
) -> RunnableLambda[MemoryState, dict[str, list[Plain]]]:
    """A node that recalls, at most `k` memories and `token_budget` tokens of them.

    The core blocks come along always, each whole and beyond `k`; the budget is what they leave of it. Turns
    that the thread's messages still show are left out. A store or an embedding model that fails is logged,
    and the turn goes on without memory; an empty message recalls nothing.

    Reads: messages.
    Writes: memories.
    Paper: none; the ranking is `MemoryStore.recall`'s.

    Raises (when it runs):
        ConfigurationError: the store has no memory operations, or the namespace cannot work.
        MissingNamespaceError: nobody said whose memory this is.
    """

    def retrieve_now(state: MemoryState) -> dict[str, list[Plain]]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        hits = recall(scope, state["messages"], k=k, token_budget=token_budget)
        return {"memories": plain_hits(hits)}

    async def aretrieve_now(state: MemoryState) -> dict[str, list[Plain]]:
        scope = scope_of(get_runtime(MemoryContext), namespace=namespace)
        return {
            "memories": plain_hits(await arecall(scope, state["messages"], k=k, token_budget=token_budget))
        }

    return RunnableLambda(retrieve_now, aretrieve_now, name="retrieve")


def recall(scope: Scope, messages: Sequence[AnyMessage], *, k: int, token_budget: int) -> list[Hit]:
    """What bears on the last thing the user said, best first; [] where the store fails."""
    hits: list[Hit] = []
    if query := question_of(messages):
        shown = shown_turns(scope, messages)
        try:
            core = scope.store.recall(scope.namespace, "", k=MOST_BLOCKS, kinds=("core",))
            most = k + len(core) + min(len(shown), MOST_EXTRA)
            found = scope.store.recall(scope.namespace, query, k=most)
            hits = with_core(found, core, shown, k=k, token_budget=token_budget)
        except Exception as error:  # noqa: BLE001 - the embedding model fails in its own words
            _went_on_without(error)
    _tell(scope, hits)
    return hits


async def arecall(scope: Scope, messages: Sequence[AnyMessage], *, k: int, token_budget: int) -> list[Hit]:
    """Async twin of `recall`."""
    hits: list[Hit] = []
    if query := question_of(messages):
        shown = shown_turns(scope, messages)
        try:
            core = await scope.store.arecall(scope.namespace, "", k=MOST_BLOCKS, kinds=("core",))
            most = k + len(core) + min(len(shown), MOST_EXTRA)
            found = await scope.store.arecall(scope.namespace, query, k=most)
            hits = with_core(found, core, shown, k=k, token_budget=token_budget)
        except Exception as error:  # noqa: BLE001 - the embedding model fails in its own words
            _went_on_without(error)
    _tell(scope, hits)
    return hits


def shown_turns(scope: Scope, messages: Sequence[AnyMessage]) -> frozenset[str]:
    """The keys under which the thread's own messages are remembered."""
    return frozenset(turn_key(scope.thread, message.id) for message in messages if message.id)


def fit(hits: Sequence[Hit], shown: frozenset[str], *, k: int, token_budget: int) -> list[Hit]:
    """The first `k` hits that the conversation does not show and that fit into the budget together."""
    taken: list[Hit] = []
    for hit in hits:
        if len(taken) < k and hit.memory.key not in shown and hit.memory.tokens <= token_budget:
            taken.append(hit)
            token_budget -= hit.memory.tokens
    return taken


def with_core(
    hits: Sequence[Hit], core: Sequence[Hit], shown: frozenset[str], *, k: int, token_budget: int
) -> list[Hit]:
    """What `fit` takes of the hits, and after it the core blocks that say something, by their keys."""
    blocks = sorted((hit for hit in core if hit.memory.text.strip()), key=lambda hit: hit.memory.key)
    others = [hit for hit in hits if hit.memory.kind != "core"]
    left = token_budget - sum(hit.memory.tokens for hit in blocks)
    return [*fit(others, shown, k=k, token_budget=left), *blocks]


def _went_on_without(error: Exception) -> None:
    # Only the class: a database's message may quote what is stored.
    logger.warning("Recall failed (%s); the turn goes on without memory", type(error).__name__)


def _tell(scope: Scope, hits: Sequence[Hit]) -> None:
    scope.emit(
        {
            "type": "memgraph_plugin.retrieve",
            "count": len(hits),
            "keys": [hit.memory.key for hit in hits],
            "tokens": sum(hit.memory.tokens for hit in hits),
        }
    )
