"""What may be stored: operations, checked before anything is embedded or written. Pure, for every store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import MAXYEAR, datetime
from typing import Any

from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    Op,
    PutOp,
    SearchOp,
    get_text_at_path,
    validate_op_namespace,
)

from memgraph_plugin.errors import InvalidValue
from memgraph_plugin.store.base import MAX_OPERATIONS, MAX_RESULTS
from memgraph_plugin.types import Delete, Insert, Namespace, NoOp, Operation, Receipt, Update

SEALED = "$sealed"
"""The one key of a sealed memory's value, and what a sealed reason begins with: nobody else's may."""

MAX_DEPTH = 100
"""Levels of nesting in a value, at most."""

MAX_DIGITS = 4_000
"""Digits of a whole number, at most."""

MAX_NAME = 1_024
"""Bytes of a key, of an idempotency key, and of a namespace's labels together, at most: they are indexed."""

MAX_POSITION = 1_000_000_000
MAX_IMPORTANCE = 1e30
MAX_TTL = 1e9
"""Minutes that a memory may be given to live: some 1,900 years."""


def storable_operations(namespace: Namespace, operations: Sequence[Operation]) -> list[Operation]:
    """The operations with values of plain JSON, copied; for `apply`.

    Raises:
        InvalidNamespaceError, InvalidValue: as `MemoryStore.apply` says; the message names the place.
    """
    check_namespace(namespace)
    if len(operations) > MAX_OPERATIONS:
        raise InvalidValue(f"A batch has at most {MAX_OPERATIONS:,} operations, not {len(operations):,}.")
    return [storable_operation(operation, f"operations[{i}]") for i, operation in enumerate(operations)]


def storable_operation(operation: Operation, place: str) -> Operation:
    """The operation with a value of plain JSON, copied; `place` is what a message calls it.

    Raises:
        InvalidValue: naming the place of what cannot be stored.
    """
    if not isinstance(operation, Insert | Update | Delete | NoOp):
        raise InvalidValue(f"{place} is a {type(operation).__name__}, which is no operation.")
    if isinstance(operation, Insert | Update):
        check_text(operation.text, f"{place}.text")
    for name in ("kind", "session", "source", "language"):
        if (text := getattr(operation, name, None)) is not None:
            check_text(text, f"{place}.{name}")
    check_reason(operation.reason, f"{place}.reason")
    if (key := getattr(operation, "key", None)) is not None:
        check_key(key, f"{place}.key")
    if isinstance(operation.evidence, str):
        raise InvalidValue(f"{place}.evidence is a text; it must be a tuple of texts.")
    for i, turn in enumerate(operation.evidence):
        check_text(turn, f"{place}.evidence[{i}]")
    # Written so that NaN is refused, too.
    if not abs(getattr(operation, "importance", None) or 0.0) <= MAX_IMPORTANCE:
        raise InvalidValue(f"{place}.importance is not a finite number, or out of range.")
    if not abs(getattr(operation, "position", None) or 0) <= MAX_POSITION:
        raise InvalidValue(f"{place}.position is out of range: at most {MAX_POSITION:,}.")
    for name in ("valid_from", "valid_to", "expires_at"):
        check_moments(**{f"{place}.{name}": getattr(operation, name, None)})
    embedding = getattr(operation, "embedding", None)
    if embedding is not None and not all(map(math.isfinite, embedding)):
        raise InvalidValue(f"{place}.embedding has numbers that are not finite.")
    if isinstance(operation, Insert | Update) and operation.value is not None:
        return replace(operation, value=storable(operation.value, f"{place}.value"))
    return operation


def storable_ops(ops: Iterable[Op]) -> list[Op]:
    """LangGraph's operations, checked, with values of plain JSON, copied; for `batch`.

    Raises:
        InvalidNamespaceError, InvalidValue: nothing of the batch may be executed.
        ValueError: an operation of an unknown type, a negative limit or offset, or a `max_depth` below 1.
    """
    checked: list[Op] = []
    for i, op in enumerate(ops):
        if not isinstance(op, GetOp | PutOp | SearchOp | ListNamespacesOp):
            raise ValueError(f"Unknown operation: {type(op).__name__}")
        validate_op_namespace(op)
        for label in _labels(op):
            check_text(label, f"ops[{i}]: namespace")
        if isinstance(op, SearchOp | ListNamespacesOp) and min(op.limit, op.offset) < 0:
            raise ValueError("limit and offset cannot be negative.")
        if isinstance(op, ListNamespacesOp) and op.max_depth is not None and op.max_depth < 1:
            raise ValueError("max_depth is 1 at least.")
        if isinstance(op, SearchOp | ListNamespacesOp):
            op = op._replace(limit=min(op.limit, MAX_RESULTS), offset=min(op.offset, MAX_RESULTS))
        if isinstance(op, SearchOp) and op.query:
            check_text(op.query, f"ops[{i}].query")
        if isinstance(op, GetOp | PutOp):
            check_key(op.key, f"ops[{i}].key")
        if isinstance(op, PutOp):
            check_namespace(op.namespace)
            if op.ttl is not None and not (isinstance(op.ttl, int | float) and abs(op.ttl) <= MAX_TTL):
                raise InvalidValue(f"ops[{i}].ttl is no number of minutes, or more than {MAX_TTL:,.0f}.")
            if op.value is not None:
                op = op._replace(value=storable(op.value, f"ops[{i}].value"))
        checked.append(op)
    if len(checked) > MAX_OPERATIONS:
        raise InvalidValue(f"A batch has at most {MAX_OPERATIONS:,} operations, not {len(checked):,}.")
    return checked


def _labels(op: GetOp | PutOp | SearchOp | ListNamespacesOp) -> Iterable[str]:
    if isinstance(op, ListNamespacesOp):
        return (label for condition in op.match_conditions or () for label in condition.path)
    return op.namespace_prefix if isinstance(op, SearchOp) else op.namespace


def check_namespace(namespace: Namespace) -> None:
    """Refuse a namespace that names nobody: empty, or with a label that is empty, dotted or not storable."""
    if not isinstance(namespace, tuple) or not namespace:
        raise InvalidNamespaceError(f"A namespace is a tuple of one label or more, not {namespace!r:.80}.")
    validate_op_namespace(GetOp(namespace, ""))
    for label in namespace:
        check_text(label, "namespace")
    _check_size(".".join(namespace), "namespace")


def check_prefix(prefix: Namespace) -> None:
    """`check_namespace` where the empty tuple means everything."""
    if prefix != ():
        check_namespace(prefix)


def check_text(text: object, place: str) -> None:
    """Refuse what is no text, or text that Postgres cannot hold (NUL characters, lone surrogates)."""
    if not isinstance(text, str):
        raise InvalidValue(f"{place} is a {type(text).__name__}; it must be a text.")
    if "\0" in text:
        raise InvalidValue(f"{place} has a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"{place} has a lone surrogate, which is no character.") from None


def check_reason(reason: object, place: str) -> None:
    """`check_text` for a reason, which a sealed store marks where it is sealed."""
    check_text(reason, place)
    if str(reason).startswith(SEALED):
        raise InvalidValue(f"{place} begins with {SEALED!r}, which marks sealed reasons.")


def check_key(key: object, place: str) -> None:
    """`check_text` for what is indexed: it has a size that an index can hold."""
    check_text(key, place)
    _check_size(str(key), place)


def _check_size(text: str, place: str) -> None:
    if len(text.encode()) > MAX_NAME:
        raise InvalidValue(f"{place} has more than {MAX_NAME:,} bytes.")


def check_batch(
    idempotency_key: str | None,
    actor: str,
    policy: str,
    rejected: Iterable[Receipt] = (),
    requires: Iterable[str] = (),
) -> None:
    """The arguments that `apply` takes beside its operations."""
    if idempotency_key is not None:
        check_key(idempotency_key, "idempotency_key")
    check_text(actor, "actor")
    check_text(policy, "policy")
    for i, receipt in enumerate(rejected):
        for name in ("operation", "key", "code"):
            if (text := getattr(receipt, name, "")) is not None:
                check_text(text, f"rejected[{i}].{name}")
        check_reason(receipt.reason, f"rejected[{i}].reason")
        if receipt.status != "rejected":
            raise InvalidValue(f"rejected[{i}] is {receipt.status}.")
    for key in requires:
        check_key(key, "requires")


def check_forget(namespace: Namespace, actor: str) -> None:
    """The arguments of `forget`. Its receipt keeps the actor, and must not say so whose memory was erased."""
    check_namespace(namespace)
    check_text(actor, "actor")
    if actor in (*namespace, ".".join(namespace)):
        raise InvalidValue("actor is kept with the receipt: it cannot be the name of what is erased.")


def check_moments(**moments: datetime | None) -> None:
    """Refuse times, given by their names, that have no zone, or that a database could not give back."""
    for place, moment in moments.items():
        if moment is None:
            continue
        if not isinstance(moment, datetime):
            raise InvalidValue(f"{place} is a {type(moment).__name__}; it must be a datetime.")
        if moment.utcoffset() is None:
            raise InvalidValue(f"{place} has no time zone.")
        # A database answers in its own zone, which must not lead out of the calendar.
        if not 1 < moment.year < MAXYEAR:
            raise InvalidValue(f"{place} is in the year {moment.year}; leave it out where there is no bound.")


def check_kinds(kinds: Iterable[str] | None) -> None:
    if isinstance(kinds, str):
        raise InvalidValue("kinds is a text; it must be a sequence of texts.")
    for kind in kinds or ():
        check_text(kind, "kinds")


def check_recall(namespace: Namespace, query: str, kinds: Iterable[str] | None) -> None:
    """The arguments of `recall`."""
    check_namespace(namespace)
    check_text(query, "query")
    check_kinds(kinds)


def storable(value: Any, place: str = "value") -> dict[str, Any]:
    """A copy of `value` in plain JSON types; tuples become lists.

    Raises:
        InvalidValue: naming the place of what is not JSON: NaN, infinity, NUL, another type, or a circle.
    """
    if not isinstance(value, Mapping):
        raise InvalidValue(f"{place} is a {type(value).__name__}; it must be a dict.")
    if SEALED in value:
        raise InvalidValue(f"{place} has the key {SEALED!r}, which marks sealed memories.")
    copied: dict[str, Any] = _storable(value, place, 0)
    return copied


def _storable(value: Any, place: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidValue(f"{place[:80]}... is nested more than {MAX_DEPTH} levels deep, or holds itself.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(value, place)
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_DIGITS * 3:
            raise InvalidValue(f"{place} has more than {MAX_DIGITS:,} digits.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidValue(f"{place} is {value}, which is not JSON.")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            check_text(key, f"{place}: key {key!r:.80}")
        return {key: _storable(item, f"{place}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise InvalidValue(f"{place} is a {type(value).__name__}, which is not JSON.")


def text_of_put(op: PutOp, fields: Sequence[str] | None) -> str:
    """What search reads of a put: its `index` paths, else the store's `fields`, else "text", else all."""
    if op.value is None or op.index is False:
        return ""
    paths = op.index or fields
    if paths:
        return "\n".join(text for path in paths for text in get_text_at_path(op.value, path))
    if isinstance(text := op.value.get("text"), str):
        return text
    return "\n".join(get_text_at_path(op.value, "$"))
