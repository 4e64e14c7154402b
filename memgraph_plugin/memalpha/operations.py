"""The operations as a chat model speaks them: the tools' schemas, handles for keys, and a strict reading.

A model never sees a key. `Handles` names what it is shown ("s1", "e2", "core:profile", "t1") for one call;
the map back to keys and versions stays here, so that an invented handle can only be refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from langchain_core.messages import AIMessage

from memgraph_plugin.errors import ModelReplyError, OperationRejected
from memgraph_plugin.memalpha.blocks import block_of
from memgraph_plugin.memalpha.validation import LIMITS, Limits
from memgraph_plugin.prompts import OPERATION_FIELDS, OPERATIONS_TOOL, REJECTIONS
from memgraph_plugin.types import (
    OPERATION_NAMES,
    Delete,
    Insert,
    Memory,
    MemoryKind,
    NoOp,
    Operation,
    OperationName,
    Receipt,
    Turn,
    Update,
    UpdateMode,
)

T = TypeVar("T")

TOOL_NAME = "apply_memory_operations"

SINGLE_OPERATIONS: Mapping[str, OperationName] = {
    "insert_memory": "insert",
    "update_memory": "update",
    "delete_memory": "delete",
    "no_op": "noop",
}
"""The tools of one operation each, for models that prefer many small calls, and what each does."""

MAX_REPLY = 200_000
"""Characters of a reply that are read; a longer one is an error."""

_PREFIXES: Mapping[MemoryKind, str] = {
    "semantic": "s",
    "episodic": "e",
    "core": "core",
    "passage": "p",
    "self": "h",
    "turn": "m",
}
_STRINGS = ("handle", "text", "subject", "attribute", "value", "when", "reason")
_MODES: Mapping[str, UpdateMode] = {"correct": "correct", "refine": "refine", "supersede": "supersede"}
_KINDS: Mapping[str, MemoryKind] = {kind: kind for kind in ("core", "semantic", "episodic")}
_NAMES: Mapping[str, OperationName] = {name: name for name in OPERATION_NAMES.values()}


@dataclass(frozen=True, slots=True)
class Handles:
    """What is shown to a model in one call, by the names it may use."""

    memories: Mapping[str, Memory]
    turns: Mapping[str, Turn]

    @classmethod
    def assign(cls, turns: Sequence[Turn], memories: Sequence[Memory]) -> Handles:
        """Turns are t1, t2 ...; memories s1 (semantic), e1 (episodic), p1 (passage), in their order.

        A core block is core:<its label>; core memory without a label is core, core2 ...
        """
        named: dict[str, Memory] = {}
        counts: dict[str, int] = {}
        for memory in memories:
            block = block_of(memory)
            prefix = block.key if block else _PREFIXES[memory.kind]
            count = counts[prefix] = counts.get(prefix, 0) + 1
            named[prefix if memory.kind == "core" and count == 1 else f"{prefix}{count}"] = memory
        return cls(named, {f"t{number}": turn for number, turn in enumerate(turns, 1)})


@dataclass(frozen=True, slots=True)
class Parsed:
    """The operations that have the right form, under real keys, and what has not."""

    operations: tuple[Operation, ...]
    rejected: tuple[Receipt, ...] = ()


def operation_fields() -> dict[str, Any]:
    """The schema of each field of an operation."""

    def string(name: str, **more: Any) -> dict[str, Any]:
        return {"type": "string", "description": OPERATION_FIELDS[name], **more}

    return {
        "op": string("op", enum=list(_NAMES)),
        "handle": string("handle"),
        "text": string("text"),
        "kind": string("kind", enum=list(_KINDS)),
        "mode": string("mode", enum=list(_MODES)),
        "subject": string("subject"),
        "attribute": string("attribute"),
        "value": string("value"),
        "when": string("when"),
        "importance": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": OPERATION_FIELDS["importance"],
        },
        "evidence": {
            "type": "array",
            "items": {"type": "string"},
            "description": OPERATION_FIELDS["evidence"],
        },
        "reason": string("reason"),
    }


def operations_schema() -> dict[str, Any]:
    """JSON schema of `{"ops": [...]}`: the parameters of the tool."""
    operation = {
        "type": "object",
        "properties": operation_fields(),
        "required": ["op"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"ops": {"type": "array", "items": operation, "description": OPERATION_FIELDS["ops"]}},
        "required": ["ops"],
        "additionalProperties": False,
    }


def operations_tool() -> dict[str, Any]:
    """The one tool of the decide step, in OpenAI's form, which every LangChain chat model accepts."""
    return {
        "type": "function",
        "function": {"name": TOOL_NAME, "description": OPERATIONS_TOOL, "parameters": operations_schema()},
    }


def read_calls(reply: AIMessage, raw: str) -> tuple[list[Any], list[Receipt]]:
    """The proposals in a reply, by whichever tools and in whichever mix, and the calls that are none.

    Raises:
        ModelReplyError: nothing in it can be read.
    """
    proposals: list[Any] = []
    rejected = [
        _refused({}, "schema", f"the arguments of {call['name'] or 'a call'!r:.60} are not JSON")
        for call in reply.invalid_tool_calls
    ]
    error: ModelReplyError | None = None
    for call in reply.tool_calls:
        if call["name"] == TOOL_NAME:
            try:
                proposals += proposals_in(call["args"], raw)
            except ModelReplyError as unreadable:
                error = unreadable
                rejected.append(_refused({}, "schema", str(unreadable)))
        elif op := SINGLE_OPERATIONS.get(call["name"]):
            proposals.append({**call["args"], "op": op})
        else:
            rejected.append(_refused({}, "unknown_tool", f"{call['name']!r:.60}"))
    if proposals or any(receipt.code == "unknown_tool" for receipt in rejected):
        return proposals, rejected
    if reply.invalid_tool_calls:
        raise ModelReplyError("the arguments of the tool call are not JSON", raw)
    if error:
        raise error
    return ([], []) if reply.tool_calls else (read_json(str(reply.text)), [])


def read_json(text: str) -> list[Any]:
    """The proposals in a reply: an object with "ops", a list, or one operation; bare, fenced, or after prose.

    Raises:
        ModelReplyError: there is no JSON, it is cut off, too long, or of another shape.
    """
    if len(text) > MAX_REPLY:
        raise ModelReplyError(f"the reply has {len(text)} characters, {MAX_REPLY} allowed", text[:MAX_REPLY])
    body = _without_thoughts(text)
    _, opened, rest = body.partition("```")
    fenced, closed, _ = rest.partition("```")
    body = fenced if opened and closed else body
    start = re.search(r"[{\[]", body)
    if not start:
        raise ModelReplyError("the reply has no JSON", text)
    try:
        read, _ = _DECODER.raw_decode(body, start.start())
    except (ValueError, RecursionError) as error:
        raise ModelReplyError(f"the reply is not whole JSON: {type(error).__name__}", text) from error
    return proposals_in(read, text)


def _without_thoughts(text: str) -> str:
    """In one pass: a pattern would look for the end of each <think> anew, for seconds in a hostile reply."""
    kept, at = [], 0
    while (begin := text.find("<think>", at)) >= 0 and (end := text.find("</think>", begin)) >= 0:
        kept.append(text[at:begin])
        at = end + len("</think>")
    return "".join([*kept, text[at:]])


def proposals_in(read: Any, raw: str) -> list[Any]:
    """The list of proposals in decoded JSON or in the arguments of a tool call.

    Raises:
        ModelReplyError: it is of another shape.
    """
    if isinstance(read, dict) and "arguments" in read:  # a tool call, written out
        name, arguments = read.get("name"), read["arguments"]
        if name == TOOL_NAME:
            read = arguments
        elif isinstance(name, str) and name in SINGLE_OPERATIONS and isinstance(arguments, dict):
            read = {**arguments, "op": SINGLE_OPERATIONS[name]}
    if isinstance(read, str):
        return read_json(read)
    if isinstance(read, dict) and "ops" not in read and "op" in read:
        read = [read]
    proposals = read.get("ops") if isinstance(read, dict) else read
    if isinstance(proposals, str):
        return read_json(proposals)
    if isinstance(proposals, dict):
        proposals = [proposals]
    if not isinstance(proposals, list):
        raise ModelReplyError('the reply has no list "ops"', raw)
    return proposals


def parse_operations(proposals: Sequence[Any], handles: Handles, *, limits: Limits = LIMITS) -> Parsed:
    """Proposals as operations on real keys; at most `limits.operations` are looked at. Raises nothing."""
    operations: list[Operation] = []
    rejected: list[Receipt] = []
    for proposal in proposals[: limits.operations]:
        try:
            operations.append(_parse(proposal, handles))
        except OperationRejected as error:
            rejected.append(_refused(proposal, error.code, error.reason))
    if len(proposals) > limits.operations:
        reason = f"{len(proposals)} given, {limits.operations} allowed"
        rejected.append(_refused(proposals[limits.operations], "too_many", reason))
    return Parsed(tuple(operations), tuple(rejected))


def _refused(proposal: Any, code: str, detail: str) -> Receipt:
    fields = proposal if isinstance(proposal, dict) else {}
    name, handle = fields.get("op"), fields.get("handle")
    return Receipt(
        operation=_NAMES.get(name, "noop") if isinstance(name, str) else "noop",
        status="rejected",
        key=handle[:40] if isinstance(handle, str) else None,
        code=code,
        reason=f"{REJECTIONS[code]}: {detail}",
    )


def _parse(proposal: Any, handles: Handles) -> Operation:
    if not isinstance(proposal, dict):
        raise OperationRejected("schema", "an operation is an object")
    fields = {name: said for name, said in proposal.items() if said is not None and said != ""}
    if isinstance(fields.get("value"), int | float):
        fields["value"] = str(fields["value"])
    wrong = [name for name in _STRINGS if not isinstance(fields.get(name, ""), str)]
    if wrong:
        raise OperationRejected("schema", f"{', '.join(wrong)} must be a string")
    op = fields.get("op")
    evidence = _evidence(fields.get("evidence", []), handles)
    reason = fields.get("reason", "")[:200]
    if op == "noop":
        return NoOp(reason=reason or "nothing_new", evidence=evidence)
    if op == "insert":
        kind = _choice(fields, "kind", _KINDS, "semantic")
        return Insert(
            text=_text(fields),
            kind=kind,
            value=_block(fields, handles) if kind == "core" else _value(fields),
            importance=_importance(fields) if "importance" in fields else 0.5,
            valid_from=_when(fields, handles),
            evidence=evidence,
            reason=reason,
        )
    if op not in ("update", "delete"):
        raise OperationRejected("schema", f"op must be one of {', '.join(_NAMES)}")
    target = handles.memories.get(fields.get("handle", "").strip())
    if target is None:
        raise OperationRejected("unknown_handle", fields.get("handle", "none given")[:40])
    if op == "delete":
        return Delete(key=target.key, version=target.version, evidence=evidence, reason=reason)
    return Update(
        key=target.key,
        version=target.version,
        text=_text(fields),
        mode=_choice(fields, "mode", _MODES, None),
        value=_value(fields) or None,
        importance=_importance(fields) if "importance" in fields else None,
        valid_from=_when(fields, handles),
        evidence=evidence,
        reason=reason,
    )


def _text(fields: Mapping[str, Any]) -> str:
    text = " ".join(str(fields.get("text", "")).split())
    if not text:
        raise OperationRejected("schema", "text is missing")
    return text


def _block(fields: Mapping[str, Any], handles: Handles) -> dict[str, str]:
    """The label of the block that a core insert names by its handle; without one, it means the profile."""
    if "handle" not in fields:
        return {}
    target = handles.memories.get(fields["handle"].strip())
    block = block_of(target) if target else None
    if block is None:
        raise OperationRejected("unknown_block", fields["handle"][:40])
    return {"label": block.label}


def _choice(fields: Mapping[str, Any], name: str, allowed: Mapping[str, T], default: str | None) -> T:
    said = fields.get(name, default)
    if not isinstance(said, str) or said not in allowed:
        raise OperationRejected("schema", f"{name} must be one of {', '.join(allowed)}")
    return allowed[said]


def _evidence(said: Any, handles: Handles) -> tuple[str, ...]:
    named = [said] if isinstance(said, str) else said
    if not isinstance(named, list) or not all(isinstance(handle, str) for handle in named):
        raise OperationRejected("schema", "evidence must be a list of handles")
    unknown = [handle for handle in named if handle.strip().lower() not in handles.turns]
    if unknown:
        raise OperationRejected("unknown_evidence", ", ".join(unknown)[:80])
    return tuple(dict.fromkeys(handles.turns[handle.strip().lower()].key for handle in named))


def _value(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: fields[name][:300] for name in ("subject", "attribute", "value") if fields.get(name)}


def _importance(fields: Mapping[str, Any]) -> float:
    said = fields["importance"]
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= 1:
        raise OperationRejected("schema", "importance must be a number from 0 to 1")
    return float(said)


def _when(fields: Mapping[str, Any], handles: Handles) -> datetime | None:
    if "when" not in fields:
        return None
    try:
        when = datetime.fromisoformat(fields["when"])
    except ValueError:
        raise OperationRejected("schema", "when must be YYYY-MM-DD") from None
    zone = next((turn.at.tzinfo for turn in handles.turns.values()), UTC)
    return when if when.tzinfo else when.replace(tzinfo=zone)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
