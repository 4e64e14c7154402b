"""What memory looks like in a terminal: tables, lines and progress bars, in 80 columns and in a pipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from memgraph_plugin.state import Plain, operations_from, receipts_from
from memgraph_plugin.store.held import refused
from memgraph_plugin.types import Delete, Held, Hit, Insert, LoggedBatch, Memory, MemoryVersion, Update


def printable(text: str) -> str:
    """The text without characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def memory_table(hits: Iterable[Hit], *, title: str = "", keys: bool = True, scores: bool = False) -> Table:
    """Memories, one a row, with their keys below their texts."""
    table = Table(title=title or None, title_justify="left", expand=True)
    for column in ("score",) if scores else ():
        table.add_column(column, justify="right")
    table.add_column("kind")
    table.add_column("since", no_wrap=True)
    table.add_column("memory", ratio=1, overflow="fold")
    for hit in hits:
        memory = hit.memory
        text = Text(printable(memory.text))
        if memory.valid_to:
            text.append(f"\nuntil {_day(memory.valid_to)}", style="dim")
        if keys:
            text.append(f"\n{printable(memory.key)}", style="dim")
        score = [f"{hit.score:.2f}"] if scores else []
        table.add_row(*score, memory.kind, _day(memory.valid_from or memory.created_at), text)
    return table


def history_table(versions: Sequence[MemoryVersion], *, title: str = "") -> Table:
    """What became of one memory, oldest first."""
    table = Table(title=title or None, title_justify="left", expand=True)
    table.add_column("", justify="right")
    table.add_column("when", no_wrap=True)
    table.add_column("what")
    table.add_column("memory", ratio=1, overflow="fold")
    table.add_column("decided by")
    for each in versions:
        how = each.mode or (f"undo, as {each.restores}" if each.restores else "")
        what = f"{each.operation} ({how})" if how else each.operation
        text = Text(printable(each.memory.text)) if each.memory else Text("no longer remembered", style="dim")
        if each.memory and (so := _validity(each.memory)):
            text.append(f"\n{so}", style="dim")
        table.add_row(
            str(each.version), _minute(each.recorded_at), what, text, printable(each.policy or each.actor)
        )
    return table


def log_table(batches: Iterable[LoggedBatch]) -> Table:
    """Batches, one a row, with their ids below what they did."""
    table = Table(expand=True)
    table.add_column("when", no_wrap=True)
    table.add_column("what", ratio=1, overflow="fold")
    table.add_column("actor")
    table.add_column("policy")
    for batch in batches:
        counts = Counter(receipt.operation for receipt in batch.applied)
        done = [f"{count} {_DONE[name]}" for name, count in counts.items()]
        if refused := sum(receipt.status == "rejected" for receipt in batch.receipts):
            done.append(f"{refused} refused")
        text = Text(", ".join(done) or "nothing")
        text.append(f"\n{batch.batch_id}", style="dim")
        table.add_row(_minute(batch.recorded_at), text, printable(batch.actor), printable(batch.policy))
    return table


def quarantine_table(held: Iterable[Held]) -> Table:
    """What is held, one a row, with its id below what it says."""
    table = Table(expand=True)
    table.add_column("since", no_wrap=True)
    table.add_column("what")
    table.add_column("memory", ratio=1, overflow="fold")
    table.add_column("held for")
    table.add_column("decided by")
    for each in held:
        operation = each.operation
        said = operation.key if isinstance(operation, Delete) else operation.text
        text = Text(printable(said))
        text.append(f"\n{each.id}", style="dim")
        what, code, policy = refused(each).operation, printable(each.code), printable(each.policy)
        table.add_row(_minute(each.recorded_at), what, text, code, policy)
    return table


_DONE = {"insert": "inserted", "update": "updated", "delete": "deleted", "noop": "left"}


def changes_of(operations: Sequence[Plain], receipts: Sequence[Plain]) -> str:
    """What a turn changed in memory, a line each, of what the graph decided and applied."""
    done = [each for each in receipts_from(receipts) if each.status == "applied"]
    written = {each.key for each in done if each.operation != "insert"}
    lines = []
    for operation in operations_from(operations):
        if isinstance(operation, Insert):
            lines.append(f"+ {printable(operation.text)}")
        elif isinstance(operation, Update) and operation.key in written:
            lines.append(f"~ {printable(operation.text)}")
        elif isinstance(operation, Delete) and operation.key in written:
            lines.append("- one memory is forgotten")
    decided = {operation.key for operation in operations_from(operations) if isinstance(operation, Delete)}
    if turns := len([each for each in done if each.operation == "delete" and each.key not in decided]):
        lines.append(f"- and {turns} message{'s' if turns > 1 else ''} that spoke of it")
    return "\n".join(f"  {line}" for line in lines) or "  (kept word for word)"


@contextmanager
def counting(console: Console, what: str, *, transient: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar of things done of all, their rate and the time left; gives the function to tell it with.

    A `transient` one is gone when it is done, and not shown in a pipe or before there is something to tell.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    hidden = transient and not console.is_terminal
    with Progress(*columns, console=console, transient=transient, disable=hidden) as bar:
        task = bar.add_task(what, total=None, visible=not transient)

        def tell(done: int, total: int) -> None:
            # What was done before the first call took no time of this run's.
            begun = bar.tasks[task].total is not None
            (bar.update if begun else bar.reset)(task, completed=done, total=total, visible=True)

        yield tell


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed")


def pull_with_bar(console: Console, name: str, cache_dir: Path) -> Path:
    """Pull a model, with a bar of megabytes; where it is already, nothing is shown.

    Raises:
        MemgraphPluginError: as `models.pull.pull`.
    """
    from memgraph_plugin.models.pull import mirrors, pull, pulled_path

    if name not in mirrors() or pulled_path(name, cache_dir):
        return pull(name, cache_dir=cache_dir)
    mirror = mirrors()[name]
    console.print(
        f"Getting {mirror.upstream} ({mirror.maker}, {mirror.licence}): "
        f"{mirror.download_bytes / 1e6:,.0f} MB, once.",
        highlight=False,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        tasks = {step: bar.add_task(step, total=None, visible=False) for step in ("download", "convert")}
        bar.update(tasks["download"], visible=True)

        def progress(step: str, done: int, total: int) -> None:
            bar.update(tasks[step], completed=done, total=total, visible=True)

        return pull(name, cache_dir=cache_dir, progress=progress)


def _day(when: datetime | None) -> str:
    return when.date().isoformat() if when else ""


def _minute(when: datetime | None) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M") if when else ""


def _validity(memory: Memory) -> str:
    """When it was so, as far as was said."""
    since = f"from {_day(memory.valid_from)}" if memory.valid_from else ""
    until = f"until {_day(memory.valid_to)}" if memory.valid_to else ""
    return f"{since} {until}".strip()
