"""A compressed memory cut into parts, and put together again. Pure, for every store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from memgraph_plugin.errors import FingerprintMismatch, InvalidValue, MemoryNotFound, VersionConflict
from memgraph_plugin.store import sealing
from memgraph_plugin.store.sealing import Sealer
from memgraph_plugin.store.storable import check_key, check_namespace, storable
from memgraph_plugin.types import KVRecord, Namespace

SIZE = 8 * 1024 * 1024
"""Bytes of a part, at most."""

SEALED_SIZE = SIZE // 4 * 3 - 4096
"""Bytes that make a part of at most `SIZE` when they are sealed, which writes them in base64."""


@dataclass(frozen=True, slots=True)
class Part:
    """One row of `kv_part`, without its bytes: `size` of them from `place` on, in a file or a spool."""

    seq: int
    part: int
    last: bool
    sealed: bool
    sha256: bytes
    place: int
    size: int
    file: str | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Part:
        return cls(**{name: record[name] for name in cls.__slots__})


def check_save(
    namespace: Namespace, key: str, header: Mapping[str, Any], after: int, version: int | None
) -> dict[str, Any]:
    """The arguments of `save_kv` but its parts; a copy of the header, in plain JSON.

    Raises:
        InvalidNamespaceError, InvalidValue: one of them cannot work.
    """
    check_place(namespace, key)
    for name, number in (("after", after), ("version", 0 if version is None else version)):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
            raise InvalidValue(f"{name} is {number!r:.40}; it must be a number of what is there.")
    if after and version is None:
        raise InvalidValue(f"after={after} adds to a memory: give the version of it that was read.")
    return storable(header, "header")


def check_place(namespace: Namespace, key: str) -> None:
    """The name of one compressed memory."""
    check_namespace(namespace)
    check_key(key, "key")


def check_fits(found: KVRecord | None, key: str, after: int, version: int | None) -> None:
    """Refuse to save on what is there (`found`), where the caller has read something else.

    Raises:
        VersionConflict: it says what there is.
    """
    if found is None and version is not None:
        raise VersionConflict(f"The compressed memory {key!r} is gone, or never was: save it whole, as new.")
    if found is not None and version is None:
        raise VersionConflict(
            f"There is a compressed memory {key!r}: to replace it or to add to it, give its version, "
            f"{found.version}."
        )
    check_version(found, key, version)
    if found is not None and after not in (0, found.windows):
        raise VersionConflict(f"The compressed memory {key!r} has {found.windows} windows, and not {after}.")


def check_version(found: KVRecord | None, key: str, version: int | None) -> None:
    """Raise VersionConflict where this is not the version that was read; None is any."""
    if found is not None and version not in (None, found.version):
        raise VersionConflict(
            f"The compressed memory {key!r} was changed since it was read: it is at version {found.version}, "
            f"and not {version}. Load it again."
        )


def present(found: KVRecord | None, key: str, version: int | None) -> KVRecord:
    """What is to be read.

    Raises:
        MemoryNotFound: there is none.
        VersionConflict: it has another version.
    """
    if found is None:
        raise MemoryNotFound(f"There is no compressed memory {key!r} in this namespace.")
    check_version(found, key, version)
    return found


def record_of(record: Mapping[str, Any], sealer: Sealer | None) -> KVRecord:
    """Of a row of `kv_memory`."""
    place = _header_place(record["namespace"], record["key"])
    return KVRecord(
        namespace=tuple(record["namespace"].split(".")),
        key=record["key"],
        header=sealing.opened_header(sealer, place, record["header"]),
        version=record["version"],
        windows=record["windows"],
        bytes=record["bytes"],
        updated_at=record["updated_at"].astimezone(UTC),
    )


def sealed_header(
    sealer: Sealer | None, namespace: str, key: str, header: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The header as the database is to see it; `namespace` is encoded."""
    return sealing.sealed_header(sealer, _header_place(namespace, key), header)


def checked_window(window: object, number: int) -> bytes:
    """Refuse what is no bytes."""
    if not isinstance(window, bytes | bytearray | memoryview):
        raise InvalidValue(f"Window {number} is a {type(window).__name__}; it must be bytes.")
    return bytes(window)


class Cutter:
    """Cuts windows into parts as they are stored: of a size, sealed where there is a sealer."""

    def __init__(self, namespace: str, key: str, first: int, sealer: Sealer | None) -> None:
        self.windows = 0
        self.bytes = 0
        self._name = (namespace, key)
        self._first = first
        self._sealer = sealer
        self._place = 0

    def cut(self, window: bytes) -> Iterator[tuple[Part, bytes]]:
        """The parts of the next window."""
        seq = self._first + self.windows
        self.windows += 1
        self.bytes += len(window)
        for number, begin, end, last in spans(len(window), self._sealer is not None):
            stored = window if last and begin == 0 else window[begin:end]
            if self._sealer is not None:
                place = _part_place(self._name, seq, number, last)
                stored = self._sealer.seal(stored, place.encode()).encode()
            digest, sealed = hashlib.sha256(stored).digest(), self._sealer is not None
            yield Part(seq, number, last, sealed, digest, self._place, len(stored)), stored
            self._place += len(stored)


def spans(size: int, sealed: bool) -> Iterator[tuple[int, int, int, bool]]:
    """Number, begin and end of each part of so many bytes, and whether it is the last; at least one."""
    step = SEALED_SIZE if sealed else SIZE
    for number, begin in enumerate(range(0, max(size, 1), step)):
        yield number, begin, min(begin + step, size), begin + step >= size


class Joiner:
    """Puts the parts of a memory together to its windows, in order; every byte is checked."""

    def __init__(self, record: KVRecord, sealer: Sealer | None) -> None:
        self._name = (".".join(record.namespace), record.key)
        self._windows = record.windows
        self._sealer = sealer
        self._seq = 0
        self._begun: list[bytes] = []

    def add(self, part: Part, stored: bytes) -> bytes | None:
        """The window, where this is its last part.

        Raises:
            FingerprintMismatch: the bytes are not those that were saved, or some before them are missing.
            SealBroken: they cannot be opened.
        """
        expected = (self._seq, len(self._begun))
        if (part.seq, part.part) != expected:
            raise self._broken(f"part {expected[1]} of window {expected[0]} is missing")
        if hashlib.sha256(stored).digest() != part.sha256:
            raise self._broken(f"part {part.part} of window {part.seq} has another sha256")
        if part.sealed:
            place = _part_place(self._name, part.seq, part.part, part.last)
            stored = sealing.opened_bytes(self._sealer, place, stored.decode("ascii", "replace"))
        self._begun.append(stored)
        if not part.last:
            return None
        window = self._begun[0] if len(self._begun) == 1 else b"".join(self._begun)
        self._seq, self._begun = self._seq + 1, []
        return window

    def finish(self) -> None:
        """Raise FingerprintMismatch where windows are missing at the end."""
        if self._begun or self._seq != self._windows:
            raise self._broken(f"there are {self._seq} whole windows, and not {self._windows}")

    def _broken(self, what: str) -> FingerprintMismatch:
        return FingerprintMismatch(
            f"The compressed memory {self._name[1]!r} is broken: {what}. Delete it, and memorize anew."
        )


def _header_place(namespace: str, key: str) -> str:
    return f"{namespace}\0{key}\0header"


def _part_place(name: tuple[str, str], seq: int, part: int, last: bool) -> str:
    return "\0".join([*name, str(seq), str(part), "last" if last else "more"])
