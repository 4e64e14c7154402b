"""Memory for LangChain's agents: a middleware for `create_agent`, on the steps of `nodes`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, cast, get_args

from langchain_core.messages import SystemMessage
from langchain_core.messages.content import create_text_block
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.graph import build_writing_graph
from memgraph_plugin.integrations.tools import memory_tools
from memgraph_plugin.memalpha.blocks import PROFILE, CoreBlock
from memgraph_plugin.memalpha.safety import SAFETY, Safety
from memgraph_plugin.nodes.apply import awrite, write
from memgraph_plugin.nodes.decide import (
    Approval,
    Deciding,
    PolicySource,
    adecide_exchange,
    decide_exchange,
    policy_source,
)
from memgraph_plugin.nodes.recall_clues import DrafterSource, Way, arecall_by_clues, recall_by_clues
from memgraph_plugin.nodes.retrieve import arecall, recall
from memgraph_plugin.nodes.scope import Scope, check_labels, scope_of
from memgraph_plugin.nodes.submit import MemoryWriter, ahand_over, check_attended, hand_over
from memgraph_plugin.nodes.transcript import with_memory_block
from memgraph_plugin.prompts import render_memory_block
from memgraph_plugin.types import Hit

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
        approve: which operations a human is asked about, by interrupting the agent after the rest is written:
            ("delete", "core") for instance; see `nodes/approve.py`. The agent needs a checkpointer, and the
            store itself.
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
        approve: Approval = (),
        tools: bool = False,
        core: Sequence[CoreBlock] = (PROFILE,),
        safety: Safety = SAFETY,
    ) -> None:
        if inject_as not in get_args(InjectAs):
            raise ConfigurationError(f'inject_as is "user" or "system", not {inject_as!r}.')
        check_attended(approve, writer)
        if approve and store is not None:
            raise ConfigurationError("approve= asks in a graph within the agent: create_agent(store=...).")
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
        self._asking = (
            build_writing_graph(
                policy, namespace=namespace, core=core, approve=approve, safety=safety
            ).compile()
            if approve
            else None
        )

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
        elif self._asking is not None:
            self._asking.invoke({"messages": said})
        else:
            write(scope, said, decide_exchange(scope, said, self._policy(), self._how))

    async def aafter_agent(self, state: RecallState, runtime: Runtime[Any]) -> None:
        if not self._write:
            return
        scope, said = self._scope(runtime), state["messages"]
        if self._writer is not None:
            await ahand_over(self._writer, scope, said, self._policy, self._how)
        elif self._asking is not None:
            await self._asking.ainvoke({"messages": said})
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
