"""Between rows of the database and values: pure, for both colours of the Postgres store."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from langgraph.store.base import Item, ListNamespacesOp, SearchItem
from psycopg.types.json import Jsonb

from memgraph_plugin.operation_json import plain_operation, write_from
from memgraph_plugin.store.exported import Logged, Versioned, half_vector
from memgraph_plugin.store.filters import to_jsonpath
from memgraph_plugin.store.held import Quarantined
from memgraph_plugin.store.journal import Batch, Change, Line, Plan, Row
from memgraph_plugin.store.layout import Layout
from memgraph_plugin.store.ranking import unit
from memgraph_plugin.store.sealing import Sealer, sealed, sealed_held
from memgraph_plugin.store.visibility import EVERYTHING
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import (
    Erasure,
    Held,
    Hit,
    LoggedBatch,
    Memory,
    MemoryVersion,
    Namespace,
    Receipt,
    Receipts,
)

Record = Mapping[str, Any]

SLOTS = 1_024

VERSION_TYPES = (
    "text", "text", "int4", "uuid", "text", "text", "text", "text[]", "text", "jsonb", "text", "text", "int4",
    "float4", "text", "timestamptz", "timestamptz", "timestamptz", "timestamptz", "text", "float8", "int4",
)  # fmt: skip
"""Column types of `copy_version`; a binary copy must be told."""

BATCH_TYPES = ("text", "uuid", "text", "text", "text", "jsonb", "timestamptz")
"""Column types of `copy_batch`."""


def encode(namespace: Namespace) -> str:
    """Labels, none of which has a dot, joined by dots."""
    return ".".join(namespace)


def slot_of(namespace: Namespace) -> int:
    """Which of the writers' locks a namespace has. There are few, since a database holds only so many."""
    return zlib.crc32(encode(namespace).encode()) % SLOTS


def decode(namespace: str) -> Namespace:
    return tuple(namespace.split("."))


def scope_of(prefix: Namespace) -> str:
    """The condition of `queries.sql` that means this prefix."""
    return "prefix" if prefix else "everywhere"


def memory_of(record: Record) -> Memory:
    return Memory(
        namespace=decode(record["namespace"]),
        key=record["key"],
        text=record["text"],
        kind=record["kind"],
        value=record["value"],
        version=record["version"],
        session=record["session"],
        position=record["position"],
        importance=round(record["importance"], 6),
        tokens=record["tokens"],
        source=record["source"],
        valid_from=_utc(record["valid_from"]),
        valid_to=_utc(record["valid_to"]),
        created_at=_utc(record["created_at"]),
        updated_at=_utc(record["updated_at"]),
        expires_at=_utc(record["expires_at"]),
    )


def row_of(record: Record) -> Row:
    return Row(memory_of(record), record["language"], record["ttl"])


def hit_of(record: Record) -> Hit:
    return Hit(memory_of(record), record["score"], record["cosine"], record["bm25"])


def recent_hit_of(record: Record) -> Hit:
    return Hit(memory_of(record), 0.0)


def item_of(record: Record) -> Item:
    return Item(**_item(record))


def search_item_of(record: Record) -> SearchItem:
    return SearchItem(**_item(record), score=record.get("score"))


def _item(record: Record) -> dict[str, Any]:
    return {
        "namespace": decode(record["namespace"]),
        "key": record["key"],
        "value": record["value"],
        "created_at": _utc(record["created_at"]),
        "updated_at": _utc(record["updated_at"]),
    }


def histories_of(found: Iterable[Record]) -> dict[str, list[Line]]:
    """Versions by their keys, in the order in which they come."""
    histories: dict[str, list[Line]] = {}
    for record in found:
        histories.setdefault(record["key"], []).append(_line_of(record))
    return histories


def _line_of(record: Record) -> Line:
    # Since when it is there, the timeline knows; mostly, this is its first version.
    then = {"created_at": record["recorded_at"], "updated_at": record["recorded_at"]}
    gone = record["operation"] == "delete"
    version = MemoryVersion(
        key=record["key"],
        version=record["version"],
        memory=None if gone else memory_of({**record, **then, "tokens": estimate_tokens(record["text"])}),
        operation=record["operation"],
        mode=record["mode"],
        reason=record["reason"],
        actor=record["actor"],
        policy=record["policy"],
        evidence=tuple(record["evidence"]),
        batch_id=str(record["batch_id"]),
        recorded_at=_utc(record["recorded_at"]),
        restores=record["restores"],
    )
    return Line(version, record["language"], record["ttl"])


def logged_of(record: Record) -> LoggedBatch:
    return LoggedBatch(
        batch_id=str(record["batch_id"]),
        receipts=receipts_of(record).receipts,
        recorded_at=record["recorded_at"].astimezone(UTC),
        actor=record["actor"],
        policy=record["policy"],
    )


def memory_types(layout: Layout) -> tuple[str, ...]:
    """Column types of `copy_memory`."""
    return (
        "text", "text", "text", "int4", "jsonb", "text", "text", layout.vector_type, "int4", "text", "int4",
        "float4", "text", "timestamptz", "timestamptz", "timestamptz", "timestamptz", "timestamptz", "float8",
    )  # fmt: skip


def memory_row(change: Change, layout: Layout) -> tuple[Any, ...]:
    """The parameters of `insert_memory`, in its order."""
    assert change.row is not None  # noqa: S101 - callers write only what is left
    m = change.row.memory
    vector = None if change.embedding is None else unit(change.embedding)
    embedding = None if vector is None else layout.vector(vector)
    return (
        encode(m.namespace), m.key, m.kind, m.version, Jsonb(m.value), m.text, change.row.language, embedding,
        m.tokens, m.session, m.position, m.importance, m.source, m.valid_from, m.valid_to, m.created_at,
        m.updated_at, m.expires_at, change.row.ttl,
    )  # fmt: skip


def version_row(namespace: Namespace, change: Change) -> tuple[Any, ...]:
    """The parameters of `insert_version`, in its order."""
    row = change.row
    return versioned_row(
        Versioned(namespace, change, row.language, row.ttl) if row else Versioned(namespace, change)
    )


def versioned_row(entry: Versioned) -> tuple[Any, ...]:
    """`version_row` of what has its language beside it."""
    v, m = entry.change.version, entry.change.version.memory
    head = (
        encode(entry.namespace), v.key, v.version, uuid.UUID(v.batch_id), v.operation, v.mode, v.reason,
        list(v.evidence),
    )  # fmt: skip
    if m is None:
        return (*head, *[None] * 8, entry.change.expires_at, v.recorded_at, None, None, None, None)
    return (
        *head, m.kind, Jsonb(m.value), m.text, m.session, m.position, m.importance, m.source, m.valid_from,
        m.expires_at, v.recorded_at, m.valid_to, entry.language, entry.ttl, v.restores,
    )  # fmt: skip


def batch_row(entry: Logged) -> tuple[Any, ...]:
    """The parameters of `copy_batch`, in its order."""
    b = entry.batch
    return (
        encode(entry.namespace), uuid.UUID(b.batch_id), entry.idempotency_key, b.actor, b.policy,
        receipts_json(b.receipts), b.recorded_at,
    )  # fmt: skip


def batch_of(record: Record) -> Logged:
    return Logged(decode(record["namespace"]), logged_of(record), record["idempotency_key"])


def versioned_of(record: Record) -> Versioned:
    """A version, and the memory's row where the record has one (a `current_created_at`)."""
    line = _line_of({**record, "actor": "", "policy": ""})
    change, memory = Change(line.version), line.version.memory
    if memory is None:
        change = replace(change, expires_at=_utc(record["expires_at"]))
    elif record["current_created_at"] is not None:
        memory = replace(
            memory,
            valid_to=_utc(record["current_valid_to"]),
            created_at=_utc(record["current_created_at"]),
            expires_at=_utc(record["current_expires_at"]),
        )
        row = Row(memory, record["current_language"], record["current_ttl"])
        vector = half_vector(record["vector"]) if record["vector"] else None
        change = replace(change, row=row, embedding=vector)
    return Versioned(decode(record["namespace"]), change, line.language, line.ttl)


def quarantined_of(record: Record) -> Quarantined:
    held = Held(
        operation=write_from(record["operation"]),
        code=record["code"],
        reason=record["reason"],
        id=str(record["id"]),
        policy=record["policy"],
        recorded_at=_utc(record["recorded_at"]),
    )
    return Quarantined(decode(record["namespace"]), held)


def quarantine_row(sealer: Sealer | None, namespace: Namespace, held: Held) -> tuple[Any, ...]:
    """The parameters of `hold`, in its order, as the database is to see them."""
    encoded = encode(namespace)
    operation, reason = sealed_held(sealer, encoded, held.id, plain_operation(held.operation), held.reason)
    return (encoded, uuid.UUID(held.id), Jsonb(operation), held.code, reason, held.policy, held.recorded_at)


def sealed_entry(sealer: Sealer | None, entry: Logged | Versioned) -> Logged | Versioned:
    """What is to be written of an entry, as the database is to see it."""
    namespace = encode(entry.namespace)
    if isinstance(entry, Logged):
        receipts = sealed(sealer, namespace, Plan(entry.batch.receipts, ())).receipts
        return replace(entry, batch=replace(entry.batch, receipts=receipts))
    return replace(entry, change=sealed(sealer, namespace, Plan((), (entry.change,))).changes[0])


def batch_parameters(batch: Batch, keys: Sequence[str]) -> dict[str, Any]:
    """`keys` are those that the batch names; nobody else can come in the way of one that names none."""
    return {
        "slot": slot_of(batch.namespace) if keys else None,
        "namespace": encode(batch.namespace),
        "batch_id": batch.id,
        "idempotency_key": batch.idempotency_key,
        "actor": batch.actor,
        "policy": batch.policy,
        "receipts": receipts_json([]),
    }


def receipts_json(receipts: Sequence[Receipt]) -> Jsonb:
    return Jsonb([asdict(receipt) for receipt in receipts])


def receipts_of(record: Record) -> Receipts:
    return Receipts(
        str(record["batch_id"]), tuple(Receipt(**receipt) for receipt in record["receipts"]), replayed=True
    )


def erasure_of(record: Record) -> Erasure:
    names = ("salt", "digest", "counts", "actor")
    taken = {name: record[name] for name in names}
    return Erasure(id=str(record["id"]), erased_at=record["erased_at"].astimezone(UTC), **taken)


def filter_parameters(filter: Mapping[str, Any] | None) -> dict[str, Any]:  # noqa: A002 - LangGraph's name
    """`path` and `vars` of a filter, both None where there is none."""
    if not filter:
        return {"path": None, "vars": None}
    path, variables = to_jsonpath(filter)
    return {"path": path, "vars": Jsonb(variables)}


def namespace_parameters(op: ListNamespacesOp) -> dict[str, Any]:
    conditions = [
        {"suffix": c.match_type == "suffix", "depth": len(c.path), "path": list(c.path)}
        for c in op.match_conditions or ()
    ]
    prefixes = (c.path for c in op.match_conditions or () if c.match_type == "prefix")
    literal = (".".join(takewhile(lambda label: label != "*", path)) for path in prefixes)
    return {
        "namespace": max(literal, key=len, default="") or EVERYTHING,
        "conditions": Jsonb(conditions),
        "max_depth": op.max_depth,
        "limit": op.limit,
        "offset": op.offset,
    }


def opened(batch: Batch, record: Record) -> Batch:
    """The batch, at the time at which the database opened it."""
    return replace(batch, now=record["recorded_at"].astimezone(UTC))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
