"""Compressed memories of the store without a database."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from memgraph_plugin.store.compressed_base import CompressedStore
from memgraph_plugin.store.parts import (
    check_fits,
    check_place,
    check_save,
    checked_window,
    present,
    spans,
)
from memgraph_plugin.store.storable import check_prefix
from memgraph_plugin.types import KVRecord, Namespace

Compressed = dict[tuple[Namespace, str], tuple[KVRecord, tuple[bytes, ...]]]
"""Records and windows, by namespace and key."""


class InMemoryCompressed(CompressedStore):
    """What the in-memory store does of it."""

    _lock: threading.RLock
    _compressed: Compressed

    def save_kv(
        self,
        namespace: Namespace,
        key: str,
        header: Mapping[str, Any],
        parts: Iterable[bytes],
        *,
        after: int = 0,
        version: int | None = None,
    ) -> KVRecord:
        header = check_save(namespace, key, header, after, version)
        check_fits(self.load_kv(namespace, key), key, after, version)
        new = tuple(checked_window(part, number) for number, part in enumerate(parts))
        with self._lock:
            found, kept = self._compressed.get((namespace, key), (None, ()))
            check_fits(found, key, after, version)
            windows = (*kept, *new) if after else new
            record = KVRecord(
                namespace=namespace,
                key=key,
                header=header,
                version=found.version + 1 if found else time.time_ns() // 1_000_000,
                windows=len(windows),
                bytes=sum(map(len, windows)),
                updated_at=datetime.now(UTC),
            )
            self._compressed[namespace, key] = (record, windows)
        return _copied(record)

    def load_kv(self, namespace: Namespace, key: str) -> KVRecord | None:
        check_place(namespace, key)
        with self._lock:
            found = self._compressed.get((namespace, key))
        return _copied(found[0]) if found else None

    def kv_parts(self, namespace: Namespace, key: str, *, version: int | None = None) -> Iterator[bytes]:
        check_place(namespace, key)
        with self._lock:
            found, windows = self._compressed.get((namespace, key), (None, ()))
        present(found, key, version)
        yield from windows

    def list_kv(self, namespace: Namespace = ()) -> list[KVRecord]:
        check_prefix(namespace)
        with self._lock:
            found = [self._compressed[each][0] for each in self._kv_below(namespace)]
        return [_copied(record) for record in sorted(found, key=lambda r: (".".join(r.namespace), r.key))]

    def delete_kv(self, namespace: Namespace, key: str) -> bool:
        check_place(namespace, key)
        with self._lock:
            return self._compressed.pop((namespace, key), None) is not None

    def _delete_kv_below(self, prefix: Namespace) -> dict[str, int]:
        """Let go of those in a namespace and below it; how much it was, by the names of the tables."""
        gone = [self._compressed.pop(each) for each in self._kv_below(prefix)]
        parts = sum(len(list(spans(len(window), sealed=False))) for _, windows in gone for window in windows)
        return {"kv_memory": len(gone), "kv_part": parts}

    def _kv_below(self, prefix: Namespace) -> list[tuple[Namespace, str]]:
        return [each for each in self._compressed if each[0][: len(prefix)] == prefix]


def _copied(record: KVRecord) -> KVRecord:
    return replace(record, header=copy.deepcopy(dict(record.header)))
