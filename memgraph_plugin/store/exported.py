"""Memories as lines of JSON: the form of an export, and writing it. Pure, for every store.

A header says what it is and whose vectors it has; then comes every batch, by namespace and id; what is held
in quarantine, likewise; every version, by namespace, key and number, the newest with what its memory is
beyond it (`current`); and a footer with the number of each and the SHA-256 of all lines before it, with their
line feeds. Vectors are base64 of numbers of half precision, big-endian, as Postgres sends them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from memgraph_plugin import __version__
from memgraph_plugin.operation_json import plain_operation
from memgraph_plugin.store.held import Quarantined
from memgraph_plugin.store.journal import Change, Row
from memgraph_plugin.types import LoggedBatch, Memory, Namespace

FORMAT = "memgraph-plugin export"
NUMBER = 1
"""Of the format, raised when an older package could not read it whole."""

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Logged:
    """A batch as the log has it, with what `log` does not show."""

    namespace: Namespace
    batch: LoggedBatch
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Versioned:
    """A version of a memory, with its row where it is the current one; the rest as `Line` has it."""

    namespace: Namespace
    change: Change
    language: str | None = None
    ttl: float | None = None


Exported: TypeAlias = Logged | Quarantined | Versioned
"""What a line of an export says, between header and footer."""


@dataclass(frozen=True, slots=True)
class Header:
    """`model` is name and dimension of what made the vectors of where it comes from."""

    namespace: Namespace
    model: tuple[str, int] | None


def lines_of(
    entries: Iterable[Exported], header: Header, schema: int | None, *, vectors: bool
) -> Iterator[str]:
    """An export of these entries, which come in its order."""
    writer = Writer()
    yield writer.header(header, schema, vectors=vectors)
    for entry in entries:
        yield writer.entry(entry, vectors=vectors)
    yield writer.footer()


class Writer:
    """Makes the lines of one export, and counts them."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._counts = {"batches": 0, "held": 0, "versions": 0, "memories": 0}

    def header(self, header: Header, schema: int | None, *, vectors: bool) -> str:
        model = {"name": header.model[0], "dimension": header.model[1]} if header.model else None
        about = {
            "format": FORMAT,
            "number": NUMBER,
            "package": __version__,
            "schema": schema,
            "namespace": list(header.namespace),
            "model": model,
            "vectors": vectors,
            "exported_at": datetime.now(UTC).isoformat(),
        }
        return self._line(about, sort=False)

    def entry(self, entry: Exported, *, vectors: bool) -> str:
        if isinstance(entry, Logged):
            self._counts["batches"] += 1
            return self._line({"batch": _batch_json(entry)})
        if isinstance(entry, Quarantined):
            self._counts["held"] += 1
            return self._line({"held": _held_json(entry)})
        self._counts["versions"] += 1
        self._counts["memories"] += entry.change.row is not None
        return self._line({"version": _version_json(entry, vectors=vectors)})

    def footer(self) -> str:
        return _dumped({"end": {**self._counts, "sha256": self._sum.hexdigest()}})

    def _line(self, content: Json, *, sort: bool = True) -> str:
        line = _dumped(content, sort=sort)
        self._sum.update(line.encode() + b"\n")
        return line


def history_digest(entry: Exported) -> int:
    """A number for an entry of a namespace's history. Their sum stands for all of it, in any order."""
    if isinstance(entry, Versioned):
        content = _version_json(entry, vectors=False)
    else:
        content = _held_json(entry) if isinstance(entry, Quarantined) else _batch_json(entry)
    content.pop("current", None)  # a time to live may have been renewed since
    return int.from_bytes(hashlib.sha256(_dumped(content).encode()).digest())


def _dumped(content: Json, *, sort: bool = True) -> str:
    line = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=sort)
    return line.translate(_SEPARATORS)


_SEPARATORS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"}
"""What some readers take for the end of a line, beside what JSON escapes."""


def _batch_json(entry: Logged) -> Json:
    batch = entry.batch
    return {
        "namespace": list(entry.namespace),
        "id": batch.batch_id,
        "idempotency_key": entry.idempotency_key,
        "actor": batch.actor,
        "policy": batch.policy,
        "receipts": [asdict(receipt) for receipt in batch.receipts],
        "recorded_at": _moment_json(batch.recorded_at),
    }


def _held_json(entry: Quarantined) -> Json:
    held = entry.held
    return {
        "namespace": list(entry.namespace),
        "id": held.id,
        "operation": plain_operation(held.operation),
        "code": held.code,
        "reason": held.reason,
        "policy": held.policy,
        "recorded_at": _moment_json(held.recorded_at),
    }


def _version_json(entry: Versioned, *, vectors: bool) -> Json:
    version = entry.change.version
    expires_at = version.memory.expires_at if version.memory else entry.change.expires_at
    return {
        "namespace": list(entry.namespace),
        "key": version.key,
        "version": version.version,
        "batch": version.batch_id,
        "operation": version.operation,
        "mode": version.mode,
        "reason": version.reason,
        "evidence": list(version.evidence),
        "recorded_at": _moment_json(version.recorded_at),
        "expires_at": _moment_json(expires_at),
        "language": entry.language,
        "ttl": _minutes_json(entry.ttl),
        "restores": version.restores,
        "memory": _memory_json(version.memory) if version.memory else None,
        "current": _current_json(entry.change.row, entry.change, vectors) if entry.change.row else None,
    }


def _memory_json(memory: Memory) -> Json:
    return {
        "text": memory.text,
        "kind": memory.kind,
        "value": memory.value,
        "session": memory.session,
        "position": memory.position,
        "importance": _single(memory.importance),
        "source": memory.source,
        "valid_from": _moment_json(memory.valid_from),
        "valid_to": _moment_json(memory.valid_to),
    }


def _current_json(row: Row, change: Change, vectors: bool) -> Json:
    """What cannot be had from the version."""
    current: Json = {
        "language": row.language,
        "ttl": _minutes_json(row.ttl),
        "valid_to": _moment_json(row.memory.valid_to),
        "created_at": _moment_json(row.memory.created_at),
        "expires_at": _moment_json(row.memory.expires_at),
    }
    if vectors and change.embedding is not None:
        half = struct.pack(f">{len(change.embedding)}e", *change.embedding)
        current["vector"] = base64.b64encode(half).decode()
    return current


def half_vector(raw: bytes) -> Sequence[float]:
    """The vector that `raw` is, as Postgres sends it and exports have it."""
    return struct.unpack(f">{len(raw) // 2}e", raw)


def _moment_json(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _minutes_json(ttl: float | None) -> float | None:
    return None if ttl is None else float(ttl)


def _single(number: float) -> float:
    """At single precision, as a database keeps it, whichever store it comes from."""
    single: float = struct.unpack("f", struct.pack("f", number))[0]
    return round(single, 6)
