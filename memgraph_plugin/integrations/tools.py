"""Memory as a retriever for a chain and as tools for a model, of LangChain's core alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, get_args

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.store.base import BaseStore
from pydantic import ConfigDict

from memgraph_plugin.memalpha.safety import SAFETY
from memgraph_plugin.nodes.scope import running_scope
from memgraph_plugin.nodes.transcript import TURN, storable
from memgraph_plugin.prompts import MANAGE_MEMORY, REJECTIONS, SEARCH_MEMORY, neutralise, strip_memory_blocks
from memgraph_plugin.state import Plain, plain_hits
from memgraph_plugin.types import Delete, Hit, Insert, MemoryKind, Operation, Receipt, Update


class MemoryRetriever(BaseRetriever):
    """The memories that answer a query, as documents; `invoke(query, k=...)` overrides `k`.

    Without a `namespace` or a `store`, those of the run it is called in.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: BaseStore | None = None
    namespace: tuple[str, ...] | None = None
    k: int = 4
    kinds: tuple[MemoryKind, ...] | None = None
    filter: dict[str, Any] | None = None
    token_budget: int | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - LangChain asks whether it is here
        k: int | None = None,
    ) -> list[Document]:
        scope = running_scope(store=self.store, namespace=self.namespace)
        return [_document(hit) for hit in scope.store.recall(scope.namespace, query, **self._how(k))]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002
        k: int | None = None,
    ) -> list[Document]:
        scope = running_scope(store=self.store, namespace=self.namespace)
        return [_document(hit) for hit in await scope.store.arecall(scope.namespace, query, **self._how(k))]

    def _how(self, k: int | None) -> dict[str, Any]:
        return {
            "k": self.k if k is None else k,
            "kinds": self.kinds,
            "filter": self.filter,
            "token_budget": self.token_budget,
        }


def _document(hit: Hit) -> Document:
    memory = hit.memory
    return Document(
        memory.text,
        id=memory.key,
        metadata={
            "key": memory.key,
            "namespace": memory.namespace,
            "kind": memory.kind,
            "score": hit.score,
            "session": memory.session,
            "valid_from": memory.valid_from,
            "value": dict(memory.value),
        },
    )


ACTOR = "manage_memory"
"""Who the log says wrote, when a model did by tool."""

MOST_FOUND = 100
"""Memories that one search gives a model, at most."""

Action: TypeAlias = Literal["create", "update", "delete"]


def memory_tools(
    *,
    store: BaseStore | None = None,
    namespace: Sequence[str] | None = None,
    actions: Sequence[Action] = get_args(Action),
) -> list[BaseTool]:
    """LangMem's tools: `manage_memory(content, action, id)`, `search_memory(query, limit, offset, filter)`.

    Store and namespace are the run's where they are not given, and never the model's to choose. A refused
    action is told to the model; a store that fails raises `StoreError`.

    Args:
        actions: what the model may do; with none, only `search_memory` is given.
    """

    def manage_memory(
        content: str | None = None,
        action: Action = "create",
        id: str | None = None,  # noqa: A002
    ) -> str:
        scope = running_scope(store=store, namespace=namespace)
        operation = _managed(actions, content, action, id)
        return _told(scope.store.apply(scope.namespace, [operation], actor=ACTOR).receipts[0])

    async def amanage_memory(
        content: str | None = None,
        action: Action = "create",
        id: str | None = None,  # noqa: A002
    ) -> str:
        scope = running_scope(store=store, namespace=namespace)
        operation = _managed(actions, content, action, id)
        return _told((await scope.store.aapply(scope.namespace, [operation], actor=ACTOR)).receipts[0])

    def search_memory(
        query: str,
        limit: int = 10,
        offset: int = 0,
        filter: dict[str, Any] | None = None,  # noqa: A002
    ) -> tuple[str, list[Plain]]:
        scope = running_scope(store=store, namespace=namespace)
        page = _page(limit, offset)
        with _explained():
            return _found(scope.store.recall(scope.namespace, query, k=page.stop, filter=filter)[page])

    async def asearch_memory(
        query: str,
        limit: int = 10,
        offset: int = 0,
        filter: dict[str, Any] | None = None,  # noqa: A002
    ) -> tuple[str, list[Plain]]:
        scope = running_scope(store=store, namespace=namespace)
        page = _page(limit, offset)
        with _explained():
            hits = await scope.store.arecall(scope.namespace, query, k=page.stop, filter=filter)
            return _found(hits[page])

    search = StructuredTool.from_function(
        search_memory,
        asearch_memory,
        name="search_memory",
        description=SEARCH_MEMORY,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )
    if not actions:
        return [search]
    manage = StructuredTool.from_function(
        manage_memory,
        amanage_memory,
        name="manage_memory",
        description=MANAGE_MEMORY,
        handle_tool_error=True,
    )
    return [manage, search]


def _managed(actions: Sequence[Action], content: str | None, action: Action, key: str | None) -> Operation:
    if action not in actions:
        raise ToolException(f"action must be one of {list(actions)}")
    text = storable(strip_memory_blocks(content or "")).strip()
    if action != "delete" and not text:
        raise ToolException(f"{action} needs content")
    if ruling := SAFETY.judge(Insert(text=text)):
        raise ToolException(f"{action} was refused ({ruling.code}): {REJECTIONS[ruling.code]}")
    if action == "create":
        if key is not None:
            raise ToolException("create takes no id; use update")
        return Insert(text=text, value={"content": text}, source="assistant")
    if not key:
        raise ToolException(f"{action} needs the id of a memory")
    if key.startswith(TURN) and action == "update":
        raise ToolException("what was said cannot be changed; create a memory instead")
    return Delete(key=key) if action == "delete" else Update(key=key, text=text, value={"content": text})


def _told(receipt: Receipt) -> str:
    if receipt.status == "rejected":
        raise ToolException(f"{receipt.operation} was refused ({receipt.code}): {receipt.reason}")
    return f"{receipt.operation} {receipt.status}: {receipt.key}"


@contextmanager
def _explained() -> Iterator[None]:
    """A filter that means nothing is the model's to mend."""
    try:
        yield
    except ValueError as error:
        raise ToolException(str(error)) from error


def _page(limit: int, offset: int) -> slice:
    return slice(max(offset, 0), max(offset, 0) + min(max(limit, 0), MOST_FOUND))


def _found(hits: Sequence[Hit]) -> tuple[str, list[Plain]]:
    listed = [
        {
            "id": hit.memory.key,
            "kind": hit.memory.kind,
            "content": neutralise(hit.memory.text),
            "valid_from": hit.memory.valid_from,
            "score": round(hit.score, 3),
        }
        for hit in hits
    ]
    return json.dumps(listed, ensure_ascii=False, default=str), plain_hits(hits)
