"""Letting go of somebody's memory, and proving it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import SealBroken

if TYPE_CHECKING:
    from memgraph_plugin.store.base import MemoryStore
    from memgraph_plugin.types import Namespace


def forget(
    user: options.User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="Rewrite the tables' files, too; they are locked meanwhile."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Erase nothing: show the receipts of this user's erasures.")
    ] = False,
) -> None:
    """Erase all that is remembered of somebody, with history and log. It cannot be undone.

    A receipt remains, without the name; with the name, --verify finds it again.

    Example: memgraph-plugin forget --user ana
    """
    from memgraph_plugin.store.jobs import forget_jobs
    from memgraph_plugin.store.open import database, open_store

    namespace, used = options.namespace(user), options.settings()
    with open_store(used) as store:
        if verify:
            found = [erasure for erasure in store.erasures() if erasure.of(namespace)]
            for erasure in found:
                typer.echo(f"{erasure.id}  erased {erasure.erased_at:%Y-%m-%d %H:%M:%S} UTC")
            if not found:
                typer.echo(f"No receipt is of {user}.")
            raise typer.Exit(0 if found else 1)
        if not yes:
            count = store.count(namespace)
            typer.echo(
                f"This erases {count:,} memories{_compressed(store, namespace)}, with their history and the "
                "log, for good."
            )
            if typer.prompt(f"Type {user} to go on", default="", show_default=False) != user:
                typer.echo("Nothing was erased.")
                raise typer.Exit(1)
        where = database(used), used.db_schema
        forget_jobs(*where, namespace)  # or a worker begins one, and is waited for
        erasure = store.forget(namespace, vacuum=vacuum)
    forget_jobs(*where, namespace)  # of what was said meanwhile
    for table, rows in erasure.counts.items():
        typer.echo(f"{rows:>9,}  {table}")
    typer.echo(f"Erased. Receipt {erasure.id}\n  salt   {erasure.salt}\n  digest {erasure.digest}")


def _compressed(store: MemoryStore, namespace: Namespace) -> str:
    try:
        found = len(store.list_kv(namespace))
    except SealBroken:  # who lost the key may still forget
        return " and all compressed ones"
    return f" and {found:,} compressed ones" if found else ""
