"""Tool calls as text: how local models write them, and reading them back. Pure, without a model."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import ToolCall
from langchain_core.messages.tool import tool_call

from memgraph_plugin.prompts import ANSWER_BY_SCHEMA, CALL_BY_TEXT, fill

MARKERS = ("<tool_call>", "```", "{", "[{")
"""Where a tool call may begin in a reply; text from there on is not shown before it is known to be none."""

_BEFORE = re.compile(r"(?:<tool_call>|```(?:json)?)\s*$")
_AFTER = re.compile(r"\s*(?:</tool_call>|```)")
_OPENING = re.compile(r"\[\s*\{|\{")


def parse_tool_calls(text: str, names: Collection[str]) -> tuple[str, list[ToolCall]]:
    """Take a reply apart: the text around the calls, and the calls; a reply without any is left as it is.

    Read are `<tool_call>` tags, fenced JSON and bare JSON, as long as they call one of `names`.
    """
    calls: list[ToolCall] = []
    kept, position = "", 0
    for start, end, value in _json_values(text):
        found = [_as_call(item, names) for item in (value if isinstance(value, list) else [value])]
        if not found or not all(found):
            continue
        calls += [call for call in found if call]
        kept += _BEFORE.sub("", text[position:start])
        after = _AFTER.match(text, end)
        position = after.end() if after else end
    return ((kept + text[position:]).strip(), calls) if calls else (text, [])


def forced_call_schema(tools: Sequence[Mapping[str, Any]], tool_choice: str) -> dict[str, Any]:
    """The JSON schema of a call of one of `tools` (OpenAI's form): of the one named, or of any."""
    functions = [tool["function"] for tool in tools]
    chosen = [function for function in functions if function["name"] == tool_choice] or functions
    schemas = [_call_schema(function) for function in chosen]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def describe_tools(tools: Sequence[Mapping[str, Any]]) -> str:
    """What to tell a model whose chat template knows nothing of tools."""
    return fill(CALL_BY_TEXT, tools="\n".join(json.dumps(tool["function"]) for tool in tools))


def describe_schema(schema: Mapping[str, Any]) -> str:
    """What to tell a model of the JSON that its reply is held to: the constraint gives form, not sense."""
    return fill(ANSWER_BY_SCHEMA, schema=json.dumps(schema))


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    parameters = dict(function.get("parameters") or {"type": "object", "properties": {}})
    definitions = {name: parameters.pop(name) for name in ("$defs", "definitions") if name in parameters}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        **definitions,
    }


def _json_values(text: str) -> Iterator[tuple[int, int, Any]]:
    decoder, position = json.JSONDecoder(), 0
    while match := _OPENING.search(text, position):
        start = match.start()
        try:
            value, position = decoder.raw_decode(text, start)
            yield start, position, value
        except ValueError:
            position = start + 1


def _as_call(value: Any, names: Collection[str]) -> ToolCall | None:
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return (
        tool_call(name=value["name"], args=arguments, id=_call_id()) if isinstance(arguments, dict) else None
    )


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
