"""The dicts behind the in-memory store: rows as they are now, every version of them, and who may be seen.

Not safe between threads by itself; the store holds its lock around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from langgraph.store.base import ListNamespacesOp, MatchCondition

from memgraph_plugin.store.entry import Entry, entry_of
from memgraph_plugin.store.exported import Exported, Logged, Versioned, history_digest
from memgraph_plugin.store.filters import matches
from memgraph_plugin.store.held import Quarantined
from memgraph_plugin.store.journal import Change, Line
from memgraph_plugin.store.spool import Spool, missing_batch
from memgraph_plugin.types import (
    Held,
    Imported,
    LoggedBatch,
    MemoryKind,
    MemoryVersion,
    Namespace,
    Receipt,
    Receipts,
)


class Table:
    """Entries by namespace and key, the versions of each key, and the log of each namespace."""

    def __init__(self) -> None:
        self._entries: dict[Namespace, dict[str, Entry]] = {}
        self._lines: dict[Namespace, dict[str, list[Line]]] = {}
        self._log: dict[Namespace, dict[str, Logged]] = {}  # by their ids, oldest first
        self._keyed: dict[tuple[Namespace, str | None], str] = {}  # ids by idempotency key
        self._expiring: dict[tuple[Namespace, str], datetime] = {}  # histories of what was deleted
        self._quarantine: dict[Namespace, dict[str, Held]] = {}  # by their ids, oldest first

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

    def log(self, logged: Logged) -> None:
        self._log.setdefault(logged.namespace, {})[logged.batch.batch_id] = logged
        if logged.idempotency_key is not None:
            self._keyed[logged.namespace, logged.idempotency_key] = logged.batch.batch_id

    def logged(self, namespace: Namespace) -> list[LoggedBatch]:
        """The batches of a namespace, oldest first."""
        return [logged.batch for logged in self._log.get(namespace, {}).values()]

    def replayed(self, namespace: Namespace, idempotency_key: str | None) -> Receipts | None:
        """What became of a batch with this key, if there was one."""
        batch_id = self._keyed.get((namespace, idempotency_key))
        if batch_id is None:
            return None
        return Receipts(batch_id, self._log[namespace][batch_id].batch.receipts, replayed=True)

    def hold(self, entry: Quarantined) -> None:
        self._quarantine.setdefault(entry.namespace, {})[entry.held.id] = entry.held

    def quarantined(self, namespace: Namespace) -> list[Held]:
        """What is held in a namespace, newest first."""
        return list(reversed(self._quarantine.get(namespace, {}).values()))

    def held(self, namespace: Namespace, id_: str) -> Held | None:
        return self._quarantine.get(namespace, {}).get(id_)

    def let_go(self, namespace: Namespace, id_: str) -> bool:
        """Hold something no more; False where it is not held."""
        return self._quarantine.get(namespace, {}).pop(id_, None) is not None

    def write(self, namespace: Namespace, version: MemoryVersion, entry: Entry | None) -> None:
        """Make `entry` the current one of its key, or have none there any more; either way, log it."""
        if entry is None:
            old = self._entries[namespace].pop(version.key)
            self._add(namespace, Line(version, expires_at=old.memory.expires_at), None)
        else:
            self._add(namespace, Line(version, entry.row.language, entry.row.ttl), entry)

    def _add(self, namespace: Namespace, line: Line, entry: Entry | None) -> None:
        key = line.version.key
        self._lines.setdefault(namespace, {}).setdefault(key, []).append(line)
        self._expiring.pop((namespace, key), None)
        if entry is not None:
            self._entries.setdefault(namespace, {})[key] = entry
        elif line.expires_at is not None:
            self._expiring[namespace, key] = line.expires_at

    def forget(self, prefix: Namespace) -> dict[str, int]:
        """Let go of everything in a namespace and below it; how much it was, by the names of the tables."""
        entries = [self._entries.pop(each) for each in self.below(prefix)]
        lines = [self._lines.pop(each) for each in [*self._lines] if _below(each, prefix)]
        batches = [self._log.pop(each) for each in [*self._log] if _below(each, prefix)]
        held = [self._quarantine.pop(each) for each in [*self._quarantine] if _below(each, prefix)]
        self._keyed = {name: each for name, each in self._keyed.items() if not _below(name[0], prefix)}
        self._expiring = {name: each for name, each in self._expiring.items() if not _below(name[0], prefix)}
        return {
            "memory": sum(map(len, entries)),
            "memory_version": sum(len(versions) for by_key in lines for versions in by_key.values()),
            "operation_batch": sum(map(len, batches)),
            "quarantine": sum(map(len, held)),
        }

    def exported(self, prefix: Namespace) -> list[Exported]:
        """Everything in a namespace and below it, in the order of an export."""
        found: list[Exported] = []
        for namespace in sorted((each for each in self._log if _below(each, prefix)), key=".".join):
            found.extend(logged for _, logged in sorted(self._log[namespace].items()))
        for namespace in sorted((each for each in self._quarantine if _below(each, prefix)), key=".".join):
            found.extend(
                Quarantined(namespace, held) for _, held in sorted(self._quarantine[namespace].items())
            )
        for namespace in sorted((each for each in self._lines if _below(each, prefix)), key=".".join):
            for key, lines in sorted(self._lines[namespace].items()):
                found.extend(_versioned(namespace, line) for line in lines)
                if entry := self.today(namespace, key):
                    change = Change(lines[-1].version, entry.row, entry.embedding)
                    found[-1] = replace(_versioned(namespace, lines[-1]), change=change)
        return found

    def restore(self, spooled: Spool) -> Imported:
        """Put in what is spooled, all of it or nothing.

        Raises:
            NamespaceTaken, InvalidExport: as `MemoryStore.import_` says.
        """
        here = {namespace for namespace in spooled.histories if namespace in self._log}
        for namespace in here:
            entries = (each for each in self.exported(namespace) if each.namespace == namespace)
            spooled.check_held(namespace, sum(map(history_digest, entries)))
        new = Table()
        counts = {"batches": 0, "versions": 0, "memories": 0, "held": 0, "skipped": 0}
        for entry in itertools.chain.from_iterable(spooled.chunks()):
            if entry.namespace in here:
                counts["skipped"] += 1
            elif isinstance(entry, Logged):
                counts["batches"] += 1
                new.log(entry)
            elif isinstance(entry, Quarantined):
                counts["held"] += 1
                new.hold(entry)
            else:
                counts["versions"] += 1
                counts["memories"] += entry.change.row is not None
                new._restore(entry)
        for namespace, logged in new._log.items():
            told = sorted(logged.items(), key=lambda item: item[1].batch.recorded_at)
            self._log[namespace] = dict(told)
        for namespace, waiting in new._quarantine.items():
            oldest_first = sorted(waiting.items(), key=lambda item: str(item[1].recorded_at))
            self._quarantine[namespace] = dict(oldest_first)
        self._entries |= new._entries
        self._lines |= new._lines
        self._keyed |= new._keyed
        self._expiring |= new._expiring
        return Imported(**counts, embedded=spooled.embedded)

    def _restore(self, entry: Versioned) -> None:
        change, namespace = entry.change, entry.namespace
        logged = self._log.get(namespace, {}).get(change.version.batch_id)
        if logged is None:
            raise missing_batch(namespace, change.version.key)
        version = replace(change.version, actor=logged.batch.actor, policy=logged.batch.policy)
        line = Line(version, entry.language, entry.ttl, change.expires_at)
        self._add(namespace, line, entry_of(change.row, change.embedding) if change.row else None)

    def refresh(self, entry: Entry, now: datetime) -> None:
        """Let what was read live as long again as it was meant to, where that was said."""
        if entry.row.ttl is not None:
            memory = replace(entry.memory, expires_at=now + timedelta(minutes=entry.row.ttl))
            self._entries[memory.namespace][memory.key] = replace(
                entry, row=replace(entry.row, memory=memory)
            )

    def sweep(self, now: datetime) -> int:
        """Let go of what has expired, with its history: how many entries."""
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
            for batch_id, logged in self._log[namespace].items():
                receipts = _without_reasons(logged.batch.receipts, keys)
                self._log[namespace][batch_id] = replace(
                    logged, batch=replace(logged.batch, receipts=receipts)
                )
        return len(expired)

    def keys(self, namespace: Namespace, now: datetime) -> list[str]:
        """The keys of the entries of a namespace that may be seen, in order."""
        return sorted(key for key, entry in self._entries[namespace].items() if not entry.expired(now))

    def below(self, prefix: Namespace) -> list[Namespace]:
        """The namespaces whose first labels are `prefix`."""
        return [namespace for namespace in self._entries if _below(namespace, prefix)]

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


def _below(namespace: Namespace, prefix: Namespace) -> bool:
    return namespace[: len(prefix)] == tuple(prefix)


def _versioned(namespace: Namespace, line: Line) -> Versioned:
    return Versioned(namespace, Change(line.version, expires_at=line.expires_at), line.language, line.ttl)


def _without_reasons(receipts: Iterable[Receipt], keys: Container[str | None]) -> tuple[Receipt, ...]:
    """The receipts, without what was said of memories that are gone for good."""
    return tuple(replace(each, reason="") if each.key in keys else each for each in receipts)


def _fits(condition: MatchCondition, namespace: Namespace) -> bool:
    depth = len(condition.path)
    labels = namespace[:depth] if condition.match_type == "prefix" else namespace[len(namespace) - depth :]
    return len(namespace) >= depth and all(
        pattern in ("*", label) for pattern, label in zip(condition.path, labels, strict=True)
    )
