"""Filters over a memory's value: read into a tree, then asked in Python or written as SQL/JSON path.

Both have one meaning. Numbers compare as numbers, text by codepoint, and never one with the other; a missing
field is null; dicts and lists are equal when everything in them is. A field is a key of the value; where the
value has no such key, its dots lead down: "home.city" is the key "city" of the dict under "home".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
OPERATORS = ("$eq", "$ne", *COMPARISONS, "$in", "$nin", "$exists", "$contains")
CONNECTIVES = ("$and", "$or", "$not")
MAX_DEPTH = 32
"""Levels of nesting in a filter, and in a value it compares with, at most."""


@dataclass(frozen=True, slots=True)
class _Test:
    field: str
    operator: str
    operand: Any


@dataclass(frozen=True, slots=True)
class _Node:
    connective: Literal["and", "or", "not"]
    parts: tuple[_Tree, ...]


_Tree: TypeAlias = _Test | _Node


def matches(filter: Mapping[str, Any], value: Mapping[str, Any]) -> bool:  # noqa: A002 - LangGraph's name
    """Whether `value` satisfies `filter`.

    A field is compared with a scalar, dict or list for equality, or by operators: `{"age": {"$gte": 18}}`.
    `$contains` asks for an element of a list, or a part of a text; `{"home.city": "Oslo"}` asks within.
    `$and` and `$or` take a list of filters, `$not` takes one.

    Raises:
        ValueError: the filter has an unknown operator, or an operand that its operator cannot take.
    """
    return _holds(_read(filter), value)


def to_jsonpath(filter: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:  # noqa: A002
    """The same filter for Postgres: `jsonb_path_exists(value, path::jsonpath, vars::jsonb)`.

    Raises:
        ValueError: as `matches` does.
    """
    variables = _Variables()
    return f"strict $ ? ({_path(_read(filter), variables)})", variables.values


def _read(filter: Any, depth: int = 0) -> _Tree:  # noqa: A002
    if not isinstance(filter, Mapping):
        raise ValueError(f"A filter is a dict of fields, not {type(filter).__name__}.")
    if depth > MAX_DEPTH:
        raise ValueError(f"A filter nests at most {MAX_DEPTH} levels.")
    parts: list[_Tree] = []
    for name, condition in filter.items():
        _check(name, is_key=True)
        if name in ("$and", "$or"):
            if not isinstance(condition, list | tuple):
                raise ValueError(f"{name} takes a list of filters.")
            inner = tuple(_read(part, depth + 1) for part in condition)
            parts.append(_Node("and" if name == "$and" else "or", inner))
        elif name == "$not":
            parts.append(_Node("not", (_read(condition, depth + 1),)))
        elif name.startswith("$"):
            raise ValueError(
                f"Unknown operator {name!r}; between filters there are {', '.join(CONNECTIVES)}."
            )
        else:
            parts += _read_field(name, condition)
    return _Node("and", tuple(parts))


def _read_field(field: str, condition: Any) -> list[_Tree]:
    if field.count(".") > MAX_DEPTH:
        raise ValueError(f"A field leads down at most {MAX_DEPTH} levels.")
    operators = isinstance(condition, Mapping) and any(str(name).startswith("$") for name in condition)
    tests = condition if operators else {"$eq": condition}
    for operator, operand in tests.items():
        if operator not in OPERATORS:
            raise ValueError(f"Unknown operator {operator!r}; for a field there are {', '.join(OPERATORS)}.")
        _check(operand)
        if operator in COMPARISONS and (
            isinstance(operand, bool) or not isinstance(operand, int | float | str)
        ):
            raise ValueError(f"{operator} compares with a number or a text.")
        if operator in ("$in", "$nin") and not isinstance(operand, list | tuple):
            raise ValueError(f"{operator} takes a list.")
        if operator == "$exists" and not isinstance(operand, bool):
            raise ValueError("$exists takes true or false.")
    return [_Test(field, operator, operand) for operator, operand in tests.items()]


def _check(operand: Any, *, is_key: bool = False, depth: int = 0) -> None:
    """Refuse what JSON in Postgres cannot hold."""
    if depth > MAX_DEPTH:
        raise ValueError(f"A filter nests at most {MAX_DEPTH} levels.")
    if isinstance(operand, str):
        if "\0" in operand or any("\ud800" <= character <= "\udfff" for character in operand):
            raise ValueError("A filter cannot hold NUL characters or lone surrogates.")
    elif is_key:
        raise ValueError(f"A filter's keys are texts, not {type(operand).__name__}.")
    elif isinstance(operand, Mapping):
        for key, item in operand.items():
            _check(key, is_key=True)
            _check(item, depth=depth + 1)
    elif isinstance(operand, list | tuple):
        for item in operand:
            _check(item, depth=depth + 1)
    elif (
        operand is not None
        and not isinstance(operand, int)
        and not (isinstance(operand, float) and math.isfinite(operand))
    ):
        raise ValueError(f"A filter compares with JSON values, not {operand!r:.40}.")


# In Python


def _holds(tree: _Tree, value: Mapping[str, Any]) -> bool:
    if isinstance(tree, _Node):
        if tree.connective == "not":
            return not _holds(tree.parts[0], value)
        return (all if tree.connective == "and" else any)(_holds(part, value) for part in tree.parts)
    present, found = _field(value, tree.field)
    operand = tree.operand
    match tree.operator:
        case "$eq":
            return _equal(found, operand)
        case "$ne":
            return not _equal(found, operand)
        case "$in":
            return any(_equal(found, item) for item in operand)
        case "$nin":
            return not any(_equal(found, item) for item in operand)
        case "$exists":
            return present is operand
        case "$contains":
            if isinstance(found, str) and isinstance(operand, str):
                return operand in found
            return isinstance(found, list | tuple) and any(_equal(item, operand) for item in found)
    return _compares(_plain(found), tree.operator, _plain(operand))


def _field(value: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Whether there is such a field, and what it holds."""
    if name in value or "." not in name:
        return name in value, value.get(name)
    found: Any = value
    for key in name.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return False, None
        found = found[key]
    return True, found


def _equal(left: Any, right: Any) -> bool:
    left, right = _plain(left), _plain(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(item, right[key]) for key, item in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _compares(left: Any, operator: str, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    match operator:
        case "$gt":
            return bool(left > right)
        case "$gte":
            return bool(left >= right)
        case "$lt":
            return bool(left < right)
    return bool(left <= right)


def _plain(value: Any) -> Any:
    """One Python type for each JSON type; numbers as the decimals that their JSON text says."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


# In SQL/JSON path. A comparison across types is "unknown" there, and unknown survives a negation; inside
# `exists(... ? (...))` it is false. So every test that can be unknown stands in one.


class _Variables:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, value: Any) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"${name}"


def _path(tree: _Tree, variables: _Variables) -> str:
    if isinstance(tree, _Test):
        return _path_of_test(tree, variables)
    parts = [_path(part, variables) for part in tree.parts]
    if tree.connective == "not":
        return f"!({parts[0]})"
    return _all(parts) if tree.connective == "and" else _any(parts)


def _path_of_test(test: _Test, variables: _Variables) -> str:
    whole = f"@.{_quote(test.field)}"
    if "." not in test.field:
        return _path_of_field(whole, test, variables)
    there = _known(f"exists({whole})")
    below = "@" + "".join(f".{_quote(key)}" for key in test.field.split("."))
    return _any(
        [
            _all([there, _path_of_field(whole, test, variables)]),
            _all([f"!({there})", _path_of_field(below, test, variables)]),
        ]
    )


def _path_of_field(field: str, test: _Test, variables: _Variables) -> str:
    operand = test.operand
    match test.operator:
        case "$eq":
            return _path_of_equal(field, operand, variables)
        case "$ne":
            return f"!({_path_of_equal(field, operand, variables)})"
        case "$in" | "$nin":
            found = _path_of_in(field, operand, variables)
            return found if test.operator == "$in" else f"!({found})"
        case "$exists":
            return _known(f"exists({field})") if operand else f"!({_known(f'exists({field})')})"
        case "$contains":
            found = _known(f"exists({field}[*] ? ({_same('@', operand, variables)}))")
            if isinstance(operand, str):
                found = _any([found, _known(f'{field} like_regex {_quote(operand)} flag "q"')])
            return found
    return _known(f"{field} {COMPARISONS[test.operator]} {variables.add(operand)}")


def _path_of_equal(field: str, operand: Any, variables: _Variables) -> str:
    same = _known(_same(field, operand, variables))
    return same if operand is not None else _any([same, f"!({_known(f'exists({field})')})"])


def _path_of_in(field: str, operands: Iterable[Any], variables: _Variables) -> str:
    scalars = [item for item in operands if isinstance(item, str | int | float)]
    others = [item for item in operands if not isinstance(item, str | int | float)]
    parts = [_path_of_equal(field, item, variables) for item in others]
    if scalars:
        parts.append(f"exists({variables.add(scalars)}[*] ? (@ == {field.replace('@', '$', 1)}))")
    return _any(parts)


def _same(path: str, operand: Any, variables: _Variables) -> str:
    """True where the item at `path` equals `operand`; else false or unknown."""
    if operand is None:
        return f"{path} == null"
    if isinstance(operand, Mapping):
        keys = variables.add(list(operand))
        no_other = f"!exists({path}.keyvalue() ? (!(@.key == {keys}[*])))"
        return _all([no_other, *(_same(f"{path}.{_quote(key)}", operand[key], variables) for key in operand)])
    if isinstance(operand, list | tuple):
        items = (_same(f"{path}[{i}]", item, variables) for i, item in enumerate(operand))
        return _all([f"{path}.size() == {len(operand)}", *items])
    return f"{path} == {variables.add(operand)}"


def _known(predicate: str) -> str:
    return f"exists($ ? ({predicate}))"


def _all(parts: Iterable[str]) -> str:
    return " && ".join(f"({part})" for part in parts) or "1 == 1"


def _any(parts: Iterable[str]) -> str:
    return " || ".join(f"({part})" for part in parts) or "1 == 0"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
