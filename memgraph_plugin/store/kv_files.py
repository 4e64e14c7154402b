"""Where the bytes of compressed memories are, beside the database: large ones' files, and spools."""

from __future__ import annotations

import os
import re
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from memgraph_plugin.errors import StoreError
from memgraph_plugin.store.parts import SIZE, Cutter, Part, checked_window

_NAME = re.compile(r"[0-9a-f]{32}\.kv")
_OURS = re.compile(rf"{_NAME.pattern}|tmp\w{{8}}\.tmp")

SETTLED = 24 * 60 * 60
"""Seconds after which nobody is still writing a file."""


@dataclass(frozen=True)
class KVFiles:
    """A directory for what is large: windows that make a memory larger than `past` bytes are in files there.

    Every process that reads these memories needs the directory. Its files are named at random, readable for
    their owner alone, and removed with the memory: whoever is reading it then gets an error. What a killed
    process was writing may be left, as *.tmp, or as a file that no row of `kv_part` names: see
    `maintenance.unnamed`.
    """

    directory: Path
    past: int = 256 * 1024 * 1024

    def read(self, part: Part) -> bytes:
        """The bytes of a part.

        Raises:
            StoreError: there is no such file.
        """
        path = self._path(part.file or "")
        with _told("A compressed memory cannot be read"), path.open("rb") as file:
            file.seek(part.place)
            return file.read(part.size)

    def new(self) -> Path:
        """The path of a file that there is not yet."""
        return self.directory / f"{uuid.uuid4().hex}.kv"

    def remove(self, names: Iterable[str]) -> list[str]:
        """Remove files; the names of those that are left, each with why."""
        left = []
        for name in names:
            try:
                self._path(name).unlink(missing_ok=True)
            except (OSError, StoreError) as error:
                left.append(f"{name} ({error})")
        return left

    def settled(self) -> list[Path]:
        """Our files, spools too, that were last written a day ago or before."""
        if not self.directory.is_dir():
            return []
        before = time.time() - SETTLED
        ours = (path for path in self.directory.iterdir() if _OURS.fullmatch(path.name))
        return sorted(path for path in ours if path.is_file() and path.stat().st_mtime < before)

    def _path(self, name: str) -> Path:
        # Whoever can write to the table must not have us read, or remove, whatever they name.
        if not _NAME.fullmatch(name):
            raise StoreError(f"A compressed memory names a file {name!r:.80}, which is none of ours.")
        return self.directory / name


def read_part(files: KVFiles | None, part: Part) -> bytes:
    """The bytes of a part that is in a file.

    Raises:
        StoreError: there is no such file, or nobody said where files are.
    """
    if files is None:
        raise StoreError(f"A compressed memory is in the file {part.file}: give the store its kv_files.")
    return files.read(part)


def remove(files: KVFiles | None, names: Iterable[str]) -> list[str]:
    """The files among these that are left: all of them where nobody said which directory they are in."""
    return files.remove(names) if files else [f"{name} (the store was given no kv_files)" for name in names]


def discard(path: Path) -> None:
    """Remove a file that nothing needs, if it is there."""
    with _told("A compressed memory was not saved, and its file is left"):
        path.unlink(missing_ok=True)


def left_behind(left: list[str]) -> StoreError:
    """What to say of files that could not be removed."""
    return StoreError(
        f"The database holds nothing of it any more, but {len(left)} of its files are left, which are to be "
        f"removed by hand: {', '.join(left)}."
    )


class Spool:
    """The parts of windows, as they are to be stored, in a file: until all are there, nothing is written.

    So no transaction is open while they are made, it can be run again, and it is known how large they are.
    """

    def __init__(self, cutter: Cutter, files: KVFiles | None) -> None:
        self.parts: list[Part] = []
        self._cutter = cutter
        self._path: Path | None = None
        with _told("A compressed memory cannot be spooled"):
            if files is None:
                self._file: IO[bytes] = tempfile.SpooledTemporaryFile(SIZE)  # noqa: SIM115 - closed by `close`
            else:
                files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                    dir=files.directory, suffix=".tmp", delete=False
                )
                self._path = Path(self._file.name)
                weakref.finalize(self, self._path.unlink, missing_ok=True)

    @property
    def windows(self) -> int:
        return self._cutter.windows

    @property
    def size(self) -> int:
        """Bytes of all windows, before they were sealed."""
        return self._cutter.bytes

    def add(self, window: bytes) -> None:
        for part, stored in self._cutter.cut(window):
            with _told("A compressed memory cannot be spooled"):
                self._file.write(stored)
            self.parts.append(part)

    def read(self, part: Part) -> bytes:
        with _told("A compressed memory's spool cannot be read"):
            self._file.seek(part.place)
            return self._file.read(part.size)

    def keep(self, path: Path) -> None:
        """Have the parts in a file of this name, on disk for good."""
        with _told("A compressed memory cannot be written"):
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._file.name, path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def close(self) -> None:
        self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spool(windows: Iterable[bytes], cutter: Cutter, files: KVFiles | None) -> Spool:
    """All windows, cut into parts; to be closed.

    Raises:
        InvalidValue: a window is no bytes.
        StoreError: the disk is full, or may not be written.
    """
    filled = Spool(cutter, files)
    try:
        for window in windows:
            filled.add(checked_window(window, cutter.windows))
    except BaseException:
        filled.close()
        raise
    return filled


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raise errors of the file system as errors of this package."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error}") from error
