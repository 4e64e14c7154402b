"""A chat model that says what it was told to say: for tests of agents and graphs without a model."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr

Reply = str | AIMessage | BaseException | Callable[[list[BaseMessage]], "str | AIMessage | BaseException"]


class ScriptedChatModel(BaseChatModel):
    """Gives `replies` in their order: a text, a message, an exception (raised), or a function of the prompt.

    Where a tool call is forced (`tool_choice`, `with_structured_output`) and the reply is a JSON object as
    text, that object becomes the arguments of the call. `prompts` holds what was asked, one list of messages
    a call; `bound_tools` the tools (OpenAI's form) that were offered with each.

    Raises:
        IndexError: on a call after the last reply, unless `repeat_last`.
    """

    replies: list[Any]
    repeat_last: bool = False
    prompts: list[list[BaseMessage]] = Field(default_factory=list)
    bound_tools: list[list[dict[str, Any]]] = Field(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.prompts)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        offered = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=offered, tool_choice=tool_choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - a script stops where it is written to
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages, **kwargs))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._next(messages, **kwargs)
        for word in re.findall(r"\s*\S+|\s+", message.text):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=_last_chunk(message))

    def _next(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any]] = (),
        tool_choice: str | None = None,
        **_: Any,
    ) -> AIMessage:
        with self._lock:
            turn = len(self.prompts)
            self.prompts.append(list(messages))
            self.bound_tools.append(list(tools))
        if turn >= len(self.replies) and not (self.repeat_last and self.replies):
            raise IndexError(f"asked {turn + 1} times, but the script has only {len(self.replies)} replies")
        reply = self.replies[min(turn, len(self.replies) - 1)]
        if callable(reply) and not isinstance(reply, type):
            reply = reply(messages)
        if isinstance(reply, BaseException):
            raise reply
        message = reply if isinstance(reply, AIMessage) else AIMessage(content=reply)
        if tools and tool_choice not in (None, "auto", "none") and not message.tool_calls:
            return as_forced_call(message, tools, str(tool_choice), turn)
        return message.model_copy(update={"id": None})


def as_forced_call(
    message: AIMessage, tools: Sequence[dict[str, Any]], tool_choice: str, turn: int
) -> AIMessage:
    """A JSON object as text made into a call of the tool chosen, else of the first; other text is left."""
    try:
        arguments = json.loads(message.text)
    except ValueError:
        return message
    if not isinstance(arguments, dict):
        return message
    names = [tool["function"]["name"] for tool in tools]
    name = tool_choice if tool_choice in names else names[0]
    return AIMessage(content="", tool_calls=[tool_call(name=name, args=arguments, id=f"call_{turn}")])


def _last_chunk(message: AIMessage) -> AIMessageChunk:
    return AIMessageChunk(
        content="",
        tool_call_chunks=[
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
            for index, call in enumerate(message.tool_calls)
        ],
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )
