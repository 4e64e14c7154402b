"""Memories out to a file, and in from one."""

from __future__ import annotations

import gzip
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from memgraph_plugin.commands import options


def export(
    user: Annotated[str | None, typer.Option("--user", help="Whose memory; without it, everybody's.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A file; compressed where it ends in .gz.")
    ] = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With the vectors, which need not be made again then.")
    ] = False,
) -> None:
    """Write memories with their history and log as lines of JSON, in plain text.

    What models remember of documents is left out: memorize them again where this is imported.

    Example: memgraph-plugin export --user ana -o ana.jsonl.gz
    """
    from memgraph_plugin.store.open import open_store

    namespace = options.namespace(user) if user is not None else ()
    with open_store(options.settings()) as store:
        if left := len(store.list_kv(namespace)):
            typer.echo(
                f"Left out: {left:,} compressed memories; where this is imported, `memgraph-plugin memorize` "
                "makes them again from the documents.",
                err=True,
            )
        lines = _counted(store.export(namespace, vectors=vectors), "exported")
        if output is None:
            for line in lines:
                sys.stdout.write(f"{line}\n")
            return
        with _whole(output) as file:
            file.writelines(f"{line}\n" for line in lines)
    typer.echo(f"Written to {output}.", err=True)


def import_(
    file: Annotated[Path, typer.Argument(help="What `export` wrote.", dir_okay=False, exists=True)],
) -> None:
    """Take in an export: all of it, or nothing. Doing it again changes nothing.

    Example: memgraph-plugin import ana.jsonl.gz
    """
    from memgraph_plugin.errors import InvalidExport
    from memgraph_plugin.store.open import open_store

    with open_store(options.settings()) as store, _opened(file, "rt") as lines:
        try:
            done = store.import_(_counted(lines, "checked"))
        except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
            raise InvalidExport(f"{file} is broken: {error}. Nothing was imported.") from error
    typer.echo(
        f"{done.memories:,} memories in {done.versions:,} versions of {done.batches:,} batches, "
        f"{done.held:,} held in quarantine; "
        f"{done.skipped:,} entries were there already; {done.embedded:,} texts got a vector."
    )


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file that has its name only once it is complete; nobody else may read it."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _opened(part, "wt", like=path) as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _opened(path: Path, mode: str, like: Path | None = None) -> IO[str]:
    if (like or path).suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8", newline="\n")  # type: ignore[return-value]
    return path.open(mode, encoding="utf-8", newline="\n")


def _counted(lines: Iterable[str], done: str) -> Iterator[str]:
    """The lines, with word on stderr of how many there were and how fast, where somebody watches."""
    began = time.monotonic()
    for number, line in enumerate(lines, 1):
        if number % 1_000 == 0 and sys.stderr.isatty():
            rate = number / (time.monotonic() - began)
            sys.stderr.write(f"\r{number:,} lines {done}, {rate:,.0f} a second")
        yield line
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
