"""A row and what search reads of it, and how rows are ranked where no database does it. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import mul

from memgraph_plugin.store.journal import Row
from memgraph_plugin.store.ranking import QUESTION_CHARACTERS, bm25, fuse, lexemes, unit
from memgraph_plugin.types import Hit, Memory


@dataclass(frozen=True, slots=True)
class Entry:
    """A row, its lexemes, and its vector of length 1."""

    row: Row
    terms: Counter[str]
    embedding: Sequence[float] | None

    @property
    def memory(self) -> Memory:
        return self.row.memory

    def hidden(self, now: datetime) -> bool:
        """Whether search passes it over: it has expired, or is no longer so."""
        ended = self.memory.valid_to is not None and self.memory.valid_to <= now
        return ended or self.expired(now)

    def expired(self, now: datetime) -> bool:
        return self.memory.expires_at is not None and self.memory.expires_at <= now


def entry_of(row: Row, vector: Sequence[float] | None) -> Entry:
    """The row, read for search."""
    return Entry(row, Counter(lexemes(row.memory.text, row.language)), _compact(vector))


def unembedded(entries: Iterable[Entry]) -> list[str]:
    """The texts that have no vector, each once."""
    texts = (entry.memory.text for entry in entries if entry.embedding is None)
    return list(dict.fromkeys(text for text in texts if text.strip()))


def embedded(entries: Iterable[Entry], vectors: Mapping[str, Sequence[float]]) -> list[Entry]:
    """The entries, with these vectors by their texts where they had none."""
    return [
        replace(entry, embedding=_compact(vectors.get(entry.memory.text)))
        if entry.embedding is None
        else entry
        for entry in entries
    ]


def cosine(towards: Sequence[float] | None, entry: Entry) -> float | None:
    """Of an entry and a vector of length 1; None where there is none."""
    return sum(map(mul, towards, entry.embedding)) if towards and entry.embedding else None


def nearest(entries: Iterable[Entry], towards: Sequence[float]) -> list[tuple[Entry, Hit]]:
    """The entries that have a vector, the nearest first."""
    cosines = ((entry, cosine(towards, entry)) for entry in entries)
    found = [(entry, Hit(entry.memory, near, near)) for entry, near in cosines if near is not None]
    return sorted(
        found, key=lambda pair: (-pair[1].score, ".".join(pair[0].memory.namespace), pair[0].memory.key)
    )


def ranked(
    entries: Sequence[Entry], cosines: Sequence[float | None], query: str, language: str
) -> list[tuple[Entry, Hit]]:
    """The entries that answer a query, best first; without a query all of them, as they come."""
    if not query.strip():
        return [(entry, Hit(entry.memory, 0.0)) for entry in entries]
    # What has no text is not to be found.
    kept = [(entry, near) for entry, near in zip(entries, cosines, strict=True) if entry.memory.text]
    words = bm25(lexemes(query[:QUESTION_CHARACTERS], language), [entry.terms for entry, _ in kept])
    memories = [entry.memory for entry, _ in kept]
    sessions = [None if memory.session is None else (memory.namespace, memory.session) for memory in memories]
    scores = fuse([near for _, near in kept], words, sessions, [memory.position for memory in memories])
    found = [
        (entry, Hit(entry.memory, score, near, word or None))
        for (entry, near), score, word in zip(kept, scores, words, strict=True)
        # Without a vector, it takes a word of the query, or a neighbour that has one.
        if near is not None or word or score > 0
    ]
    return sorted(found, key=lambda pair: (-pair[1].score, pair[1].memory.key))


def _compact(vector: Sequence[float] | None) -> Sequence[float] | None:
    """At length 1, in single precision; None where it points nowhere."""
    towards = None if vector is None else unit(vector)
    return None if towards is None else array("f", towards)
