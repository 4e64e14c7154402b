"""Operations as JSON, as the graph's state, the quarantine and training data keep them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from memgraph_plugin.types import OPERATION_NAMES, Delete, Insert, NoOp, Operation, Update

_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    "insert": TypeAdapter(Insert),
    "update": TypeAdapter(Update),
    "delete": TypeAdapter(Delete),
    "noop": TypeAdapter(NoOp),
}


def plain_operation(operation: Operation) -> dict[str, Any]:
    """An operation as JSON: its fields, less those that are as by default, and its name under "operation"."""
    name = OPERATION_NAMES[type(operation)]
    plain: dict[str, Any] = _ADAPTERS[name].dump_python(operation, mode="json", exclude_defaults=True)
    return {"operation": name} | plain


def operation_from(plain: Mapping[str, Any]) -> Operation:
    """The operation that `plain_operation` wrote down.

    Raises:
        KeyError, ValueError: it is none.
    """
    fields = {name: field for name, field in plain.items() if name != "operation"}
    operation: Operation = _ADAPTERS[plain["operation"]].validate_python(fields)
    return operation


def write_from(plain: Mapping[str, Any]) -> Insert | Update | Delete:
    """`operation_from` of what is held.

    Raises:
        KeyError, ValueError: it is none, or one that does nothing.
    """
    operation = operation_from(plain)
    if isinstance(operation, NoOp):
        raise ValueError("holds an operation that does nothing")
    return operation
