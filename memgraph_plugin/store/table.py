"""The dicts behind the in-memory store: rows as they are now, every version of them, and who may be seen.

Not safe between threads by itself; the store holds its lock around it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from langgraph.store.base import ListNamespacesOp, MatchCondition

from memgraph_plugin.store.filters import matches
from memgraph_plugin.store.journal import Row
from memgraph_plugin.types import Memory, MemoryKind, MemoryVersion, Namespace


@dataclass(frozen=True, slots=True)
class Entry:
    """A row, and what search reads of it: its lexemes, and its vector of length 1."""

    row: Row
    terms: Counter[str]
    embedding: Sequence[float] | None

    @property
    def memory(self) -> Memory:
        return self.row.memory

    def expired(self, now: datetime) -> bool:
        return self.memory.expires_at is not None and self.memory.expires_at <= now


class Table:
    """Entries by namespace and key, and the versions of each key."""

    def __init__(self) -> None:
        self._entries: dict[Namespace, dict[str, Entry]] = {}
        self._versions: dict[tuple[Namespace, str], list[MemoryVersion]] = {}
        self._expiring: dict[tuple[Namespace, str], datetime] = {}  # histories of what was deleted

    def get(self, namespace: Namespace, key: str, now: datetime) -> Entry | None:
        """The entry under a key, unless it has expired."""
        entry = self._entries.get(namespace, {}).get(key)
        return None if entry is None or entry.expired(now) else entry

    def versions(self, namespace: Namespace, key: str) -> Sequence[MemoryVersion]:
        return self._versions.get((namespace, key), ())

    def write(self, namespace: Namespace, version: MemoryVersion, entry: Entry | None) -> None:
        """Make `entry` the current one of its key, or have none there any more; either way, log it."""
        self._versions.setdefault((namespace, version.key), []).append(version)
        self._expiring.pop((namespace, version.key), None)
        if entry is None:
            old = self._entries[namespace].pop(version.key)
            if old.memory.expires_at is not None:
                self._expiring[namespace, version.key] = old.memory.expires_at
        else:
            self._entries.setdefault(namespace, {})[version.key] = entry

    def refresh(self, entry: Entry, now: datetime) -> None:
        """Let what was read live as long again as it was meant to, where that was said."""
        if entry.row.ttl is not None:
            memory = replace(entry.memory, expires_at=now + timedelta(minutes=entry.row.ttl))
            self._entries[memory.namespace][memory.key] = replace(
                entry, row=replace(entry.row, memory=memory)
            )

    def sweep(self, now: datetime) -> tuple[int, set[tuple[Namespace, str]]]:
        """Let go of what has expired, with its history: how many entries, and whose histories went."""
        expired = {
            (namespace, key)
            for namespace, entries in self._entries.items()
            for key, entry in entries.items()
            if entry.expired(now)
        }
        for namespace, key in expired:
            del self._entries[namespace][key]
        gone = expired | {name for name, moment in self._expiring.items() if moment <= now}
        for name in gone:
            self._versions.pop(name, None)
            self._expiring.pop(name, None)
        return len(expired), gone

    def keys(self, namespace: Namespace, now: datetime) -> list[str]:
        """The keys of the entries of a namespace that may be seen, in order."""
        return sorted(key for key, entry in self._entries[namespace].items() if not entry.expired(now))

    def below(self, prefix: Namespace) -> list[Namespace]:
        """The namespaces whose first labels are `prefix`."""
        return [namespace for namespace in self._entries if namespace[: len(prefix)] == tuple(prefix)]

    def newest(
        self,
        namespaces: Iterable[Namespace],
        now: datetime,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        kinds: Sequence[MemoryKind] | None = None,
    ) -> list[Entry]:
        """The entries of these namespaces that may be seen, last changed first."""
        if filter:
            matches(filter, {})  # refuses a filter that cannot work, also where there is nothing to filter
        entries = [
            entry
            for namespace in namespaces
            for entry in self._entries.get(namespace, {}).values()
            if not entry.expired(now)
            and (kinds is None or entry.memory.kind in kinds)
            and (not filter or matches(filter, entry.memory.value))
        ]
        entries.sort(key=lambda entry: (".".join(entry.memory.namespace), entry.memory.key))
        entries.sort(key=lambda entry: entry.memory.updated_at or now, reverse=True)
        return entries

    def namespaces(self, op: ListNamespacesOp, now: datetime) -> list[Namespace]:
        """LangGraph's `list_namespaces`: those with an entry that may be seen, in alphabetical order."""
        found = {
            namespace[: op.max_depth]
            for namespace, entries in self._entries.items()
            if all(_fits(condition, namespace) for condition in op.match_conditions or ())
            and not all(entry.expired(now) for entry in entries.values())
        }
        return sorted(found)[op.offset : op.offset + op.limit]


def _fits(condition: MatchCondition, namespace: Namespace) -> bool:
    depth = len(condition.path)
    labels = namespace[:depth] if condition.match_type == "prefix" else namespace[len(namespace) - depth :]
    return len(namespace) >= depth and all(
        pattern in ("*", label) for pattern, label in zip(condition.path, labels, strict=True)
    )
