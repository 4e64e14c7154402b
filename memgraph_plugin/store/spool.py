"""An export on its way into a store: checked to its end, and kept on disk, before anything is written."""

from __future__ import annotations

import asyncio
import tempfile
from array import array
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Self, TypeVar

from memgraph_plugin.errors import InvalidExport, NamespaceTaken
from memgraph_plugin.store.exported import Exported, Header, Versioned, history_digest
from memgraph_plugin.store.imported import Reader
from memgraph_plugin.types import Namespace

T = TypeVar("T")

TEXTS = 64
"""Texts in one call of the embedding model."""

ENTRIES = 500
"""Entries that are written together."""

SIZE = 2**256
"""What histories are counted modulo."""


def spool(lines: Iterable[str]) -> Spool:
    """All lines, checked; to be closed.

    Raises:
        InvalidExport: they are no export, or not a whole one.
    """
    spool = Spool()
    try:
        for line in lines:
            spool.add(line)
        spool.finish()
    except BaseException:
        spool.close()
        raise
    return spool


async def aspool(lines: Iterable[str] | AsyncIterable[str]) -> Spool:
    """`spool`, also of lines that come asynchronously."""
    if not isinstance(lines, AsyncIterable):
        return await asyncio.to_thread(spool, lines)
    filled = Spool()
    try:
        async for line in lines:
            filled.add(line)
        filled.finish()
    except BaseException:
        filled.close()
        raise
    return filled


class Spool:
    """The lines in a temporary file, which can be read again, and the vectors made for them in another."""

    def __init__(self) -> None:
        self.histories: dict[Namespace, int] = {}
        """What each namespace's history comes to, see `history_digest`."""
        self.embedded = 0
        self._reader = Reader()
        self._lines = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed by `close`
        self._vectors = tempfile.TemporaryFile()  # noqa: SIM115
        self._model: tuple[str, int] | None = None
        self._lacking = False

    @property
    def header(self) -> Header:
        assert self._reader.header is not None  # noqa: S101 - `finish` has seen to it
        return self._reader.header

    def add(self, line: str) -> None:
        """Check a line, and keep it."""
        entry = self._reader.read(line)
        if entry is not None:
            known = self.histories.get(entry.namespace, 0)
            self.histories[entry.namespace] = (known + history_digest(entry)) % SIZE
            if _text(entry).strip() and isinstance(entry, Versioned) and entry.change.embedding is None:
                self._lacking = True
        self._lines.write(line.rstrip("\r\n") + "\n")

    def finish(self) -> None:
        self._reader.finish()

    def texts_to_embed(self, model: tuple[str, int] | None) -> Iterator[list[str]]:
        """The texts that need a vector by this model, some at a time; `add_vectors` after each.

        A store without a model needs none, and takes none.
        """
        self._model, self.embedded = model, 0
        if model is None or (model == self.header.model and not self._lacking):
            return
        for page in _pages((entry for entry in self._read() if self._needed(entry)), TEXTS):
            yield [_text(entry) for entry in page]

    def add_vectors(self, texts: Sequence[str], vectors: Mapping[str, Sequence[float]]) -> None:
        for text in texts:
            self._vectors.write(array("f", vectors[text]).tobytes())
        self.embedded += len(texts)

    def chunks(self) -> Iterator[list[Exported]]:
        """Everything, in order, some at a time, with the vectors of that model."""
        self._vectors.seek(0)
        return _pages(map(self._with_vector, self._read()), ENTRIES)

    def check_held(self, namespace: Namespace, history: int) -> None:
        """Refuse to mix a namespace with what is there, whose history comes to `history`.

        Raises:
            NamespaceTaken: it is another one.
        """
        if self.histories[namespace] != history % SIZE:
            raise NamespaceTaken(
                f"The namespace {'.'.join(namespace)!r} holds other memories already, and memories are not "
                "mixed: forget it, or import into another database or schema. Nothing was imported."
            )

    def close(self) -> None:
        self._lines.close()
        self._vectors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lines(self) -> Iterator[str]:
        self._lines.seek(0)
        return iter(self._lines)

    def _read(self) -> Iterator[Exported]:
        reader = Reader()
        yield from (entry for line in self.lines() if (entry := reader.read(line)))

    def _needed(self, entry: Exported) -> bool:
        if self._model is None or not _text(entry).strip():
            return False
        return self._vector(entry) is None

    def _vector(self, entry: Exported) -> Sequence[float] | None:
        """The vector that came with it, if that is one of this model."""
        if not isinstance(entry, Versioned) or self._model is None or self.header.model != self._model:
            return None
        vector = entry.change.embedding
        return vector if vector is not None and len(vector) == self._model[1] else None

    def _with_vector(self, entry: Exported) -> Exported:
        if not isinstance(entry, Versioned):
            return entry
        vector = self._vector(entry)
        if self._model is not None and self._needed(entry):
            vector = array("f")
            vector.frombytes(self._vectors.read(4 * self._model[1]))
        return replace(entry, change=replace(entry.change, embedding=vector))


def missing_batch(namespace: Namespace, key: str) -> InvalidExport:
    name = ".".join(namespace)
    return InvalidExport(f"A version of {key!r} in {name!r} lacks its batch. Nothing was imported.")


def _text(entry: Exported) -> str:
    """What there is to be found by, of a memory as it is now."""
    return entry.change.row.memory.text if isinstance(entry, Versioned) and entry.change.row else ""


def _pages(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(entries)
    while page := list(islice(rest, size)):
        yield page
