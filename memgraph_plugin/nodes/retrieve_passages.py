"""The step that finds evidence: passages of documents that bear on the question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime

from memgraph_plugin.nodes.memorize import PASSAGES
from memgraph_plugin.nodes.scope import Scope, documents_scope
from memgraph_plugin.nodes.transcript import question_of
from memgraph_plugin.state import AskState, MemoryContext, Plain, plain_hits
from memgraph_plugin.types import Hit


def retrieve_passages(
    *, k: int = 8, token_budget: int = 2400, namespace: Sequence[str] | None = None
) -> RunnableLambda[AskState, dict[str, list[Plain]]]:
    """A node that finds the passages to answer from, at most `k` and `token_budget` tokens of them.

    Where `namespace` is None, documents are those of the run's own namespace (`documents_in`). Unlike memory
    in a conversation, evidence is not done without: what fails here is raised.

    Reads: messages.
    Writes: memories.
    Paper: none; the ranking is `MemoryStore.recall`'s.

    Raises (when it runs):
        ConfigurationError: the store has no memory operations, or the namespace cannot work.
        MissingNamespaceError: nobody said whose documents these are.
        StoreError: the database failed.
    """

    def retrieve_now(state: AskState) -> dict[str, list[Plain]]:
        scope = documents_scope(get_runtime(MemoryContext), namespace=namespace)
        query, hits = question_of(state["messages"]), []
        if query:
            hits = scope.store.recall(scope.namespace, query, k=k, kinds=PASSAGES, token_budget=token_budget)
        return _told(scope, hits)

    async def aretrieve_now(state: AskState) -> dict[str, list[Plain]]:
        scope = documents_scope(get_runtime(MemoryContext), namespace=namespace)
        query, hits = question_of(state["messages"]), []
        if query:
            hits = await scope.store.arecall(
                scope.namespace, query, k=k, kinds=PASSAGES, token_budget=token_budget
            )
        return _told(scope, hits)

    return RunnableLambda(retrieve_now, aretrieve_now, name="retrieve_passages")


def bearing(hits: Iterable[Hit]) -> list[Hit]:
    """Those with something to say for them: a likeness of vectors, a word in common, good neighbours."""
    return [hit for hit in hits if hit.cosine is not None or hit.bm25 or hit.score > 0]


def _told(scope: Scope, hits: Iterable[Hit]) -> dict[str, list[Plain]]:
    found = bearing(hits)
    keys = [hit.memory.key for hit in found]
    scope.emit({"type": "memgraph_plugin.retrieve_passages", "count": len(keys), "keys": keys})
    return {"memories": plain_hits(found)}
