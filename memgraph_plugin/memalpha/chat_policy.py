"""Mem-alpha's decision, asked of a chat model: by tool call or JSON, one repair, and rules where it fails."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable

from memgraph_plugin import prompts
from memgraph_plugin.errors import ModelReplyError
from memgraph_plugin.memalpha.operations import (
    MAX_REPLY,
    TOOL_NAME,
    Handles,
    operations_tool,
    parse_operations,
    proposals_in,
    read_json,
)
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.validation import LIMITS, REPEATED, Limits, Validated, validate
from memgraph_plugin.types import Memory, NoOp, Operation, Receipt, Turn

_LOG = logging.getLogger(__name__)

TIMEOUT = 300.0
"""Seconds that one reply of the model may take, unless said otherwise: a small one on a CPU is slow."""

MAX_TURN = 12_000
"""Characters of one turn that are shown to the model."""

_Model: TypeAlias = Runnable[LanguageModelInput, AIMessage]
_Reply: TypeAlias = AIMessage | Exception
_Steps: TypeAlias = "Generator[list[BaseMessage] | Decision, _Reply, None]"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a model decided. `raw` is each of its replies as it came; `error` is why none could be used,
    if so, and then `policy` is the fallback's name and `operations` are the fallback's."""

    operations: tuple[Operation, ...]
    policy: str
    rejected: tuple[Receipt, ...] = ()
    raw: tuple[str, ...] = ()
    error: ModelReplyError | None = None


class ChatModelPolicy:
    """Asks `model` what to remember, and lets through what `validate` accepts.

    A reply that breaks rules is sent back once with the codes, and a model that knows tools is then made to
    call ours; what is still wrong is dropped and the good is kept. Where nothing usable came (prose, half a
    JSON, an exception, nothing in `timeout` seconds), `fallback` decides; with None, the `ModelReplyError`
    is raised, the raw reply on it. Stateless: one policy may serve many threads.
    """

    name: str = "chat"

    def __init__(
        self,
        model: BaseChatModel,
        *,
        fallback: Policy | None = RulePolicy(),  # noqa: B008 - frozen
        limits: Limits = LIMITS,
        prompt: str = prompts.DECIDE_PROMPT,
        timeout: float | None = TIMEOUT,
    ) -> None:
        self._fallback = fallback
        self._limits = limits
        self._system = prompts.render_decide_prompt(limits.operations, limits.characters, template=prompt)
        self._timeout = timeout
        self._model, self._repairing, self._ask = _with_tool(model)

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list(self.decide(turns, memories).operations)

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list((await self.adecide(turns, memories)).operations)

    def decide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """`propose`, with what the model said and what was refused.

        Raises:
            ModelReplyError: nothing usable came, and there is no fallback.
        """
        steps, model = self._steps(turns, memories), self._model
        step = next(steps)
        while not isinstance(step, Decision):
            reply: _Reply
            try:
                reply = _in_time(model, step, self._timeout)
            except Exception as error:  # noqa: BLE001 - whatever a model's client raises
                reply = error
            step, model = steps.send(reply), self._repairing
        if step.error is None:
            return step
        fallback = self._fallback_for(step.error)
        return replace(step, operations=tuple(fallback.propose(turns, memories)), policy=fallback.name)

    async def adecide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """Async twin of `decide`."""
        steps, model = self._steps(turns, memories), self._model
        step = next(steps)
        while not isinstance(step, Decision):
            reply: _Reply
            try:
                reply = await asyncio.wait_for(model.ainvoke(step), self._timeout)
            except Exception as error:  # noqa: BLE001 - whatever a model's client raises
                reply = error
            step, model = steps.send(reply), self._repairing
        if step.error is None:
            return step
        fallback = self._fallback_for(step.error)
        return replace(step, operations=tuple(await fallback.apropose(turns, memories)), policy=fallback.name)

    def _fallback_for(self, error: ModelReplyError) -> Policy:
        if self._fallback is None:
            raise error
        _LOG.warning(
            "The memory policy's model gave nothing usable (%s); %s decides.", error, self._fallback.name
        )
        return self._fallback

    def _steps(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> _Steps:
        """The talk without the model: yields what to ask, is sent the reply, at last yields the decision."""
        shown = [replace(turn, text=prompts.strip_memory_blocks(turn.text)[:MAX_TURN]) for turn in turns]
        handles = Handles.assign(shown, memories)
        request: list[BaseMessage] = [
            SystemMessage(self._system),
            HumanMessage(prompts.render_decide_request(handles.turns, handles.memories, self._ask)),
        ]
        reply = yield request
        first, raw, error = self._judge(reply, handles, ())
        if isinstance(reply, Exception) or not (error or first.rejected):
            yield _decision(first, (raw,), error)
            return
        repair = (
            prompts.render_decide_repair(first.rejected, self._ask)
            if first.rejected
            else prompts.DECIDE_UNREADABLE
        )
        reply = yield [*request, AIMessage(raw[:MAX_TURN] or "(nothing)"), HumanMessage(repair)]
        second, more, error_again = self._judge(reply, handles, first.accepted)
        best = first if error_again else second
        yield _decision(best, (raw, more), None if first.accepted else error_again)

    def _judge(
        self, reply: _Reply, handles: Handles, accepted: Sequence[Operation]
    ) -> tuple[Validated, str, ModelReplyError | None]:
        """What of a reply may be applied beside what was accepted; the raw reply; why it is unreadable."""
        raw = "" if isinstance(reply, Exception) else raw_reply(reply)
        try:
            proposals = _proposals(reply, raw)
        except ModelReplyError as error:
            return Validated(()), raw, error
        parsed = parse_operations(proposals, handles, limits=self._limits)
        proposed = [*accepted, *parsed.operations]
        checked = validate(
            proposed, list(handles.turns.values()), list(handles.memories.values()), limits=self._limits
        )
        news = tuple(op for op in checked.accepted if not (isinstance(op, NoOp) and op.reason == REPEATED))
        return Validated(news, (*parsed.rejected, *checked.rejected)), raw, None


def raw_reply(reply: AIMessage) -> str:
    """A reply as text: what was written, and the calls of tools as JSON."""
    calls = [call["args"] for call in reply.tool_calls] + [call["args"] for call in reply.invalid_tool_calls]
    return "\n".join(
        [str(reply.text), *(json.dumps(args, ensure_ascii=False, default=str) for args in calls)]
    ).strip()[:MAX_REPLY]


def _with_tool(model: BaseChatModel) -> tuple[_Model, _Model, str]:
    """The model with the tool offered, with the tool forced, and how to ask; bare where it knows no tools."""
    tool = operations_tool()
    try:
        return (
            model.bind_tools([tool]),
            model.bind_tools([tool], tool_choice=TOOL_NAME),
            prompts.DECIDE_BY_TOOL,
        )
    except NotImplementedError:
        return model, model, prompts.render_decide_by_json()


def _in_time(model: _Model, request: list[BaseMessage], timeout: float | None) -> AIMessage:
    """The model's reply. One that comes too late is left to itself, in a thread that ends with the program.

    Raises:
        TimeoutError: none came in `timeout` seconds.
    """
    if timeout is None:
        return model.invoke(request)
    replies: list[_Reply] = []
    context = contextvars.copy_context()

    def ask() -> None:
        try:
            replies.append(context.run(model.invoke, request))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            replies.append(error)

    thread = threading.Thread(target=ask, daemon=True, name="memgraph_plugin.policy")
    thread.start()
    thread.join(timeout)
    if not replies:
        raise TimeoutError(f"no reply in {timeout} seconds")
    if isinstance(replies[0], Exception):
        raise replies[0]
    return replies[0]


def _proposals(reply: _Reply, raw: str) -> list[object]:
    if isinstance(reply, Exception):
        raise ModelReplyError(f"the model failed: {type(reply).__name__}", raw) from reply
    if reply.invalid_tool_calls:
        raise ModelReplyError("the arguments of the tool call are not JSON", raw)
    calls = [call["args"] for call in reply.tool_calls if call["name"] == TOOL_NAME]
    if calls:
        return [proposal for args in calls for proposal in proposals_in(args, raw)]
    return list(read_json(str(reply.text)))


def _decision(validated: Validated, raw: tuple[str, ...], error: ModelReplyError | None) -> Decision:
    """Nothing accepted and something refused counts as nothing usable."""
    if error is None and not validated.accepted and validated.rejected:
        codes = ", ".join(sorted({receipt.code or "" for receipt in validated.rejected}))
        error = ModelReplyError(f"every operation was refused: {codes}", "\n".join(raw))
    operations = validated.accepted or (NoOp(reason="nothing_new"),)
    return Decision(operations, ChatModelPolicy.name, validated.rejected, raw, error)
