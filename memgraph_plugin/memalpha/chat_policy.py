"""Mem-alpha's decision, asked of a chat model: by tool call or JSON, one repair, and rules where it fails."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable

from memgraph_plugin import prompts
from memgraph_plugin.errors import ConfigurationError, ModelReplyError
from memgraph_plugin.memalpha.operations import (
    MAX_REPLY,
    TOOL_NAME,
    Handles,
    operations_tool,
    parse_operations,
    read_calls,
)
from memgraph_plugin.memalpha.policies import Decision, Policy
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.memalpha.safety import UNCHECKED
from memgraph_plugin.memalpha.sentences import own_words
from memgraph_plugin.memalpha.tools import single_tools
from memgraph_plugin.memalpha.validation import LIMITS, REPEATED, Limits, Validated, validate
from memgraph_plugin.memalpha.words import words
from memgraph_plugin.types import Memory, NoOp, Operation, Turn

_LOG = logging.getLogger(__name__)

TIMEOUT = 300.0
"""Seconds that one reply of the model may take, unless said otherwise: a small one on a CPU is slow."""

MAX_TURN = 12_000
"""Characters of one turn that are shown to the model."""

ReplyingModel: TypeAlias = Runnable[LanguageModelInput, AIMessage]
_Reply: TypeAlias = AIMessage | Exception
_Steps: TypeAlias = Generator[list[BaseMessage] | Decision, _Reply, None]

Tools: TypeAlias = Literal["one", "many"]
"""one: a tool that takes every operation at once · many: a tool for each, called as often as needed."""


class ChatModelPolicy:
    """Asks `model` what to remember, and lets through what `validate` accepts.

    A reply that breaks rules is sent back once with the codes, and a model that knows tools is then made to
    call ours; what is still wrong is dropped and the good is kept. Where nothing usable came (prose, half a
    JSON, an exception, nothing in `timeout` seconds), `fallback` decides; with None, the `ModelReplyError`
    is raised, the raw reply on it. Stateless: one policy may serve many threads.

    Whichever `tools` are offered, calls of both kinds are understood, in any mix.

    Raises:
        ConfigurationError: `tools` is neither, or the `prompt` lacks a placeholder.
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
        tools: Tools = "one",
    ) -> None:
        if tools not in get_args(Tools):
            raise ConfigurationError(f'tools is "one" or "many", not {tools!r}.')
        self._fallback = fallback
        self._limits = limits
        self._system = prompts.render_decide_prompt(limits.operations, limits.characters, template=prompt)
        self._timeout = timeout
        self._first, self._repairing, self._ask = _with_tools(model, tools)

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list(self.decide(turns, memories).operations)

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return list((await self.adecide(turns, memories)).operations)

    def decide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """`propose`, with what the model said and what was refused.

        Raises:
            ModelReplyError: nothing usable came, and there is no fallback.
        """
        handles = _handles(turns, memories)
        steps, (model, repairing) = self._steps(handles), self._bound(handles)
        step = next(steps)
        while not isinstance(step, Decision):
            reply: _Reply
            try:
                reply = _in_time(model, step, self._timeout)
            except Exception as error:  # noqa: BLE001 - whatever a model's client raises
                reply = error
            step, model = steps.send(reply), repairing
        if step.error is None:
            return step
        fallback = self._fallback_for(step.error)
        return replace(step, operations=tuple(fallback.propose(turns, memories)), policy=fallback.name)

    async def adecide(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> Decision:
        """Async twin of `decide`."""
        handles = _handles(turns, memories)
        steps, (model, repairing) = self._steps(handles), self._bound(handles)
        step = next(steps)
        while not isinstance(step, Decision):
            reply: _Reply
            try:
                reply = await asyncio.wait_for(model.ainvoke(step), self._timeout)
            except Exception as error:  # noqa: BLE001 - whatever a model's client raises
                reply = error
            step, model = steps.send(reply), repairing
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

    def _bound(self, handles: Handles) -> tuple[ReplyingModel, ReplyingModel]:  # noqa: ARG002 - a local model needs them
        """The model for the first reply, and for the one that mends it."""
        return self._first, self._repairing

    def _steps(self, handles: Handles) -> _Steps:
        """The talk without the model: yields what to ask, is sent the reply, at last yields the decision."""
        quoting = {handle for handle, turn in handles.turns.items() if _quotes(turn)}
        request: list[BaseMessage] = [
            SystemMessage(self._system),
            HumanMessage(
                prompts.render_decide_request(handles.turns, handles.memories, self._ask, quoting=quoting)
            ),
        ]
        reply = yield request
        first, raw, error = self._judge(reply, handles, ())
        if isinstance(reply, Exception) or not (error or _mendable(first)):
            yield self._decision(first, (raw,), error)
            return
        repair = (
            prompts.render_decide_repair(first.rejected, self._ask)
            if first.rejected
            else prompts.DECIDE_UNREADABLE
        )
        reply = yield [*request, AIMessage(raw[:MAX_TURN] or "(nothing)"), HumanMessage(repair)]
        second, more, error_again = self._judge(reply, handles, first.accepted)
        best = first if error_again else second
        if second.accepted == first.accepted:  # nothing was mended: what was refused stays refused
            best = replace(best, rejected=tuple(dict.fromkeys((*first.rejected, *second.rejected))))
        yield self._decision(best, (raw, more), None if first.accepted else error_again)

    def _judge(
        self, reply: _Reply, handles: Handles, accepted: Sequence[Operation]
    ) -> tuple[Validated, str, ModelReplyError | None]:
        """What of a reply may be applied beside what was accepted; the raw reply; why it is unreadable."""
        if isinstance(reply, Exception):
            failed = ModelReplyError(f"the model failed: {type(reply).__name__}", "")
            failed.__cause__ = reply
            return Validated(()), "", failed
        raw = raw_reply(reply)
        try:
            proposals, unread = read_calls(reply, raw)
        except ModelReplyError as error:
            return Validated(()), raw, error
        parsed = parse_operations(proposals, handles, limits=self._limits)
        proposed = [*accepted, *parsed.operations]
        turns, memories = list(handles.turns.values()), list(handles.memories.values())
        checked = validate(proposed, turns, memories, limits=self._limits, safety=UNCHECKED)
        news = tuple(op for op in checked.accepted if not (isinstance(op, NoOp) and op.reason == REPEATED))
        rejected = (*unread, *parsed.rejected, *checked.rejected)
        if rejected:
            # Only the codes: a reason may quote what was said.
            _LOG.info("Refused of a reply: %s", dict(Counter(receipt.code for receipt in rejected)))
        return Validated(news, rejected), raw, None

    def _decision(
        self, validated: Validated, raw: tuple[str, ...], error: ModelReplyError | None
    ) -> Decision:
        """Nothing accepted and something refused is nothing usable; but not where it only came too late."""
        codes = _mendable(validated)
        if error is None and not validated.accepted and codes:
            error = ModelReplyError(f"every operation was refused: {', '.join(codes)}", "\n".join(raw))
        operations = validated.accepted or (NoOp(reason="nothing_new"),)
        return Decision(operations, self.name, validated.rejected, raw, error)


def _mendable(validated: Validated) -> list[str]:
    """The codes of what was refused, but for what came too late: no other words would mend that."""
    return sorted({receipt.code or "" for receipt in validated.rejected} - {"stale_evidence"})


def raw_reply(reply: AIMessage) -> str:
    """A reply as text: what was written, and the calls of tools as JSON."""
    calls = [call["args"] for call in reply.tool_calls] + [call["args"] for call in reply.invalid_tool_calls]
    return "\n".join(
        [str(reply.text), *(json.dumps(args, ensure_ascii=False, default=str) for args in calls)]
    ).strip()[:MAX_REPLY]


def _handles(turns: Sequence[Turn], memories: Sequence[Memory]) -> Handles:
    shown = [replace(turn, text=prompts.strip_memory_blocks(turn.text)[:MAX_TURN]) for turn in turns]
    return Handles.assign(shown, memories)


def _quotes(turn: Turn) -> bool:
    """Whether there is something in a user's turn that somebody else said, wrote or programmed."""
    return turn.role == "user" and words(own_words(turn.text)) != words(turn.text)


def _with_tools(model: BaseChatModel, tools: Tools) -> tuple[ReplyingModel, ReplyingModel, str]:
    """The model with tools offered, with one forced, and how to ask; bare where it knows no tools."""
    try:
        if tools == "many":
            offered = single_tools()
            forced = model.bind_tools(offered, tool_choice="any")
            return model.bind_tools(offered), forced, prompts.DECIDE_BY_TOOLS
        tool = operations_tool()
        forced = model.bind_tools([tool], tool_choice=TOOL_NAME)
        return model.bind_tools([tool]), forced, prompts.DECIDE_BY_TOOL
    except NotImplementedError:
        return model, model, prompts.render_decide_by_json()


def _in_time(model: ReplyingModel, request: list[BaseMessage], timeout: float | None) -> AIMessage:
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
