"""What a batch of operations does to the memories it names: every change, refusal and receipt. Pure.

A store reads the rows that a batch names, asks `plan` what becomes of them, and writes that down.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from langgraph.store.base import PutOp

from memgraph_plugin.errors import EmbeddingMismatch, MemoryNotFound, VersionConflict
from memgraph_plugin.store.held import noted, refused
from memgraph_plugin.store.storable import text_of_put
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import (
    Delete,
    Held,
    Insert,
    Memory,
    MemoryVersion,
    Namespace,
    NoOp,
    Operation,
    Receipt,
    Update,
    UpdateMode,
)

Vector: TypeAlias = Sequence[float]

REJECTIONS = {
    "duplicate_key": "the batch already has an operation on this key",
    "expired": "what it was before has expired since",
    "invalid_interval": "it would end before it begins: valid_to must be later than valid_from",
    "key_exists": "there is a memory under this key",
    "not_found": "there is no memory under this key",
    "version_conflict": "the memory has changed since that version was read",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One call of `apply`, or what a LangGraph batch puts into one namespace.

    `held` goes to quarantine; `releases` is the id of what leaves it, where that is applied. `rejected`
    was so before. `requires` are the versions of memories without which nothing is to be written: 0 where
    there must be none, None for any.
    """

    namespace: Namespace
    language: str
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    fields: Sequence[str] | None = None
    idempotency_key: str | None = None
    actor: str = ""
    policy: str = ""
    held: tuple[Held, ...] = ()
    rejected: tuple[Receipt, ...] = ()
    releases: str | None = None
    requires: Mapping[str, int | None] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Row:
    """A memory as a store keeps it: with the language of its text, and its time to live in minutes."""

    memory: Memory
    language: str
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One new version. `row` is None where the memory is gone; `version` is the line for its history.

    `expires_at`: when the history of a memory that is gone goes, too, because the memory was to expire then.
    """

    version: MemoryVersion
    row: Row | None = None
    embedding: Vector | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A version as the log keeps it; language and ttl are None where it is gone, or older than their log.

    `expires_at` is that of `Change`.
    """

    version: MemoryVersion
    language: str | None = None
    ttl: float | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """Take one version back, where nothing came after it.

    `version` is its number, None where the log has it no longer; `undone` is what made it, and `past` the
    memory before it, None where there was none.
    """

    key: str
    version: int | None = None
    undone: Literal["insert", "update", "delete"] = "insert"
    past: Memory | None = None
    language: str | None = None
    ttl: float | None = None
    reason: str = ""


Step: TypeAlias = Operation | PutOp | Undo


@dataclass(frozen=True, slots=True)
class Plan:
    receipts: tuple[Receipt, ...]
    changes: tuple[Change, ...]
    held: tuple[Held, ...] = ()


def plan(
    batch: Batch,
    operations: Iterable[Step],
    current: Mapping[str, Row],
    newest: Mapping[str, int],
) -> Plan:
    """What becomes of each operation; behind them, what the batch holds, and what was rejected before.

    Args:
        current: the rows that the operations name or the batch requires, by key; an expired one counts as
            gone.
        newest: the number of each named key's newest version, also of those deleted or expired.

    Raises:
        MemoryNotFound, VersionConflict: something that the batch requires is gone, or has changed.
    """
    _check_required(batch, current)
    receipts: list[Receipt] = []
    changes: list[Change] = []
    seen: set[str] = set()
    for operation in operations:
        receipt, change = _one(batch, operation, current, newest, seen)
        receipts.append(receipt)
        if change is not None:
            if change.row is None:
                change = replace(change, expires_at=current[change.version.key].memory.expires_at)
            changes.append(change)
        if receipt.key is not None:
            seen.add(receipt.key)
    held = noted(batch.held, batch.policy, batch.now)
    return Plan((*receipts, *map(refused, held), *batch.rejected), tuple(changes), held)


def named_keys(operations: Iterable[Step], requires: Iterable[str] = ()) -> list[str]:
    """The keys that a batch names, whose rows `plan` must be shown."""
    written = {op.key for op in operations if not isinstance(op, NoOp) and op.key is not None}
    return sorted(written.union(requires))


def required(keys: Collection[str]) -> dict[str, int | None]:
    """What a batch requires, by key; None for any version."""
    return dict(keys) if isinstance(keys, Mapping) else dict.fromkeys(keys)


def _check_required(batch: Batch, current: Mapping[str, Row]) -> None:
    there = {key: row.memory.version for key, row in current.items() if not expired(row.memory, batch.now)}
    for key, version in batch.requires.items():
        if version != 0 and key not in there:
            raise MemoryNotFound(f"Nothing was written: {key!r:.80}, which it rests on, is gone.")
        if version is not None and version != there.get(key, 0):
            raise VersionConflict(f"Nothing was written: {key!r:.80}, which it rests on, has changed.")


def texts_to_embed(operations: Sequence[Step], fields: Sequence[str] | None) -> list[str]:
    """The texts of a batch that have no vector yet, each once."""
    texts = [
        text_of_put(op, fields) if isinstance(op, PutOp) else op.text
        for op in operations
        if isinstance(op, PutOp) or (isinstance(op, Insert | Update) and op.embedding is None)
    ]
    texts += [op.past.text for op in operations if isinstance(op, Undo) and op.past]
    return list(dict.fromkeys(text for text in texts if text.strip()))


def check_dimension(operations: Iterable[Step], dimension: int | None) -> None:
    """Refuse given vectors of another dimension than the store's."""
    for op in operations:
        if isinstance(op, Insert | Update) and op.embedding is not None:
            if dimension is None:
                raise EmbeddingMismatch("This store ranks by words alone: it takes no vectors.")
            if len(op.embedding) != dimension:
                raise EmbeddingMismatch(
                    f"The store's vectors have {dimension} dimensions, this one has {len(op.embedding)}."
                )


def _one(
    batch: Batch,
    operation: Step,
    current: Mapping[str, Row],
    newest: Mapping[str, int],
    seen: set[str],
) -> tuple[Receipt, Change | None]:
    if isinstance(operation, NoOp):
        return Receipt(operation="noop", status="unchanged", reason=operation.reason), None
    key = operation.key if operation.key is not None else str(uuid.uuid4())
    row = current.get(key)
    if row and expired(row.memory, batch.now):
        row = None
    version = max(newest.get(key, 0), row.memory.version if row else 0) + 1
    if isinstance(operation, PutOp):
        return _put(batch, operation, row, version)
    if isinstance(operation, Undo):
        return _undone(batch, operation, row, version)
    name = _NAMES[type(operation)]
    if code := _rejection(operation, row, repeated=key in seen):
        return _rejected(name, key, row, code), None
    written = _written(batch, key, operation, row, version)
    if written and not _lasts(written.memory):
        return _rejected(name, key, row, "invalid_interval"), None
    mode: UpdateMode | None = operation.mode if isinstance(operation, Update) else None
    change = _change(batch, key, version, name, written, operation.reason, operation.evidence, mode)
    if isinstance(operation, Insert | Update) and operation.embedding is not None:
        change = replace(change, embedding=operation.embedding)
    return Receipt(
        operation=name, status="applied", key=key, version=version, reason=operation.reason
    ), change


_NAMES: Mapping[type, Literal["insert", "update", "delete"]] = {
    Insert: "insert",
    Update: "update",
    Delete: "delete",
}


def _rejection(operation: Insert | Update | Delete, row: Row | None, *, repeated: bool) -> str | None:
    if repeated:
        return "duplicate_key"
    if isinstance(operation, Insert):
        return "key_exists" if row else None
    if row is None:
        return "not_found"
    return "version_conflict" if operation.version not in (None, row.memory.version) else None


def _rejected(name: Literal["insert", "update", "delete"], key: str, row: Row | None, code: str) -> Receipt:
    there = row.memory.version if row else None
    return Receipt(
        operation=name, status="rejected", key=key, version=there, code=code, reason=REJECTIONS[code]
    )


def _lasts(memory: Memory) -> bool:
    return memory.valid_from is None or memory.valid_to is None or memory.valid_from < memory.valid_to


def expired(memory: Memory, now: datetime) -> bool:
    """Whether its time to live is up."""
    return memory.expires_at is not None and memory.expires_at <= now


def _written(
    batch: Batch, key: str, operation: Insert | Update | Delete, row: Row | None, version: int
) -> Row | None:
    """The row that an operation leaves behind; None: there is none any more."""
    if isinstance(operation, Insert):
        memory = Memory(
            namespace=batch.namespace,
            key=key,
            text=operation.text,
            kind=operation.kind,
            value=operation.value or {"text": operation.text},
            session=operation.session,
            position=operation.position,
            importance=operation.importance,
            source=operation.source,
            valid_from=operation.valid_from,
            valid_to=operation.valid_to,
            created_at=batch.now,
            expires_at=operation.expires_at,
        )
        return _finished(batch, memory, version, operation.language or batch.language, None)
    if isinstance(operation, Delete) or row is None:
        return None
    old = row.memory
    since = operation.valid_from or (batch.now if operation.mode == "supersede" else old.valid_from)
    memory = replace(
        old,
        text=operation.text,
        value=_revised(old, operation),
        importance=old.importance if operation.importance is None else operation.importance,
        valid_from=since,
        valid_to=operation.valid_to or (None if operation.mode == "supersede" else old.valid_to),
    )
    return _finished(batch, memory, version, row.language, row.ttl)


def _revised(old: Memory, operation: Update) -> Mapping[str, Any]:
    """The value after an update: the given one, else the old one, whose "text" follows the memory's."""
    if operation.value is not None:
        return operation.value
    return {**old.value, "text": operation.text} if old.value.get("text") == old.text else old.value


def _put(batch: Batch, op: PutOp, row: Row | None, version: int) -> tuple[Receipt, Change | None]:
    """A LangGraph put is an operation like any other; of a key that is not there, a delete does nothing."""
    if op.value is None:
        if row is None:
            return Receipt(operation="delete", status="unchanged", key=op.key), None
        change = _change(batch, op.key, version, "delete", None)
        return Receipt(operation="delete", status="applied", key=op.key, version=version), change
    name: Literal["insert", "update"] = "update" if row else "insert"
    memory = (
        row.memory if row else Memory(namespace=batch.namespace, key=op.key, text="", created_at=batch.now)
    )
    expires_at = batch.now + timedelta(minutes=op.ttl) if op.ttl is not None else None
    # A put says nothing of an end: what it puts in place of something that has ended can be found again.
    memory = replace(
        memory, text=text_of_put(op, batch.fields), value=op.value, expires_at=expires_at, valid_to=None
    )
    written = _finished(batch, memory, version, row.language if row else batch.language, op.ttl)
    mode: UpdateMode | None = "correct" if row else None
    change = _change(batch, op.key, version, name, written, mode=mode)
    return Receipt(operation=name, status="applied", key=op.key, version=version), change


def _undone(batch: Batch, op: Undo, row: Row | None, version: int) -> tuple[Receipt, Change | None]:
    """The inverse of what made a version: a deletion, or the memory before it as a new version."""
    name = _INVERSES[op.undone]
    code = None
    if op.version != version - 1:
        code = "version_conflict"
    elif row is None and op.undone != "delete":
        code = "not_found"
    elif name != "delete" and (op.past is None or expired(op.past, batch.now)):
        code = "expired"
    if code:
        return _rejected(name, op.key, row, code), None
    written = None
    if op.past is not None:
        language = op.language or (row.language if row else batch.language)
        written = _finished(batch, op.past, version, language, op.ttl)
    change = _change(batch, op.key, version, name, written, op.reason)
    if op.past is not None:
        change = replace(change, version=replace(change.version, restores=op.past.version))
    return Receipt(operation=name, status="applied", key=op.key, version=version, reason=op.reason), change


_INVERSES: Mapping[str, Literal["insert", "update", "delete"]] = {
    "insert": "delete",
    "update": "update",
    "delete": "insert",
}


def _finished(batch: Batch, memory: Memory, version: int, language: str, ttl: float | None) -> Row:
    memory = replace(memory, version=version, tokens=estimate_tokens(memory.text), updated_at=batch.now)
    return Row(memory, language, ttl)


def _change(
    batch: Batch,
    key: str,
    version: int,
    name: Literal["insert", "update", "delete"],
    row: Row | None,
    reason: str = "",
    evidence: tuple[str, ...] = (),
    mode: UpdateMode | None = None,
) -> Change:
    line = MemoryVersion(
        key=key,
        version=version,
        memory=row.memory if row else None,
        operation=name,
        mode=mode,
        reason=reason,
        actor=batch.actor,
        policy=batch.policy,
        evidence=evidence,
        batch_id=batch.id,
        recorded_at=batch.now,
    )
    return Change(line, row, batch.vectors.get(row.memory.text) if row else None)
