"""The first and the last step of Selfmem: pairs like the source are found, and the new pair is kept.

A pair is a memory of kind `self` whose text is the source, so that source is compared with source, and whose
value has the target and where it is from.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableLambda
from langgraph.runtime import get_runtime

from memgraph_plugin.nodes.scope import examples_scope
from memgraph_plugin.nodes.transcript import as_query, storable
from memgraph_plugin.selfmem.corpus import same
from memgraph_plugin.selfmem.loop import Plan, begin
from memgraph_plugin.selfmem.protocols import Retriever
from memgraph_plugin.state import MemoryContext, SelfmemState, plain_request
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Example, Hit, Insert, Namespace, Operation

ACTOR = "selfmem"
"""Who the log says wrote."""

KINDS = ("self",)

ASIDE = 4
"""Hits that are fetched besides those wanted, where some may be the row itself or its equals."""


def retrieve_examples(
    plan: Plan,
    *,
    retriever: Retriever | None = None,
    lasting: bool = False,
    namespace: Sequence[str] | None = None,
) -> RunnableLambda[SelfmemState, dict[str, Any]]:
    """A node that finds the pairs whose source is like this one, and begins a run.

    Without a `retriever`, they are those of the store, in the run's own namespace (`examples_in`) or the one
    given; the drafts of earlier runs are among them where they are `lasting`.

    Reads: source, run.
    Writes: request, seed; empties pool and trace.
    Paper: Selfmem (arXiv 2305.02437), which matches source against source by BM25.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError, StoreError: as `retrieve_passages`.
    """

    def stored() -> StoreRetriever:
        scope = examples_scope(get_runtime(MemoryContext), namespace=namespace)
        return StoreRetriever(scope.store, scope.namespace, drafts=lasting)

    def find(state: SelfmemState) -> dict[str, Any]:
        asked = storable(as_query(state["source"]))
        if not plan.examples or not asked.strip():
            return _begun(state, [])
        if retriever:
            return _begun(state, retriever.retrieve([asked], plan.examples)[0])
        return _begun(state, stored().retrieve([asked], plan.examples)[0])

    async def afind(state: SelfmemState) -> dict[str, Any]:
        asked = storable(as_query(state["source"]))
        if not plan.examples or not asked.strip():
            return _begun(state, [])
        if retriever:
            return _begun(state, (await asyncio.to_thread(retriever.retrieve, [asked], plan.examples))[0])
        return _begun(state, (await stored().aretrieve([asked], plan.examples))[0])

    return RunnableLambda(find, afind, name="retrieve_examples")


def persist(*, namespace: Sequence[str] | None = None) -> RunnableLambda[SelfmemState, dict[str, Any]]:
    """A node that keeps the hypothesis beside the pairs of the corpus, as one of the model's own.

    Its `origin` is "self": training never retrieves it, or the corpus would feed on itself. Ours; in the
    paper, self-memory is gone with its input.

    Reads: source, hypothesis, trace.
    Writes: nothing of the state; one memory of kind `self`.
    Paper: none.

    Raises (when it runs):
        ConfigurationError, MissingNamespaceError: as `retrieve`.
        StoreError: it was not kept.
    """

    def keep(state: SelfmemState) -> dict[str, Any]:
        if kept := _kept(state):
            scope = examples_scope(get_runtime(MemoryContext), namespace=namespace)
            scope.store.apply(scope.namespace, kept, actor=ACTOR)
        return {}

    async def akeep(state: SelfmemState) -> dict[str, Any]:
        if kept := _kept(state):
            scope = examples_scope(get_runtime(MemoryContext), namespace=namespace)
            await scope.store.aapply(scope.namespace, kept, actor=ACTOR)
        return {}

    return RunnableLambda(keep, akeep, name="persist")


def insert_of(example: Example) -> Insert:
    """What remembers a pair; the same pair has the same key."""
    named = f"{example.source}\0{example.target}".encode("utf-8", "surrogatepass")
    key = example.key or f"{example.origin}:{hashlib.sha256(named).hexdigest()[:32]}"
    value = {"target": example.target, "origin": example.origin}
    return Insert(text=example.source, kind="self", key=key, value=value)


def example_of(hit: Hit) -> Example | None:
    """The pair that a memory is; None where somebody else wrote it."""
    value = hit.memory.value
    target, origin = value.get("target"), value.get("origin", "corpus")
    if not isinstance(target, str) or origin not in ("corpus", "self"):
        return None
    return Example(source=hit.memory.text, target=target, key=hit.memory.key, origin=origin)


class StoreRetriever:
    """A `selfmem.protocols.Retriever` over one namespace of a store, by BM25 alone.

    Args:
        store: any memory store.
        namespace: whose examples.
        drafts: whether the model's own of earlier runs are among them; never in training.

    Raises (when it retrieves):
        StoreError: the database failed.
    """

    def __init__(self, store: MemoryStore, namespace: Namespace, *, drafts: bool = True) -> None:
        self._store = store
        self._namespace = namespace
        self._drafts = drafts

    def retrieve(
        self, sources: Sequence[str], k: int, *, exclude: Sequence[str | None] | None = None
    ) -> list[list[Example]]:
        """At most `k` examples for each source, nearest first; none for a source without words."""
        return [self._nearest(*asked, k) for asked in _asked(sources, exclude)]

    async def aretrieve(
        self, sources: Sequence[str], k: int, *, exclude: Sequence[str | None] | None = None
    ) -> list[list[Example]]:
        """Async twin of `retrieve`."""
        return [await self._anearest(*asked, k) for asked in _asked(sources, exclude)]

    def _nearest(self, source: str, key: str | None, k: int) -> list[Example]:
        wanted = k if key is None else k + ASIDE
        while source.strip() and k > 0:
            hits = self._store.recall(self._namespace, source, k=wanted, **self._how(key))
            found = _found(hits, source, key)
            if len(found) >= k or len(hits) < wanted:
                return found[:k]
            wanted *= 2
        return []

    async def _anearest(self, source: str, key: str | None, k: int) -> list[Example]:
        wanted = k if key is None else k + ASIDE
        while source.strip() and k > 0:
            hits = await self._store.arecall(self._namespace, source, k=wanted, **self._how(key))
            found = _found(hits, source, key)
            if len(found) >= k or len(hits) < wanted:
                return found[:k]
            wanted *= 2
        return []

    def _how(self, key: str | None) -> dict[str, Any]:
        corpus = {} if self._drafts and key is None else {"filter": {"origin": {"$ne": "self"}}}
        return {"kinds": KINDS, "words_only": True, **corpus}


def _begun(state: SelfmemState, examples: Sequence[Example]) -> dict[str, Any]:
    request = begin(state["source"], examples)
    seed = state.get("run") or uuid.uuid4().hex
    return {"request": plain_request(request), "seed": seed, "pool": [], "trace": []}


def _kept(state: SelfmemState) -> list[Operation]:
    source, target = storable(state["source"]).strip(), storable(state.get("hypothesis", "")).strip()
    return [insert_of(Example(source=source, target=target, origin="self"))] if source and target else []


def _asked(sources: Sequence[str], exclude: Sequence[str | None] | None) -> list[tuple[str, str | None]]:
    return list(zip(sources, exclude if exclude is not None else [None] * len(sources), strict=True))


def _found(hits: Sequence[Hit], source: str, key: str | None) -> list[Example]:
    """Of what was found, what is an example, and in training another one than the row itself."""
    found = [example_of(hit) for hit in hits if hit.bm25]
    return [
        each
        for each in found
        if each and (key is None or (each.key != key and same(each.source) != same(source)))
    ]
