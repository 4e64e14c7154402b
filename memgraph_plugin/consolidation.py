"""Consolidating a namespace in a store: the passes of `memalpha.consolidate`, a batch for each group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from langchain_core.language_models import BaseChatModel

from memgraph_plugin.errors import MemoryNotFound, VersionConflict
from memgraph_plugin.memalpha.consolidate import (
    ACTOR,
    HABITS,
    Group,
    Habits,
    Known,
    Summarise,
    decay,
    is_vague,
    merge,
    promote,
    summarise,
)
from memgraph_plugin.memalpha.form import FOUND
from memgraph_plugin.memalpha.promoted import promoted_in
from memgraph_plugin.prompts import SUMMARY_PROMPT, fill
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import (
    LoggedBatch,
    Memory,
    MemoryVersion,
    Namespace,
    Operation,
    Receipts,
)

MOST = 10_000
"""Memories that are looked at, and batches of the log: the newest, and those in the profile."""

NEIGHBOURS = 5
"""Memories that one of no known attribute is compared with."""

_AGAIN = "duplicate_of:"


@dataclass(frozen=True, slots=True)
class Done:
    """A group, and what became of it: `undo` takes its batch back. No receipts where nothing was written.

    `left`: why it was left alone; somebody has changed what it rests on.
    """

    operations: tuple[Operation, ...]
    receipts: Receipts | None = None
    left: str = ""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did, or would do, group by group."""

    name: str
    groups: tuple[Done, ...] = ()

    @property
    def operations(self) -> tuple[Operation, ...]:
        return tuple(operation for group in self.groups for operation in group.operations)


def consolidate(
    store: MemoryStore,
    namespace: Namespace,
    *,
    now: datetime | None = None,
    by: Summarise | None = None,
    habits: Habits = HABITS,
    dry_run: bool = False,
) -> list[Pass]:
    """Merge, promote, decay and summarise what a namespace remembers; a second time, nothing changes.

    Each group of a pass is one transaction, so that it can be stopped at any time, and run again. Where
    somebody changes, deletes or erases meanwhile what a group rests on, none of it is written. With a store
    whose native methods are async, call it in another thread than the loop's (`asyncio.to_thread`).

    Args:
        now: of which ages are counted; the clock's by default.
        by: words summaries; without it, events are told one after the other.
        dry_run: write nothing. Each pass then sees the memory as it is, not as the one before would leave it.

    Raises:
        StoreError: the store failed; groups that were done stay done.
    """
    moment = now or datetime.now(UTC)
    passes: dict[str, Callable[[list[Known]], list[Group]]] = {
        "merge": lambda known: merge(known, _cosines(store, namespace, known), habits=habits),
        "promote": lambda known: promote(known, habits=habits),
        "decay": lambda known: decay(known, moment, habits=habits),
        "summarise": lambda known: summarise(known, moment, by=by, habits=habits),
    }
    done = []
    for name, find in passes.items():
        groups = [
            Done(group.operations) if dry_run else _written(store, namespace, name, group)
            for group in find(known_in(store, namespace))
        ]
        done.append(Pass(name, tuple(groups)))
    return done


def _written(store: MemoryStore, namespace: Namespace, name: str, group: Group) -> Done:
    try:
        receipts = store.apply(namespace, group.operations, actor=ACTOR, policy=name, requires=group.requires)
    except (MemoryNotFound, VersionConflict) as error:
        return Done(group.operations, left=str(error))
    return Done(group.operations, receipts, "; ".join({each.reason for each in receipts.rejected}))


def known_in(store: MemoryStore, namespace: Namespace) -> list[Known]:
    """What a namespace remembers, with what its log says of it."""
    again: dict[str, list[datetime]] = defaultdict(list)
    for batch in store.log(namespace, limit=MOST):
        for key in _said_again(batch):
            again[key].append(batch.recorded_at)
    core = [hit.memory for hit in store.recall(namespace, "", k=MOST, kinds=("core",))]
    found = {hit.memory.key: hit.memory for hit in store.recall(namespace, "", k=MOST, kinds=FOUND)}
    # However old, what has a line in the profile: it would lose it.
    for key in {key for block in core for key in promoted_in(block)} - found.keys():
        if memory := _current(store, namespace, key):
            found[key] = memory
    memories = (*core, *found.values())
    return [_known(each, store.history(namespace, each.key), again[each.key]) for each in memories]


def _current(store: MemoryStore, namespace: Namespace, key: str) -> Memory | None:
    """The memory as it is now; None where it is gone, or has ended."""
    item = store.get(namespace, key, refresh_ttl=False)
    memory = store.history(namespace, key)[-1].memory if item else None
    return memory if memory and memory.valid_to is None else None


def _said_again(batch: LoggedBatch) -> list[str]:
    reasons = [each.reason for each in batch.receipts if each.operation == "noop"]
    return [reason.removeprefix(_AGAIN) for reason in reasons if reason.startswith(_AGAIN)]


def _known(memory: Memory, versions: Sequence[MemoryVersion], again: Sequence[datetime]) -> Known:
    # An undo of a consolidation says nothing anew: what it restores was said before.
    said = [each for each in versions if each.memory and each.actor != ACTOR and each.restores is None]
    newest = said[-1] if said else versions[-1]
    spoken = newest.memory or memory
    # Said as it stands: what was changed since is another fact.
    evidence = tuple(dict.fromkeys(key for version in versions for key in version.evidence))
    since = [version for version in versions if version.memory and version.memory.text == memory.text]
    turns = {key for version in since for key in version.evidence}
    times = [newest.recorded_at or datetime.now(UTC), *again]
    return Known(
        memory=memory,
        evidence=evidence,
        said=max(times),
        importance=spoken.importance,
        times=max(1, len(turns)) + len(again),
    )


def _cosines(store: MemoryStore, namespace: Namespace, known: Sequence[Known]) -> dict[frozenset[str], float]:
    """How near the memories of no known attribute are to each other, by pairs of keys."""
    found: dict[frozenset[str], float] = {}
    if store.embeddings is None:
        return found
    for memory in (each.memory for each in known if each.memory.kind != "core"):
        if is_vague(memory):
            hits = store.recall(namespace, memory.text, k=NEIGHBOURS, kinds=(memory.kind,))
            found |= {
                frozenset((memory.key, hit.memory.key)): hit.cosine
                for hit in hits
                if hit.memory.key != memory.key and hit.cosine is not None
            }
    return found


def summaries_of(model: BaseChatModel) -> Summarise:
    """Summaries by a chat model."""

    def say(events: Sequence[Memory]) -> str:
        told = "\n".join(f"- {event.valid_from:%Y-%m-%d}: {event.text}" for event in events)
        return model.invoke(fill(SUMMARY_PROMPT, events=told)).text

    return say
