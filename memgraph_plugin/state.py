"""What a turn carries through the graph (`MemoryState`), and whose turn it is (`MemoryContext`).

Memories, operations and receipts travel as plain JSON: checkpointers rebuild foreign classes with a warning,
and tuples as lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NotRequired, TypeAlias, TypeVar

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # typing's has no JSON schema on Python 3.11: no Studio

from memgraph_plugin.memalpha.validation import NAMES, name_of
from memgraph_plugin.types import Clue, Hit, Operation, Receipt

Plain: TypeAlias = dict[str, Any]
"""A value of `memgraph_plugin.types` as JSON: what a checkpoint can keep."""

T = TypeVar("T")


def _latest(_: T, new: T) -> T:
    """Let parallel branches (`Send`) write the same key; the last one stands."""
    return new


class MemoryInput(TypedDict):
    """What a caller of the graph passes."""

    messages: Annotated[list[AnyMessage], add_messages]


class MemoryOutput(TypedDict):
    """What the graph gives back, to a caller or as a node of another graph."""

    messages: Annotated[list[AnyMessage], add_messages]
    receipts: NotRequired[Annotated[list[Plain], _latest]]


class MemoryState(MemoryOutput):
    """Everything that a turn carries; each key is written by one node and stands until the next turn."""

    memories: NotRequired[Annotated[list[Plain], _latest]]
    clues: NotRequired[Annotated[list[Plain], _latest]]
    route: NotRequired[Annotated[str, _latest]]
    operations: NotRequired[Annotated[list[Plain], _latest]]
    rejected: NotRequired[Annotated[list[Plain], _latest]]
    policy: NotRequired[Annotated[str, _latest]]


class AskInput(MemoryInput):
    """What a caller of the graph of documents passes: a question, documents to take in before, or both."""

    documents: NotRequired[Annotated[list[Plain], _latest]]


class AskOutput(TypedDict):
    """What the graph of documents gives back: the answer, what it cites, and what was taken in."""

    messages: Annotated[list[AnyMessage], add_messages]
    citations: NotRequired[Annotated[list[Plain], _latest]]
    memorized: NotRequired[Annotated[list[Plain], _latest]]


class AskState(AskOutput):
    """Everything that a question about documents carries."""

    documents: NotRequired[Annotated[list[Plain], _latest]]
    clues: NotRequired[Annotated[list[Plain], _latest]]
    route: NotRequired[Annotated[str, _latest]]
    memories: NotRequired[Annotated[list[Plain], _latest]]


@dataclass(frozen=True)
class MemoryContext:
    """Whose memory a run works on, and when it takes place: the `context=` of a run.

    `namespace` defaults to `user_namespace(user_id)`, `session_id` to the thread's id, `now` to the clock. A
    time without a zone is read as UTC. Where LangGraph's server authenticated a user, that user is meant: a
    request names the same, or nobody.
    """

    user_id: str | None = None
    session_id: str | None = None
    namespace: tuple[str, ...] | None = None
    now: datetime | None = None


_HITS: TypeAdapter[list[Hit]] = TypeAdapter(list[Hit])
_CLUES: TypeAdapter[list[Clue]] = TypeAdapter(list[Clue])
_RECEIPTS: TypeAdapter[list[Receipt]] = TypeAdapter(list[Receipt])
_OPERATIONS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(cls) for cls, name in NAMES.items()}


def plain_hits(hits: Iterable[Hit]) -> list[Plain]:
    """Hits as the state keeps them."""
    plain: list[Plain] = _HITS.dump_python(list(hits), mode="json", exclude_defaults=True)
    return plain


def hits_from(plain: Iterable[Plain]) -> list[Hit]:
    """The hits that `plain_hits` wrote down."""
    return _HITS.validate_python(list(plain))


def plain_clues(clues: Iterable[Clue]) -> list[Plain]:
    """Clues as the state keeps them."""
    plain: list[Plain] = _CLUES.dump_python(list(clues), mode="json")
    return plain


def clues_from(plain: Iterable[Plain]) -> list[Clue]:
    """The clues that `plain_clues` wrote down."""
    return _CLUES.validate_python(list(plain))


def plain_operations(operations: Iterable[Operation]) -> list[Plain]:
    """Operations as the state keeps them: their fields, and their name under "operation"."""
    return [
        {"operation": (name := name_of(operation))}
        | _OPERATIONS[name].dump_python(operation, mode="json", exclude_defaults=True)
        for operation in operations
    ]


def operations_from(plain: Iterable[Plain]) -> list[Operation]:
    """The operations that `plain_operations` wrote down."""
    return [
        _OPERATIONS[each["operation"]].validate_python({k: v for k, v in each.items() if k != "operation"})
        for each in plain
    ]


def plain_receipts(receipts: Sequence[Receipt]) -> list[Plain]:
    """Receipts as the state keeps them."""
    plain: list[Plain] = _RECEIPTS.dump_python(list(receipts), mode="json")
    return plain


def receipts_from(plain: Iterable[Plain]) -> list[Receipt]:
    """The receipts that `plain_receipts` wrote down."""
    return _RECEIPTS.validate_python(list(plain))


def read_field(context: object, name: str) -> Any:
    """A field of a run's context, whichever shape the host gives it: a dataclass, a model or a mapping."""
    return context.get(name) if isinstance(context, Mapping) else getattr(context, name, None)
