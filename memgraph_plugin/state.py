"""What a turn carries through the graph (`MemoryState`), and whose turn it is (`MemoryContext`).

Memories, operations and receipts travel as plain JSON: checkpointers rebuild foreign classes with a warning,
and tuples as lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, NotRequired, TypeAlias, TypeVar

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from pydantic import TypeAdapter
from typing_extensions import TypedDict  # typing's has no JSON schema on Python 3.11: no Studio

from memgraph_plugin.operation_json import operation_from, plain_operation, write_from
from memgraph_plugin.selfmem.loop import Round
from memgraph_plugin.types import Clue, Held, Hit, Operation, Receipt, Request

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
    held: NotRequired[Annotated[list[Plain], _latest]]
    policy: NotRequired[Annotated[str, _latest]]
    pending: NotRequired[Annotated[list[Plain], _latest]]
    self_memory: NotRequired[Annotated[str, _latest]]


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


def _of_one_pool(old: list[Plain], new: list[Plain]) -> list[Plain]:
    """Candidates as parallel branches write them: those of the newest pool alone, in order; [] empties it."""
    if not new:
        return []
    pool = new[-1]["pool"]
    numbered = {each["number"]: each for each in [*old, *new] if each["pool"] == pool}
    return [numbered[number] for number in sorted(numbered)]


class SelfmemInput(TypedDict):
    """What a caller of Selfmem's graph passes: the source, and the name of the run, which seeds come from.

    Without a name, each run has one of its own.
    """

    source: Annotated[str, _latest]
    run: NotRequired[Annotated[str, _latest]]


class SelfmemOutput(TypedDict):
    """What Selfmem's graph gives back: the output, and why there was no further round (`loop.Stop`)."""

    hypothesis: NotRequired[Annotated[str, _latest]]
    stop: NotRequired[Annotated[str, _latest]]


class SelfmemState(SelfmemOutput):
    """Everything that a source carries through Selfmem's rounds; it has no place for a reference.

    `request` is a `Request`; `pool` the candidates of this round, each with the `pool` it is of, its `number`
    and the `seconds` it took; `trace` a line for each round (`selfmem.loop.Round`).
    """

    source: Annotated[str, _latest]
    run: NotRequired[Annotated[str, _latest]]
    seed: NotRequired[Annotated[str, _latest]]
    request: NotRequired[Annotated[Plain, _latest]]
    pool: NotRequired[Annotated[list[Plain], _of_one_pool]]
    trace: NotRequired[Annotated[list[Plain], _latest]]


class DraftInput(MemoryInput):
    """What the drafts of a reply are made from."""

    memories: NotRequired[Annotated[list[Plain], _latest]]


class DraftOutput(TypedDict):
    """The draft that the reply may lean on; "" where there is none."""

    self_memory: NotRequired[Annotated[str, _latest]]


class DraftState(SelfmemState, DraftInput, DraftOutput):
    """Everything that the drafts of a reply carry through their rounds."""


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
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
_TRACE: TypeAdapter[list[Round]] = TypeAdapter(list[Round])
_RECEIPTS: TypeAdapter[list[Receipt]] = TypeAdapter(list[Receipt])


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
    return [plain_operation(operation) for operation in operations]


def operations_from(plain: Iterable[Plain]) -> list[Operation]:
    """The operations that `plain_operations` wrote down."""
    return [operation_from(each) for each in plain]


def plain_held(held: Iterable[Held]) -> list[Plain]:
    """What is to be held, as the state keeps it."""
    return [
        asdict(each)
        | {
            "operation": plain_operation(each.operation),
            "recorded_at": each.recorded_at and each.recorded_at.isoformat(),
        }
        for each in held
    ]


def held_from(plain: Iterable[Plain]) -> list[Held]:
    """What is to be held, of what `plain_held` wrote down; the rest is the store's to add."""
    return [
        Held(operation=write_from(each["operation"]), code=each["code"], reason=each["reason"])
        for each in plain
    ]


@dataclass(frozen=True, slots=True)
class Pending:
    """An operation that waits for a human's approval, and the text that it would change; "" for none."""

    operation: Operation
    before: str = ""


def plain_pending(pending: Iterable[Pending]) -> list[Plain]:
    """What waits for approval as the state keeps it."""
    return [{"operation": plain_operations([each.operation])[0], "before": each.before} for each in pending]


def pending_from(plain: Iterable[Plain]) -> list[Pending]:
    """What `plain_pending` wrote down."""
    return [Pending(operations_from([each["operation"]])[0], each["before"]) for each in plain]


def plain_receipts(receipts: Sequence[Receipt]) -> list[Plain]:
    """Receipts as the state keeps them."""
    plain: list[Plain] = _RECEIPTS.dump_python(list(receipts), mode="json")
    return plain


def receipts_from(plain: Iterable[Plain]) -> list[Receipt]:
    """The receipts that `plain_receipts` wrote down."""
    return _RECEIPTS.validate_python(list(plain))


def plain_request(request: Request) -> Plain:
    """A request as the state keeps it."""
    plain: Plain = _REQUEST.dump_python(request, mode="json")
    return plain


def request_from(plain: Plain) -> Request:
    """The request that `plain_request` wrote down."""
    return _REQUEST.validate_python(plain)


def plain_trace(trace: Iterable[Round]) -> list[Plain]:
    """Rounds as the state keeps them."""
    plain: list[Plain] = _TRACE.dump_python(list(trace), mode="json")
    return plain


def trace_from(plain: Iterable[Plain]) -> list[Round]:
    """The rounds that `plain_trace` wrote down."""
    return _TRACE.validate_python(list(plain))


def read_field(context: object, name: str) -> Any:
    """A field of a run's context, whichever shape the host gives it: a dataclass, a model or a mapping."""
    return context.get(name) if isinstance(context, Mapping) else getattr(context, name, None)
