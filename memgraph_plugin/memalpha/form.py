"""The form of an operation: what no store could hold is refused before anything else is asked. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import MAXYEAR, datetime

from memgraph_plugin.errors import OperationRejected
from memgraph_plugin.memalpha.words import normalise
from memgraph_plugin.types import Delete, Insert, MemoryKind, NoOp, Operation, Update

WRITABLE: tuple[MemoryKind, ...] = ("core", "semantic", "episodic")
"""Kinds of memory that a policy sees and may change."""

FOUND: tuple[MemoryKind, ...] = ("semantic", "episodic")
"""Kinds of memory that a policy is shown where they are similar or new; core blocks it sees always."""

_SEALED = "$sealed"
"""What a store marks sealed reasons with (`store.storable.SEALED`), and takes from nobody."""

_FIRST_PERSON = re.compile(
    r"""\W*(?:i['’](?:m|ve|ll|d)|my|we|
    i\ (?:am|was|have|had|will|do|live|work|play|like|love|hate|want|need|prefer|moved|went))\b""",
    re.I | re.X,
)


def check_form(operation: Operation) -> None:
    """Refuse what is no operation, or what no store would take; whatever a policy hands over comes here.

    Raises:
        OperationRejected: `schema`, or `read_only` for a kind of memory that a policy does not write.
    """
    if not isinstance(operation, Insert | Update | Delete | NoOp):
        raise OperationRejected("schema", f"a {type(operation).__name__} is no operation")
    cited: object = operation.evidence
    if not isinstance(cited, tuple | list) or not all(isinstance(key, str) for key in cited):
        raise OperationRejected("schema", "evidence must be keys of turns")
    _storable([operation.reason, list(operation.evidence), getattr(operation, "key", None)])
    if not isinstance(operation.reason, str):
        raise OperationRejected("schema", "reason must be a string")
    if operation.reason.startswith(_SEALED):
        raise OperationRejected("schema", f"reason begins with {_SEALED!r}")
    if isinstance(operation, NoOp):
        return
    if operation.key is not None and not isinstance(operation.key, str):
        raise OperationRejected("schema", "key must be a string")
    if isinstance(operation, Delete):
        return
    if not isinstance(operation.text, str) or not normalise(operation.text):
        raise OperationRejected("schema", "text is empty")
    if operation.value is not None and not isinstance(operation.value, Mapping):
        raise OperationRejected("schema", "value must be an object")
    _storable([operation.text, operation.value and dict(operation.value)])
    if _FIRST_PERSON.match(operation.text):
        raise OperationRejected("schema", "text must be in the third person")
    importance = operation.importance
    if importance is not None and not (isinstance(importance, int | float) and 0 <= importance <= 1):
        raise OperationRejected("schema", "importance must be between 0 and 1")
    _moment(operation.valid_from)
    _moment(operation.valid_to)
    if isinstance(operation, Insert) and operation.kind not in WRITABLE:
        raise OperationRejected("read_only", str(operation.kind))
    if isinstance(operation, Update) and operation.mode not in ("correct", "refine", "supersede"):
        raise OperationRejected("schema", f"mode is {operation.mode!r}")


def _storable(value: object) -> None:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # what is no JSON, and half of a surrogate pair
        raise OperationRejected("schema", "it cannot be stored as JSON text") from None
    if b"\\u0000" in written:
        raise OperationRejected("schema", "it has NUL characters")


def _moment(moment: object) -> None:
    """A day at the edge of the calendar ("9999-12-31") would lead out of it in another time zone."""
    if moment is None:
        return
    if not isinstance(moment, datetime):
        raise OperationRejected("schema", "when must be a date")
    if not 1 < moment.year < MAXYEAR:
        raise OperationRejected("schema", f"there is no memory of the year {moment.year}")
