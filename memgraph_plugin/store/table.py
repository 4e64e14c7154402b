"""The dicts behind the in-memory store: rows as they are now, every version of them, and who may be seen.

Not safe between threads by itself; the store holds its lock around it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from langgraph.store.base import ListNamespacesOp, MatchCondition

from memgraph_plugin.store.entry import Entry
from memgraph_plugin.store.filters import matches
from memgraph_plugin.store.journal import Line
from memgraph_plugin.types import LoggedBatch, MemoryKind, MemoryVersion, Namespace, Receipt


class Table:
    """Entries by namespace and key, the versions of each key, and the log of each namespace."""

    def __init__(self) -> None:
        self._entries: dict[Namespace, dict[str, Entry]] = {}
        self._lines: dict[Namespace, dict[str, list[Line]]] = {}
        self._log: dict[Namespace, list[LoggedBatch]] = {}
        self._expiring: dict[tuple[Namespace, str], datetime] = {}  # histories of what was deleted

    def get(self, namespace: Namespace, key: str, now: datetime) -> Entry | None:
        """The entry under a key, unless it has expired."""
        entry = self.today(namespace, key)
        return None if entry is None or entry.expired(now) else entry

    def today(self, namespace: Namespace, key: str) -> Entry | None:
        """The entry under a key, expired or not."""
        return self._entries.get(namespace, {}).get(key)

    def lines(self, namespace: Namespace, key: str) -> Sequence[Line]:
        """Every version of a key, oldest first."""
        return self._lines.get(namespace, {}).get(key, ())

    def newest_version(self, namespace: Namespace, key: str) -> int:
        """The number of a key's newest version, also of one that is gone; 0 where there never was one."""
        lines = self.lines(namespace, key)
        return lines[-1].version.version if lines else 0

    def histories(self, namespace: Namespace) -> Iterator[list[Line]]:
        """The versions of each key; the newest expires when its entry does, since reading prolongs that."""
        for key, lines in self._lines.get(namespace, {}).items():
            entry, last = self.today(namespace, key), lines[-1]
            if entry is not None:
                last = replace(last, version=replace(last.version, memory=entry.memory))
            yield [*lines[:-1], last]

    def log(self, namespace: Namespace, batch: LoggedBatch) -> None:
        self._log.setdefault(namespace, []).append(batch)

    def logged(self, namespace: Namespace) -> Sequence[LoggedBatch]:
        """The batches of a namespace, oldest first."""
        return self._log.get(namespace, ())

    def write(self, namespace: Namespace, version: MemoryVersion, entry: Entry | None) -> None:
        """Make `entry` the current one of its key, or have none there any more; either way, log it."""
        line = Line(version, entry.row.language, entry.row.ttl) if entry else Line(version)
        self._lines.setdefault(namespace, {}).setdefault(version.key, []).append(line)
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
        for namespace, key in gone:
            self._lines.get(namespace, {}).pop(key, None)
            self._expiring.pop((namespace, key), None)
        for namespace in {namespace for namespace, _ in gone}:
            keys = {key for space, key in gone if space == namespace}
            self._log[namespace] = [
                replace(batch, receipts=without_reasons(batch.receipts, keys))
                for batch in self.logged(namespace)
            ]
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
            if not entry.hidden(now)
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


def without_reasons(receipts: Iterable[Receipt], keys: Container[str | None]) -> tuple[Receipt, ...]:
    """The receipts, without what was said of memories that are gone for good."""
    return tuple(replace(each, reason="") if each.key in keys else each for each in receipts)


def _fits(condition: MatchCondition, namespace: Namespace) -> bool:
    depth = len(condition.path)
    labels = namespace[:depth] if condition.match_type == "prefix" else namespace[len(namespace) - depth :]
    return len(namespace) >= depth and all(
        pattern in ("*", label) for pattern, label in zip(condition.path, labels, strict=True)
    )
