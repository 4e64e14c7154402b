"""Memory for LangChain: a middleware for `create_agent`, tools, a retriever; all on the steps of `nodes`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, cast, get_args

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import SystemMessage
from langchain_core.messages.content import create_text_block
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from pydantic import ConfigDict

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock
from memgraph_plugin.memalpha.safety import SAFETY, Safety
from memgraph_plugin.nodes.apply import awrite, write
from memgraph_plugin.nodes.decide import (
    Deciding,
    PolicySource,
    adecide_exchange,
    decide_exchange,
    policy_source,
)
from memgraph_plugin.nodes.recall_clues import DrafterSource, Way, arecall_by_clues, recall_by_clues
from memgraph_plugin.nodes.retrieve import arecall, recall
from memgraph_plugin.nodes.scope import Scope, check_labels, running_scope, scope_of
from memgraph_plugin.nodes.submit import MemoryWriter, ahand_over, hand_over
from memgraph_plugin.nodes.transcript import TURN, storable, with_memory_block
from memgraph_plugin.prompts import (
    MANAGE_MEMORY,
    REJECTIONS,
    SEARCH_MEMORY,
    neutralise,
    render_memory_block,
    strip_memory_blocks,
)
from memgraph_plugin.state import Plain, plain_hits
from memgraph_plugin.types import Delete, Hit, Insert, MemoryKind, Operation, Receipt, Update

try:
    from langchain.agents.middleware.types import (
        AgentMiddleware,
        AgentState,
        ModelRequest,
        ModelResponse,
        PrivateStateAttr,
    )
except ImportError as error:
    raise MissingExtraError("langchain", "MemoryMiddleware") from error

InjectAs: TypeAlias = Literal["user", "system"]


class RecallState(AgentState[Any]):
    """The agent's state, and what was recalled for this turn: a rendered block by middleware name."""

    recalled: NotRequired[Annotated[dict[str, str], PrivateStateAttr]]


class MemoryMiddleware(AgentMiddleware[RecallState, Any, Any]):
    """Lasting memory for an agent: recalls before it starts, remembers the exchange when it is done.

    Recall happens once a turn, however often the model is called in it; what was recalled stands before the
    user's last message as a delimited block and never enters the transcript. A recall that fails is logged
    and the turn goes on; a write that fails is raised, after the answer. Tool results are not stored.

    Args:
        store: a memory store; by default the agent's (`create_agent(store=...)`).
        namespace: where this agent keeps its memories; by default the run says: `MemoryContext`, any context
            with a `user_id` or a `namespace`, or `configurable={"user_id": ...}`.
        policy: decides what to remember; by default the rules.
        k: memories recalled a turn, at most.
        token_budget: tokens of memory laid before the model, at most.
        clues: who drafts clues where the user's words do not say what they need (`nodes/recall_clues.py`): a
            drafter, or who has one for a namespace; by default nobody.
        inject_as: "user" (a user message before the last one) or "system" (the end of the system message).
        write: False recalls and never writes.
        writer: writes after the turn, as a `BackgroundWriter` does; by default the agent ends when memory is
            written.
        tools: True gives the agent `memory_tools` as well.
        core: the blocks of the profile, each seen whole in every turn; by default one, "profile".
        safety: what is done with instructions, secrets and personal data that the policy would remember.

    Raises (when it runs):
        ConfigurationError: the store has no memory operations, or the namespace cannot work.
        MissingNamespaceError: nobody said whose memory this is.
        StoreError: the exchange could not be written.
    """

    state_schema = RecallState

    def __init__(
        self,
        *,
        store: BaseStore | None = None,
        namespace: Sequence[str] | None = None,
        policy: PolicySource = None,
        k: int = 10,
        token_budget: int = 1200,
        clues: DrafterSource | None = None,
        inject_as: InjectAs = "user",
        write: bool = True,
        writer: MemoryWriter | None = None,
        tools: bool = False,
        core: Sequence[CoreBlock] = (PROFILE,),
        safety: Safety = SAFETY,
    ) -> None:
        if inject_as not in get_args(InjectAs):
            raise ConfigurationError(f'inject_as is "user" or "system", not {inject_as!r}.')
        self.namespace = None if namespace is None else check_labels(namespace)
        self.tools = memory_tools(store=store, namespace=namespace) if tools else []
        self._store = store
        self._policy = policy_source(policy)
        self._how = Deciding(core=core, safety=safety)
        self._k = k
        self._token_budget = token_budget
        self._clues = clues
        self._way = Way(k=k, token_budget=token_budget)
        self._inject_as = inject_as
        self._write = write
        self._writer = writer

    @property
    def name(self) -> str:
        """One agent may have several, each with a namespace of its own."""
        return f"MemoryMiddleware[{'.'.join(self.namespace)}]" if self.namespace else "MemoryMiddleware"

    def before_agent(self, state: RecallState, runtime: Runtime[Any]) -> dict[str, Any]:
        scope = self._scope(runtime)
        said, clues = state["messages"], self._clues
        hits: Sequence[Hit] = recall(scope, said, k=self._k, token_budget=self._token_budget)
        if clues is not None:
            hits = recall_by_clues(scope, said, hits, clues, self._way).hits
        return self._recalled(state, hits, scope)

    async def abefore_agent(self, state: RecallState, runtime: Runtime[Any]) -> dict[str, Any]:
        scope = self._scope(runtime)
        said, clues = state["messages"], self._clues
        hits: Sequence[Hit] = await arecall(scope, said, k=self._k, token_budget=self._token_budget)
        if clues is not None:
            hits = (await arecall_by_clues(scope, said, hits, clues, self._way)).hits
        return self._recalled(state, hits, scope)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        return handler(self._with_memory(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        return await handler(self._with_memory(request))

    def after_agent(self, state: RecallState, runtime: Runtime[Any]) -> None:
        if not self._write:
            return
        scope, said = self._scope(runtime), state["messages"]
        if self._writer is not None:
            hand_over(self._writer, scope, said, self._policy, self._how)
        else:
            write(scope, said, decide_exchange(scope, said, self._policy(), self._how))

    async def aafter_agent(self, state: RecallState, runtime: Runtime[Any]) -> None:
        if not self._write:
            return
        scope, said = self._scope(runtime), state["messages"]
        if self._writer is not None:
            await ahand_over(self._writer, scope, said, self._policy, self._how)
        else:
            policy = await asyncio.to_thread(self._policy)
            await awrite(scope, said, await adecide_exchange(scope, said, policy, self._how))

    def _scope(self, runtime: Runtime[Any]) -> Scope:
        return scope_of(runtime, store=self._store, namespace=self.namespace)

    def _recalled(self, state: RecallState, hits: Sequence[Hit], scope: Scope) -> dict[str, Any]:
        return {"recalled": {**state.get("recalled", {}), self.name: render_memory_block(hits, scope.now)}}

    def _with_memory(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        block = cast("RecallState", request.state).get("recalled", {}).get(self.name, "")
        if not block:
            return request
        if self._inject_as == "user":
            return request.override(messages=with_memory_block(request.messages, block))
        said = request.system_message.content_blocks if request.system_message else []
        return request.override(
            system_message=SystemMessage(content_blocks=[*said, create_text_block(block)])
        )


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
