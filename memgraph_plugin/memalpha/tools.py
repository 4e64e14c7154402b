"""The tools of one operation each, and the form that a reply is held to while it is decoded. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memgraph_plugin.memalpha.form import WRITABLE
from memgraph_plugin.memalpha.operations import SINGLE_OPERATIONS, Handles, operation_fields
from memgraph_plugin.memalpha.validation import LIMITS, Limits
from memgraph_plugin.prompts import SINGLE_TOOLS
from memgraph_plugin.types import OperationName

_FACT = ("text", "subject", "attribute", "value", "when", "importance", "evidence", "reason")
FIELDS: Mapping[OperationName, tuple[str, ...]] = {
    "insert": ("kind", "handle", *_FACT),
    "update": ("handle", "mode", *_FACT),
    "delete": ("handle", "evidence", "reason"),
    "noop": ("reason",),
}
"""The fields of each operation, in the order in which a model writes them."""

_NEEDED: Mapping[OperationName, tuple[str, ...]] = {
    "insert": ("text", "evidence"),
    "update": ("handle", "mode", "text", "evidence"),
    "delete": ("handle", "evidence"),
    "noop": ("reason",),
}


def single_tools() -> list[dict[str, Any]]:
    """The tools of one operation each, in OpenAI's form; calls of both kinds may be mixed in one reply."""
    fields = operation_fields()
    return [
        {
            "type": "function",
            "function": {
                "name": tool,
                "description": SINGLE_TOOLS[tool],
                "parameters": {
                    "type": "object",
                    "properties": {name: fields[name] for name in FIELDS[op]},
                    "required": list(_NEEDED[op]),
                    "additionalProperties": False,
                },
            },
        }
        for tool, op in SINGLE_OPERATIONS.items()
    ]


def shown_schema(handles: Handles, limits: Limits = LIMITS) -> dict[str, Any]:
    """`operations_schema` for decoding under constraint, in one call: no operation without what it needs.

    Only what is shown can be named, and nothing can be longer than `limits` allows; so what is decoded ends,
    parses, and holds no invented handle. Where nothing is shown that could be changed, there is no update.
    """
    memories = [handle for handle, memory in handles.memories.items() if memory.kind in (*WRITABLE, "turn")]
    fields = {
        name: {key: said for key, said in field.items() if key != "description"}
        for name, field in operation_fields().items()
    }
    fields["handle"]["enum"] = memories
    fields["evidence"] |= {"items": {"enum": list(handles.turns)}, "minItems": 1, "maxItems": 4}
    fields["text"]["maxLength"] = limits.characters
    fields["when"]["pattern"] = r"^\d{4}-\d{2}-\d{2}$"
    # A number has no length: without a choice, a model that repeats itself writes digits without an end.
    fields["importance"] = {"enum": [tenths / 10 for tenths in range(1, 11)]}
    for name in ("subject", "attribute", "value", "reason"):
        fields[name]["maxLength"] = 80
    names = [name for name in FIELDS if memories or name not in ("update", "delete")]
    forms = [
        {
            "type": "object",
            "properties": {"op": {"const": name}}
            | {field: fields[field] for field in FIELDS[name] if field != "handle" or memories},
            "required": ["op", *_NEEDED[name]],
            "additionalProperties": False,
        }
        for name in names
    ]
    ops = {"type": "array", "items": {"anyOf": forms}, "minItems": 1, "maxItems": limits.operations}
    return {"type": "object", "properties": {"ops": ops}, "required": ["ops"], "additionalProperties": False}
