"""Reading an export: each line is checked before anything is done with it. Pure, for every store."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

from langgraph.store.base import InvalidNamespaceError

from memgraph_plugin.errors import InvalidExport, InvalidValue
from memgraph_plugin.operation_json import write_from
from memgraph_plugin.store import storable
from memgraph_plugin.store.exported import (
    FORMAT,
    NUMBER,
    Exported,
    Header,
    Json,
    Logged,
    Versioned,
    half_vector,
)
from memgraph_plugin.store.held import Quarantined, storable_held
from memgraph_plugin.store.journal import Change, Row
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Held, LoggedBatch, Memory, MemoryVersion, Namespace, Receipt, UpdateMode


class Reader:
    """Reads the lines of one export, in order, and refuses what is none. Nothing in it is believed.

    Raises, in each method:
        InvalidExport: naming the line.
    """

    def __init__(self) -> None:
        self.header: Header | None = None
        self.number = 0
        self._sum = hashlib.sha256()
        self._counts = {"batches": 0, "held": 0, "versions": 0, "memories": 0}
        self._last: tuple[Any, ...] = ()
        self._ended = False

    def read(self, line: str) -> Exported | None:
        """One line; what stands in it, None for header and footer."""
        self.number += 1
        try:
            line = line.rstrip("\r\n")
            if self._ended:
                raise InvalidValue("comes after the end")
            entry = self._read(line)
            self._sum.update(line.encode() + b"\n")
        except _MISSHAPEN as error:
            ours = isinstance(error, InvalidValue | InvalidNamespaceError)
            said = str(error).rstrip(".") if ours else "is no line of an export"
            raise InvalidExport(f"Line {self.number}: {said}. Nothing was imported.") from error
        return entry

    def finish(self) -> None:
        """There are no more lines."""
        if not self.number:
            raise InvalidExport("There are no lines: that is no export. Nothing was imported.")
        if not self._ended:
            raise InvalidExport(f"It breaks off after line {self.number}: no end. Nothing was imported.")

    def _read(self, line: str) -> Exported | None:
        content = _loaded(line)
        if self.header is None:
            self.header = _header_of(content)
            return None
        match content:
            case {"batch": dict() as batch, **rest} if not rest:
                logged = _logged_of(batch)
                self._follow(("batch", ".".join(logged.namespace), logged.batch.batch_id), logged.namespace)
                self._counts["batches"] += 1
                return logged
            case {"held": dict() as held, **rest} if not rest:
                quarantined = _held_of(held)
                self._follow(
                    ("held", ".".join(quarantined.namespace), quarantined.held.id), quarantined.namespace
                )
                self._counts["held"] += 1
                return quarantined
            case {"version": dict() as version, **rest} if not rest:
                versioned = _versioned_of(version)
                self._follow_version(versioned)
                return versioned
            case {"end": {"sha256": str() as digest, **counts}, **rest} if not rest:
                self._ended = True
                if counts != self._counts or digest != self._sum.hexdigest():
                    raise InvalidValue("the lines before it are not those that were written")
                return None
        raise InvalidValue("is no line of an export")

    def _follow_version(self, entry: Versioned) -> None:
        version = entry.change.version
        place = ("version", ".".join(entry.namespace), version.key, version.version)
        if self._last[:3] == place[:3] and self._last[4]:
            raise InvalidValue("comes after the current version of its memory")
        self._follow(place, entry.namespace)
        self._last = (*place, entry.change.row is not None)
        self._counts["versions"] += 1
        self._counts["memories"] += entry.change.row is not None

    def _follow(self, place: tuple[Any, ...], namespace: Namespace) -> None:
        if place <= self._last[:4]:
            raise InvalidValue("is out of order, or there twice")
        assert self.header is not None  # noqa: S101 - it is the first line
        prefix = self.header.namespace
        if namespace[: len(prefix)] != prefix:
            raise InvalidValue("is outside of the namespace that the header names")
        self._last = place


_MISSHAPEN = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, struct.error)
"""What is raised by reading what has another shape than it should have."""


def _loaded(line: str) -> Any:
    def refuse(name: str) -> None:
        raise InvalidValue(f"has {name}, which is not JSON")

    try:
        return json.loads(line, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InvalidValue("is not JSON, or only a part of it") from error


def _header_of(content: Any) -> Header:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InvalidValue("is no header: this is not an export of memgraph-plugin")
    if content["number"] != NUMBER:
        raise InvalidValue(
            f"has format {content['number']!r:.20}, this package reads {NUMBER}: upgrade the package"
        )
    namespace = _namespace(content["namespace"]) if content["namespace"] else ()
    if (model := content["model"]) is None:
        return Header(namespace, None)
    return Header(namespace, (str(model["name"]), int(model["dimension"])))


def _logged_of(content: Json) -> Logged:
    _only(content, "namespace id idempotency_key actor policy receipts recorded_at")
    storable.check_batch(content["idempotency_key"], content["actor"], content["policy"])
    batch = LoggedBatch(
        batch_id=_uuid(content["id"], "id"),
        receipts=tuple(_receipt_of(each) for each in content["receipts"]),
        recorded_at=_required(content["recorded_at"]),
        actor=content["actor"],
        policy=content["policy"],
    )
    return Logged(_namespace(content["namespace"]), batch, content["idempotency_key"])


def _held_of(content: Json) -> Quarantined:
    _only(content, "namespace id operation code reason policy recorded_at")
    namespace = _namespace(content["namespace"])
    held = Held(
        operation=write_from(content["operation"]),
        code=content["code"],
        reason=content["reason"],
        id=_uuid(content["id"], "id"),
        policy=content["policy"],
        recorded_at=_required(content["recorded_at"]),
    )
    return Quarantined(namespace, storable_held(namespace, [held])[0])


def _receipt_of(content: Json) -> Receipt:
    _only(content, "operation status key version code reason")
    receipt = Receipt(**content)
    _one_of(receipt.operation, ("insert", "update", "delete", "noop"), "operation")
    _one_of(receipt.status, ("applied", "unchanged", "rejected"), "status")
    for name in ("key", "code"):
        _text_or_none(content[name], name)
    storable.check_reason(receipt.reason, "reason")
    if receipt.version is not None:
        _whole(receipt.version, "version", 1, 2**31 - 1)
    return receipt


def _versioned_of(content: Json) -> Versioned:
    _only(
        content,
        "namespace key version batch operation mode reason evidence recorded_at expires_at language ttl "
        "restores memory current",
    )
    namespace, at = _namespace(content["namespace"]), _required(content["recorded_at"])
    storable.check_key(content["key"], "key")
    storable.check_reason(content["reason"], "reason")
    operation, mode = content["operation"], content["mode"]
    _one_of(operation, ("insert", "update", "delete"), "operation")
    _one_of(mode, (None, *get_args(UpdateMode)), "mode")
    if (operation == "delete") != (content["memory"] is None):
        raise InvalidValue("memory does not fit the operation")
    evidence = tuple(_each_text(content["evidence"], "evidence"))
    number = _whole(content["version"], "version", 1, 2**31 - 1)
    expires_at, ttl, restores = _moment(content["expires_at"]), _ttl(content["ttl"]), content["restores"]
    _text_or_none(content["language"], "language")
    if restores is not None:
        _whole(restores, "restores", 1, number - 1)
    memory = None
    if content["memory"] is not None:
        memory = _memory_of(content["memory"], namespace, content["key"], at)
        memory = replace(memory, version=number, expires_at=expires_at)
    elif (content["language"], ttl, restores) != (None, None, None):
        raise InvalidValue("is of a memory that is deleted, and has what only others have")
    line = MemoryVersion(
        key=content["key"],
        version=number,
        memory=memory,
        operation=operation,
        mode=mode,
        reason=content["reason"],
        evidence=evidence,
        batch_id=_uuid(content["batch"], "batch"),
        recorded_at=at,
        restores=restores,
    )
    change = Change(line, expires_at=None if memory else expires_at)
    if content["current"] is not None:
        if memory is None:
            raise InvalidValue("current is set, though the memory is deleted")
        row, vector = _current_of(content["current"], memory)
        change = replace(change, row=row, embedding=vector)
    return Versioned(namespace, change, content["language"], ttl)


def _memory_of(content: Json, namespace: Namespace, key: str, at: datetime) -> Memory:
    _only(content, "text kind value session position importance source valid_from valid_to")
    for name in ("text", "kind", "source"):
        storable.check_text(content[name], name)
    _text_or_none(content["session"], "session")
    if content["position"] is not None:
        _whole(content["position"], "position", -storable.MAX_POSITION, storable.MAX_POSITION)
    return Memory(
        namespace=namespace,
        key=key,
        text=content["text"],
        kind=content["kind"],
        value=storable.storable(content["value"]),
        session=content["session"],
        position=content["position"],
        importance=_number(content["importance"], "importance", storable.MAX_IMPORTANCE),
        tokens=estimate_tokens(content["text"]),
        source=content["source"],
        valid_from=_moment(content["valid_from"]),
        valid_to=_moment(content["valid_to"]),
        created_at=at,
        updated_at=at,
    )


def _current_of(content: Json, memory: Memory) -> tuple[Row, Sequence[float] | None]:
    _only({**content, "vector": None}, "language ttl valid_to created_at expires_at vector")
    storable.check_text(content["language"], "language")
    now = replace(
        memory,
        valid_to=_moment(content["valid_to"]),
        created_at=_required(content["created_at"]),
        expires_at=_moment(content["expires_at"]),
    )
    row = Row(now, content["language"], _ttl(content["ttl"]))
    if content.get("vector") is None:
        return row, None
    return row, half_vector(base64.b64decode(content["vector"], validate=True))


def _only(content: Mapping[str, Any], names: str) -> None:
    if not isinstance(content, dict) or content.keys() != set(names.split()):
        raise InvalidValue("has not the fields that it should have")


def _namespace(labels: Any) -> Namespace:
    if not isinstance(labels, list):
        raise InvalidValue("namespace is no list of labels")
    storable.check_namespace(tuple(labels))
    return tuple(labels)


def _uuid(text: Any, place: str) -> str:
    if str(uuid.UUID(text)) != text:
        raise InvalidValue(f"{place} is no UUID")
    return str(text)


def _one_of(word: Any, words: Sequence[Any], place: str) -> None:
    if word not in words:
        raise InvalidValue(f"{place} is none of those there are")


def _text_or_none(text: Any, place: str) -> None:
    if text is not None:
        storable.check_text(text, place)


def _each_text(texts: Any, place: str) -> Iterator[str]:
    if not isinstance(texts, list):
        raise InvalidValue(f"{place} is no list")
    for text in texts:
        storable.check_text(text, place)
        yield text


def _whole(number: Any, place: str, least: int, most: int) -> int:
    if type(number) is not int or not least <= number <= most:
        raise InvalidValue(f"{place} is no whole number from {least:,} to {most:,}")
    return number


def _number(number: Any, place: str, most: float) -> float:
    if type(number) not in (int, float) or not abs(number) <= most:
        raise InvalidValue(f"{place} is no number, or out of range")
    return float(number)


def _ttl(minutes: Any) -> float | None:
    return None if minutes is None else _number(minutes, "ttl", storable.MAX_TTL)


def _moment(text: Any) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    storable.check_moments(**{"a time of it": moment})
    return moment.astimezone(UTC)


def _required(text: Any) -> datetime:
    if (moment := _moment(text)) is None:
        raise InvalidValue("lacks a time")
    return moment
