"""Looking at what was not remembered for safety, and deciding about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import MemoryNotFound

if TYPE_CHECKING:
    from memgraph_plugin.store.base import MemoryStore
    from memgraph_plugin.types import Held, Namespace

HeldId = Annotated[
    str, typer.Argument(metavar="ID", help="As `quarantine list` shows it; its beginning is enough.")
]


def list_held(
    user: options.User,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what was not remembered of somebody, and waits: commands, secrets (masked), personal data.

    Example: memgraph-plugin quarantine list --user ana
    """
    from memgraph_plugin.state import plain_held
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import quarantine_table

    namespace = options.namespace(user)
    with open_store(options.settings()) as store:
        held = store.quarantined(namespace)
    if as_json:
        typer.echo(json.dumps(plain_held(held), ensure_ascii=False, indent=2))
    elif held:
        options.console().print(quarantine_table(held))
    else:
        typer.echo(f"Nothing of {user} is in quarantine.")


def release(
    held: HeldId,
    user: options.User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remember what was held back, as it is listed. `log` shows it, and `undo` takes it back.

    Where the memory that it would change has changed since, it is refused and stays where it is.

    Example: memgraph-plugin quarantine release --user ana 0b9f1c1e
    """
    from memgraph_plugin.store.open import open_store

    namespace = options.namespace(user)
    with open_store(options.settings()) as store:
        found = _find(store, namespace, held)
        typer.echo(_preview(found))
        if not yes:
            typer.confirm("Remember this?", abort=True)
        receipts = store.release(namespace, found.id, actor="command line")
    for receipt in receipts.rejected:
        typer.echo(f"Not released: {receipt.reason}. Discard it, or leave it.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Released, as batch {receipts.batch_id}.")


def discard(
    held: HeldId,
    user: options.User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Let go of what was held back, for good.

    Example: memgraph-plugin quarantine discard --user ana 0b9f1c1e
    """
    from memgraph_plugin.store.open import open_store

    namespace = options.namespace(user)
    with open_store(options.settings()) as store:
        found = _find(store, namespace, held)
        typer.echo(_preview(found))
        if not yes:
            typer.confirm("Discard this?", abort=True)
        if not store.discard(namespace, found.id):
            raise MemoryNotFound("It is in quarantine no more: it was released or discarded meanwhile.")
    typer.echo("Discarded.")


def _find(store: MemoryStore, namespace: Namespace, beginning: str) -> Held:
    """What is held under an id that begins so.

    Raises:
        MemoryNotFound: nothing is, or several are.
    """
    found = [each for each in store.quarantined(namespace) if each.id.startswith(beginning)]
    if len(found) != 1:
        many = f"{len(found)} ids" if found else "No id"
        raise MemoryNotFound(
            f"{many} in this user's quarantine begin{'' if found else 's'} with {beginning!r:.40}."
        )
    return found[0]


def _preview(held: Held) -> str:
    """What releasing it would do, in a line."""
    from memgraph_plugin.terminal import printable
    from memgraph_plugin.types import Delete, Insert

    operation = held.operation
    if isinstance(operation, Delete):
        return f"  - {printable(operation.key)}"
    return f"  {'+' if isinstance(operation, Insert) else '~'} {printable(operation.text)}"
