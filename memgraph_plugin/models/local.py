"""A chat model in this process: any causal language model of transformers that has a chat template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.models.tool_calls import (
    MARKERS,
    describe_schema,
    describe_tools,
    forced_call_schema,
    parse_tool_calls,
)

if TYPE_CHECKING:
    from memgraph_plugin.models.weights import Weights

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


class LocalChatModel(BaseChatModel):
    """The model in the directory `path` (or of that name on the Hugging Face hub); loaded on first use.

    Greedy, unless `temperature` is above 0. `max_tokens` bounds the reply. Structured output and forced tool
    calls are held to their JSON schema while they are decoded: they parse, unless `max_tokens` cuts them.

    Raises, when it is called:
        ConfigurationError: no such model, a model without a chat template, or a prompt longer than it reads.
        MissingExtraError: the extra `local` is not installed.
    """

    path: str
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None

    @property
    def _llm_type(self) -> str:
        return "local-transformers"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self.model_dump(include={"path", "max_tokens", "temperature", "top_p", "seed", "stop"})

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        return {"ls_model_name": Path(self.path).name, **params, "ls_provider": "local"}

    def get_token_ids(self, text: str) -> list[int]:
        ids: list[int] = self.weights().tokenizer.encode(text, add_special_tokens=False)
        return ids

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer `tools`. `tool_choice`: "auto" (or None), "none", "any" (or True), or the name of a tool.

        Raises:
            ConfigurationError: `tool_choice` names no tool that is offered.
        """
        offered = [convert_to_openai_tool(tool) for tool in tools]
        names = [tool["function"]["name"] for tool in offered]
        choice = tool_choice["function"]["name"] if isinstance(tool_choice, dict) else tool_choice
        choice = {True: "any", "required": "any", False: None, None: "auto"}.get(choice, choice)
        if choice not in (None, "auto", "none", "any", *names):
            raise ConfigurationError(f"tool_choice is {choice!r}, but the tools are: {', '.join(names)}")
        return self.bind(tools=offered, tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling"] = "json_schema",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Replies of the form of `schema`: instances of a pydantic class, dictionaries of a JSON schema."""
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        kwargs.pop("strict", None)
        model = self.bind(json_schema=convert_to_json_schema(schema), **kwargs)
        is_pydantic = isinstance(schema, type) and issubclass(schema, BaseModel)
        parser: Any = PydanticOutputParser(pydantic_object=schema) if is_pydantic else JsonOutputParser()
        if not include_raw:
            structured: Runnable[LanguageModelInput, dict[str, Any] | BaseModel] = model | parser
            return structured
        parse = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parse.with_fallbacks([unparsed], exception_key="parsing_error")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - nothing is streamed
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._chunks(messages, stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, stop, **kwargs):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _chunks(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        *,
        tools: Sequence[dict[str, Any]] = (),
        tool_choice: str | None = None,
        json_schema: dict[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[ChatGenerationChunk]:
        from memgraph_plugin.models.decoding import Constraint, decode

        weights = self.weights()
        tools = () if tool_choice == "none" else tools
        if tools and tool_choice not in (None, "auto"):
            json_schema = forced_call_schema(tools, str(tool_choice))
        prompt = _prompt(weights, messages, tools, json_schema)
        sampling, max_tokens = self._options(weights, len(prompt), options)
        constraint = Constraint(weights, json_schema) if json_schema else None
        text = _Text(weights, stop or self.stop or [], MARKERS if tools else ())
        for token in decode(weights, prompt, max_tokens, sampling, constraint):
            if piece := text.add(token):
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if text.stopped:
                break
        whole = text.stopped or text.tokens < max_tokens or (constraint is not None and constraint.complete)
        yield self._last(weights, text, [tool["function"]["name"] for tool in tools], len(prompt), whole)

    def _options(self, weights: Weights, prompt: int, options: dict[str, Any]) -> tuple[Any, int]:
        from memgraph_plugin.models.decoding import Sampling

        room = weights.max_tokens - prompt
        if room <= 0:
            raise ConfigurationError(
                f"the prompt has {prompt} tokens, and {weights.name} reads {weights.max_tokens} at most"
            )
        chosen = {name: options.get(name, getattr(self, name)) for name in ("temperature", "top_p", "seed")}
        return Sampling(**chosen), min(options.get("max_tokens") or self.max_tokens, room)

    def _last(
        self, weights: Weights, text: _Text, names: Sequence[str], prompt: int, whole: bool
    ) -> ChatGenerationChunk:
        rest, calls = parse_tool_calls(text.held, names) if names else (text.held, [])
        chunks = [
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
            for index, call in enumerate(calls)
        ]
        message = AIMessageChunk(
            content=rest,
            tool_call_chunks=chunks,
            usage_metadata=UsageMetadata(
                input_tokens=prompt, output_tokens=text.tokens, total_tokens=prompt + text.tokens
            ),
            response_metadata={"finish_reason": "stop" if whole else "length", "model_name": weights.name},
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message)

    def weights(self) -> Weights:
        """The model and its tokenizer, loaded at the first call; shared by all who use that path."""
        try:
            from memgraph_plugin.models.weights import load_weights
        except ImportError as error:
            raise MissingExtraError("local", "A local chat model") from error
        return load_weights(self.path)


class _Text:
    """A reply's text as it grows: cut before a stop word, held back from where a tool call may begin."""

    def __init__(self, weights: Weights, stop: Sequence[str], markers: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokenizer = weights.tokenizer.backend_tokenizer
        self._stop, self._markers = stop, markers
        self._holding = False
        self.held = ""
        self.tokens = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that this token sets free to be shown."""
        self.tokens += 1
        self.held += self._stream.step(self._tokenizer, token) or ""
        ends = [self.held.find(word) for word in self._stop if word in self.held]
        if ends:
            self.held, self.stopped = self.held[: min(ends)], True
        self._holding = self._holding or any(marker in self.held for marker in self._markers)
        if self._holding or self.stopped:
            return ""
        words = [*self._stop, *self._markers]
        safe = len(self.held) - max((_overlap(self.held, word) for word in words), default=0)
        free, self.held = self.held[:safe], self.held[safe:]
        return free


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of `text` begin `word`."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)


def _prompt(
    weights: Weights,
    messages: Sequence[BaseMessage],
    tools: Sequence[dict[str, Any]],
    json_schema: dict[str, Any] | None,
) -> list[int]:
    from jinja2 import TemplateError

    template = weights.tokenizer.chat_template
    if not template:
        raise ConfigurationError(
            f"{weights.name} has no chat template: it is no chat model; choose an instruct or chat variant"
        )
    turns = _alternating(_turn(message) for message in messages)
    if tools and "tools" not in template:
        turns = _with_system(turns, describe_tools(tools))
    if json_schema and not tools:
        turns = _with_system(turns, describe_schema(json_schema))
    try:
        ids: list[int] = weights.tokenizer.apply_chat_template(
            turns, tools=list(tools) or None, add_generation_prompt=True, return_dict=False
        )
    except TemplateError as error:
        raise ConfigurationError(f"the chat template of {weights.name} refuses this: {error}") from error
    return ids


def _turn(message: BaseMessage) -> dict[str, Any]:
    """A message in the form that chat templates read."""
    turn: dict[str, Any] = {"role": _ROLES.get(message.type, "user"), "content": message.text}
    if isinstance(message, AIMessage) and message.tool_calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": call["id"],
                "function": {"name": call["name"], "arguments": call["args"]},
            }
            for call in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        turn |= {"tool_call_id": message.tool_call_id, "name": message.name or ""}
    return turn


def _alternating(turns: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns with a user's messages in a row made one: many templates refuse two of them."""
    joined: list[dict[str, Any]] = []
    for turn in turns:
        if joined and turn["role"] == joined[-1]["role"] == "user":
            turn = {**turn, "content": f"{joined.pop()['content']}\n\n{turn['content']}"}
        joined.append(turn)
    return joined


def _with_system(turns: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    if turns and turns[0]["role"] == "system":
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{text}"}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]
