"""Memories that the database cannot read: what was said is encrypted before it leaves this process.

Sealed are the text and value of every memory and version, the reasons in the log, and what is held in
quarantine. Readable stay
namespaces, keys, sessions, sources, evidence, times, numbers of tokens, and the vectors, which let a text be
guessed at. A sealed store searches by vectors alone: the database has no words to match and no values to
filter by.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from memgraph_plugin.errors import ConfigurationError, MissingExtraError, SealBroken
from memgraph_plugin.store.journal import Change, Plan
from memgraph_plugin.store.storable import SEALED

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12
"""Bytes; drawn at random, so that one key is good for some four billion writes."""


class Sealer(Protocol):
    """Encrypts and decrypts. What was sealed bound to one place opens at no other."""

    def seal(self, plain: bytes, bound_to: bytes) -> str:
        """The sealed text, with the name of its key, in ASCII."""

    def open(self, sealed: str, bound_to: bytes) -> bytes:
        """What was sealed.

        Raises:
            SealBroken: the key is not known, the text was changed, or it was sealed for another place.
        """

    def is_current(self, sealed: str) -> bool:
        """Whether it was sealed with the key that seals now."""


@dataclass(frozen=True)
class AesGcmSealer:
    """AES-256 in Galois/counter mode (NIST SP 800-38D), by the package `cryptography`.

    Args:
        keys: 32 bytes each, by name. The first one seals; the others open what was sealed before.
    """

    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigurationError("A sealer needs a key.")
        for name, key in self.keys.items():
            if not name or not name.isascii() or set(name) & set(":,"):
                raise ConfigurationError(f"A key's name is ASCII without ':' and ',', not {name!r}.")
            if len(key) != 32:
                raise ConfigurationError(f"The key {name!r} has {len(key)} bytes; AES-256 takes 32.")

    @classmethod
    def parse(cls, keys: str) -> AesGcmSealer:
        """Of "NAME:BASE64,NAME:BASE64", as settings hold it; the first one seals.

        Raises:
            ConfigurationError: it has another form; the message quotes no key.
        """
        found: dict[str, bytes] = {}
        for part in keys.split(","):
            name, colon, encoded = part.strip().partition(":")
            try:
                found[name] = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                colon = ""
            if not colon:
                raise ConfigurationError('Sealing keys have the form "NAME:BASE64,NAME:BASE64".')
        return cls(found)

    def seal(self, plain: bytes, bound_to: bytes) -> str:
        nonce = os.urandom(NONCE)
        name = next(iter(self.keys))
        sealed = nonce + self._ciphers[name].encrypt(nonce, plain, bound_to)
        return f"{name}:{base64.b64encode(sealed).decode()}"

    def open(self, sealed: str, bound_to: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        name, _, encoded = sealed.partition(":")
        if name not in self.keys:
            raise SealBroken(f"A memory is sealed with the key {name!r:.40}, which was not given.")
        try:
            raw = base64.b64decode(encoded, validate=True)
            return self._ciphers[name].decrypt(raw[:NONCE], raw[NONCE:], bound_to)
        except (InvalidTag, ValueError) as error:
            raise SealBroken(
                f"A memory does not open with the key {name!r}: that is another key of the same name, or the "
                "memory was changed or moved by somebody without the key."
            ) from error

    def is_current(self, sealed: str) -> bool:
        return sealed.startswith(f"{next(iter(self.keys))}:")

    @cached_property
    def _ciphers(self) -> dict[str, AESGCM]:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtraError("sealing", "Sealing memories") from error
        return {name: AESGCM(key) for name, key in self.keys.items()}


def new_key(name: str) -> str:
    """A new random key, in the form that `AesGcmSealer.parse` reads."""
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


def sealed(sealer: Sealer | None, namespace: str, made: Plan) -> Plan:
    """What is to be written, as the database is to see it. `namespace` is encoded."""
    if sealer is None:
        return made
    return Plan(
        tuple(replace(each, reason=_sealed_text(sealer, namespace, each.reason)) for each in made.receipts),
        tuple(_sealed_change(sealer, namespace, change) for change in made.changes),
    )


def opened(sealer: Sealer | None, record: dict[str, Any], namespace: str | None) -> dict[str, Any]:
    """A record of the database as it was before it was sealed; `namespace` is that of one that names none.

    Raises:
        SealBroken: it cannot be opened, or there is no sealer.
    """
    namespace = record.get("namespace", namespace)
    changed: dict[str, Any] = {}
    value = record.get("value")
    if isinstance(value, dict) and SEALED in value:
        said = json.loads(opened_bytes(sealer, f"{namespace}\0{record['key']}", value[SEALED]))
        changed = {"text": said["text"], "value": said["value"]}
    if isinstance(held := record.get("operation"), dict):
        changed["operation"] = opened_header(sealer, f"{namespace}\0{record['id']}", held)
    if _is_sealed(record.get("reason")):
        changed["reason"] = _opened_text(sealer, record["reason"], namespace)
    if any(_is_sealed(receipt.get("reason")) for receipt in record.get("receipts") or ()):
        changed["receipts"] = [
            {**receipt, "reason": _opened_text(sealer, receipt["reason"], namespace)}
            for receipt in record["receipts"]
        ]
    return {**record, **changed} if changed else record


def sealed_held(
    sealer: Sealer | None, namespace: str, id_: str, operation: Mapping[str, Any], reason: str
) -> tuple[Mapping[str, Any], str]:
    """An operation that is held, and why, as the database is to see them."""
    if sealer is None:
        return operation, reason
    return sealed_header(sealer, f"{namespace}\0{id_}", operation), _sealed_text(sealer, namespace, reason)


def sealed_header(sealer: Sealer | None, bound_to: str, header: Mapping[str, Any]) -> Mapping[str, Any]:
    """A compressed memory's header, as the database is to see it."""
    if sealer is None:
        return header
    plain = json.dumps(header, ensure_ascii=False).encode()
    return {SEALED: sealer.seal(plain, bound_to.encode())}


def opened_header(sealer: Sealer | None, bound_to: str, header: Mapping[str, Any]) -> Mapping[str, Any]:
    """A header as it was before it was sealed.

    Raises:
        SealBroken: it cannot be opened, or there is no sealer.
    """
    if SEALED not in header:
        return header
    said: dict[str, Any] = json.loads(opened_bytes(sealer, bound_to, header[SEALED]))
    return said


def is_current_header(sealer: Sealer, header: Mapping[str, Any]) -> bool:
    """Whether a header, as the database has it, was sealed with the key that seals now."""
    return sealer.is_current(header.get(SEALED, ""))


def opened_bytes(sealer: Sealer | None, bound_to: str, sealed: str) -> bytes:
    """What was sealed with `Sealer.seal`.

    Raises:
        SealBroken: it cannot be opened, or there is no sealer.
    """
    if sealer is None:
        raise SealBroken(
            "A memory is sealed: set MEMGRAPH_PLUGIN_SEALING_KEYS, or give the store its sealer."
        )
    return sealer.open(sealed, bound_to.encode())


def resealed(sealer: Sealer, record: dict[str, Any]) -> dict[str, Any] | None:
    """What of a record is to be written, so that the current key seals all of it; None where it does."""
    namespace, plain = record["namespace"], opened(sealer, record, None)
    if all(sealer.is_current(each) for each in _sealed_parts(record)):
        return None
    changed: dict[str, Any] = {}
    if plain.get("value") is not None:
        said = _sealed_said(sealer, namespace, plain["key"], plain["text"], plain["value"])
        changed = {"text": "", "value": said}
    if isinstance(held := plain.get("operation"), dict):
        changed["operation"] = sealed_header(sealer, f"{namespace}\0{plain['id']}", held)
    if "reason" in plain:
        changed["reason"] = _sealed_text(sealer, namespace, plain["reason"])
    if "receipts" in plain:
        changed["receipts"] = [
            {**receipt, "reason": _sealed_text(sealer, namespace, receipt["reason"])}
            for receipt in plain["receipts"]
        ]
    return changed


def _sealed_parts(record: dict[str, Any]) -> Iterator[str]:
    """Each part that is to be sealed, as `Sealer.is_current` takes it; empty where it is not sealed."""
    if record.get("value") is not None:
        yield record["value"].get(SEALED, "")
    if isinstance(held := record.get("operation"), dict):
        yield held.get(SEALED, "")
    reasons = [record.get("reason"), *(receipt["reason"] for receipt in record.get("receipts") or ())]
    yield from (
        reason.removeprefix(f"{SEALED}:") if _is_sealed(reason) else "" for reason in reasons if reason
    )


def _is_sealed(text: str | None) -> bool:
    return text is not None and text.startswith(f"{SEALED}:")


def _sealed_change(sealer: Sealer, namespace: str, change: Change) -> Change:
    version, row = change.version, change.row
    if version.memory is not None:
        said = _sealed_said(sealer, namespace, version.key, version.memory.text, version.memory.value)
        version = replace(version, memory=replace(version.memory, text="", value=said))
        row = row and replace(row, memory=replace(row.memory, text="", value=said))
    version = replace(version, reason=_sealed_text(sealer, namespace, version.reason))
    return replace(change, version=version, row=row)


def _sealed_said(
    sealer: Sealer, namespace: str, key: str, text: str, value: Mapping[str, Any]
) -> dict[str, str]:
    plain = json.dumps({"text": text, "value": value}, ensure_ascii=False).encode()
    return {SEALED: sealer.seal(plain, f"{namespace}\0{key}".encode())}


def _sealed_text(sealer: Sealer, namespace: str, text: str) -> str:
    return f"{SEALED}:{sealer.seal(text.encode(), namespace.encode())}" if text else ""


def _opened_text(sealer: Sealer | None, text: str, namespace: str | None) -> str:
    if not _is_sealed(text):
        return text
    return opened_bytes(sealer, str(namespace), text.removeprefix(f"{SEALED}:")).decode()
