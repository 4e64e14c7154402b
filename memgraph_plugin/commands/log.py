"""Looking at what was done to somebody's memory, and taking it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import BatchNotFound, MemoryNotFound

if TYPE_CHECKING:
    from memgraph_plugin.store.base import MemoryStore
    from memgraph_plugin.types import LoggedBatch, MemoryVersion, Namespace, Receipt

SHOWN = 20
"""Changes of one batch that are shown before it is taken back; of the others, how many."""


def log(
    user: options.User,
    limit: Annotated[int, typer.Option("-n", min=1, help="Batches at most.")] = 20,
) -> None:
    """List what was done to somebody's memory, the newest first: a line a batch, with its id.

    Example: memgraph-plugin log --user ana -n 5
    """
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import log_table

    namespace = options.namespace(user)
    with open_store(options.settings()) as store:
        batches = store.log(namespace, limit=limit)
    if batches:
        options.console().print(log_table(batches))
    else:
        typer.echo(f"Nothing was ever remembered of {user}.")


def undo(
    batch: Annotated[str, typer.Argument(help="A batch's id, as `log` shows it; its beginning is enough.")],
    user: options.User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take back what one batch did. What was changed since stays as it is; an undo can be undone, too.

    Example: memgraph-plugin undo --user ana 0b9f1c1e
    """
    from memgraph_plugin.store.open import open_store

    namespace = options.namespace(user)
    with open_store(options.settings()) as store:
        found = _find(store, namespace, batch)
        if not found.applied:
            typer.echo("That batch changed nothing.")
            return
        for receipt in found.applied[:SHOWN]:
            typer.echo(_preview(receipt, _history(store, namespace, str(receipt.key))))
        if more := len(found.applied[SHOWN:]):
            typer.echo(f"  ... and {more} more")
        if not yes:
            typer.confirm("Take this back?", abort=True)
        receipts = store.undo(namespace, found.batch_id, actor="command line")
    typer.echo(f"Took back {len(receipts.applied)} of {len(found.applied)}, as batch {receipts.batch_id}.")
    for receipt in receipts.rejected:
        typer.echo(f"  {receipt.key}: {receipt.reason}", err=True)
    if not receipts.applied:
        raise typer.Exit(1)


def _find(store: MemoryStore, namespace: Namespace, batch: str) -> LoggedBatch:
    """The batch whose id begins so.

    Raises:
        BatchNotFound: none does, or several do.
    """
    found = [each for each in store.log(namespace, limit=1_000_000) if each.batch_id.startswith(batch)]
    if len(found) != 1:
        many = f"{len(found)} batches" if found else "No batch"
        raise BatchNotFound(f"{many} of this user's begin{'' if found else 's'} with {batch!r:.40}.")
    return found[0]


def _history(store: MemoryStore, namespace: Namespace, key: str) -> list[MemoryVersion]:
    try:
        return store.history(namespace, key)
    except MemoryNotFound:
        return []


def _preview(receipt: Receipt, versions: list[MemoryVersion]) -> str:
    """What undoing one receipt would do, in a line."""
    from memgraph_plugin.terminal import printable

    texts = {each.version: printable(each.memory.text) for each in versions if each.memory}
    number = receipt.version or 0
    if not versions or versions[-1].version != number:
        return f"  = {receipt.key}: was changed since, and stays as it is"
    if receipt.operation == "insert":
        return f"  - {texts.get(number, '')}"
    sign = "+" if receipt.operation == "delete" else "~"
    return f"  {sign} {texts.get(number - 1, '')}"
