"""A memory on two axes: the world's (when it was so) and the system's (when we knew it). Pure.

The log has every version in the order in which it became known. Read up to a moment, it says what was
believed then about all of time: a *chain* of versions, each so from its `valid_from` until its `valid_to`, or
until the next one begins if that is earlier.

    insert      begins a new chain
    supersede   puts a link at the end: what was so before stays so, until the new one begins
    correct,    put another link in place of the last: it never was as the last one said
    refine
    delete      leaves none: nothing is so, and nothing was
    undo        goes back to the chain as it was, whole

Valid and transaction time as in R. T. Snodgrass, "Developing Time-Oriented Database
Applications in SQL" (2000).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from memgraph_plugin.errors import BatchNotFound
from memgraph_plugin.store.filters import matches
from memgraph_plugin.store.journal import Line, Row, Undo, expired
from memgraph_plugin.types import LoggedBatch, Memory, MemoryKind, MemoryVersion, Receipt

ALWAYS = datetime.min.replace(tzinfo=UTC)


class Moment(NamedTuple):
    """A point on both axes, asked about at `now`. None: as of now, with all that is known."""

    now: datetime
    valid_at: datetime | None = None
    known_at: datetime | None = None


class _Link(NamedTuple):
    line: MemoryVersion
    memory: Memory
    before: _Link | None


class _Span(NamedTuple):
    version: int
    memory: Memory
    since: datetime
    until: datetime | None
    superseded_by: int | None


def believed(
    histories: Iterable[Sequence[Line]],
    moment: Moment,
    *,
    kinds: Sequence[MemoryKind] | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - LangGraph's name
    language: str = "english",
) -> list[Row]:
    """What was so at a moment, as far as was known: at most one memory a history, the last told first.

    A memory has the content of its version and the `valid_to` that it was believed to have.

    Args:
        histories: of each key, its versions, oldest first.
        language: of texts from before the log noted it.
    """
    if filter:
        matches(filter, {})  # refuses a filter that cannot work, also where there is nothing to filter
    found = [
        row
        for lines in histories
        if (row := _believed(lines, moment, language))
        and (kinds is None or row.memory.kind in kinds)
        and (not filter or matches(filter, row.memory.value))
    ]
    found.sort(key=lambda row: row.memory.key)
    found.sort(key=lambda row: row.memory.updated_at or ALWAYS, reverse=True)
    return found


def _believed(lines: Sequence[Line], moment: Moment, language: str) -> Row | None:
    now, known_at = moment.now, moment.known_at
    known = [line for line in lines if known_at is None or _recorded(line.version) <= known_at]
    newest = known[-1].version.memory if known else None
    # A time to live is on the system's axis: it is asked whether it was up when this was known.
    if newest is None or expired(newest, min(known_at or now, now)):
        return None
    valid_at = moment.valid_at or now
    for span in _spans(_chains([line.version for line in known])[-1]):
        if span.since <= valid_at and (span.until is None or valid_at < span.until):
            line = next(line for line in known if line.version.version == span.version)
            memory = span.memory
            if memory.valid_to != span.until:
                memory = replace(memory, valid_to=span.until)
            return Row(memory, line.language or language, line.ttl)
    return None


def history_of(versions: Sequence[MemoryVersion]) -> list[MemoryVersion]:
    """The versions of one memory as a reader is shown them: with what superseded each, and when.

    What was deleted shows what was known of it before; what was corrected shows what it said itself.
    """
    chains = _chains(versions)
    shown: dict[int, _Span] = {}
    for chain, after in zip(chains, [*versions[1:], None], strict=True):
        if after is None or (after.operation != "update" and after.restores is None):
            shown |= {span.version: span for span in _spans(chain)}
    lines = []
    for version, chain in zip(versions, chains, strict=True):
        line = replace(version, memory=chain.memory if chain else None)
        span = shown.get(line.version)
        if span and span.superseded_by is not None:
            # One that another took the place of from its very beginning was so for no time.
            until = max(span.until or span.since, span.since)
            line = replace(
                line, memory=replace(span.memory, valid_to=until), superseded_by=span.superseded_by
            )
        lines.append(line)
    return lines


def replay(versions: Sequence[MemoryVersion]) -> Memory | None:
    """The log of one memory, played from its beginning: how it must stand now; None where it is gone.

    How far reading prolonged a time to live is not in the log.

    Raises:
        ValueError: no store can have written this: a gap, a clock that went back, an update or a deletion of
            nothing, an insertion over something.
    """
    there: Memory | None = None
    clock = ALWAYS
    for number, version in enumerate(versions, 1):
        when = _recorded(version)
        if version.operation == "insert" and there is not None and expired(there, when):
            there = None
        if version.version != number or when < clock or (there is None) != (version.operation == "insert"):
            raise ValueError(f"{version.key!r}, line {number}: {version.operation} to {version.version}.")
        there, clock = version.memory, when
    last = _chains(versions)[-1] if versions else None
    return last.memory if last else None


def checked_batch_id(batch_id: str) -> str:
    """A batch's id, which is a UUID.

    Raises:
        BatchNotFound: no batch can have this one.
    """
    try:
        return str(uuid.UUID(batch_id))
    except (ValueError, AttributeError, TypeError):
        raise BatchNotFound(f"{batch_id!r:.80} is no batch id; `log` lists them.") from None


def undoing(batch: LoggedBatch, histories: Mapping[str, Sequence[Line]]) -> list[Undo]:
    """What takes back all that a batch did, given the histories of the keys that its receipts name."""
    return [
        _inverse(batch.batch_id, receipt, histories.get(receipt.key, ()))
        for receipt in batch.applied
        if receipt.key is not None
    ]


def _inverse(batch_id: str, receipt: Receipt, lines: Sequence[Line]) -> Undo:
    done = "insert" if receipt.operation == "noop" else receipt.operation  # no-ops are never applied
    undo = Undo(key=receipt.key or "", undone=done, reason=f"undo of {batch_id}")
    places = {line.version.version: place for place, line in enumerate(lines)}
    place = places.get(receipt.version or 0)
    # Where the version is another batch's, the key was let go with its history, and begun anew.
    if place is None or lines[place].version.batch_id != batch_id:
        return undo
    made = lines[place].version
    undo = replace(undo, version=made.version)
    before = _chains([line.version for line in lines[:place]])[-1] if place else None
    if made.operation == "insert" or before is None:
        return undo
    past, memory = lines[place - 1], before.memory
    if past.ttl is not None and memory.expires_at is not None:
        # It was alive when the batch came; how far reading had prolonged its life, the log does not say.
        prolonged = _recorded(made) + timedelta(minutes=past.ttl)
        memory = replace(memory, expires_at=max(memory.expires_at, prolonged))
    return replace(undo, past=memory, language=past.language, ttl=past.ttl)


def _chains(versions: Sequence[MemoryVersion]) -> list[_Link | None]:
    """The chain after each version, its last link first."""
    chains: list[_Link | None] = []
    by_version: dict[int, _Link | None] = {}
    chain: _Link | None = None
    for line in versions:
        if line.memory is None:
            chain = None
        else:
            origin = by_version.get(line.restores) if line.restores is not None else chain
            created_at = origin.memory.created_at if origin else line.recorded_at
            before = origin.before if origin else None
            if line.restores is None:
                if line.operation == "insert":
                    created_at, before = line.recorded_at, None
                elif line.mode == "supersede":
                    before = chain
            memory = line.memory
            if memory.created_at != created_at:
                memory = replace(memory, created_at=created_at)
            chain = _Link(line, memory, before)
        by_version[line.version] = chain
        chains.append(chain)
    return chains


def _spans(chain: _Link | None) -> Iterator[_Span]:
    """When each version of a chain was so, the last first; for no time where `until` is not after `since`."""
    begins: datetime | None = None
    by: int | None = None
    while chain:
        memory = chain.memory
        until = min((end for end in (memory.valid_to, begins) if end is not None), default=None)
        since = memory.valid_from
        if since is None:
            # So since when is not known: from when it was told, or always, where it was over by then.
            told = memory.created_at or ALWAYS
            since = told if until is None or told < until else ALWAYS
        yield _Span(chain.line.version, memory, since, until, by)
        begins = since if begins is None else min(since, begins)
        by = chain.line.version
        chain = chain.before


def _recorded(version: MemoryVersion) -> datetime:
    return version.recorded_at or ALWAYS
