"""The command that makes and drops the indexes of large namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands.options import namespace as namespace_of_user
from memgraph_plugin.commands.options import settings
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from memgraph_plugin.types import Namespace


def index(
    user: Annotated[str | None, typer.Option("--user", help="Whose memory.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", help="Or a namespace, its labels joined by dots.")
    ] = None,
    below: Annotated[
        bool, typer.Option("--below", help="Also all namespaces below it: of searches there.")
    ] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Drop its indexes.")] = False,
) -> None:
    """Make the indexes of a large namespace, as searches do by themselves where the role owns the tables.

    It takes minutes for a hundred thousand memories; others read and write meanwhile.

    Example: memgraph-plugin index --user ana
    """
    from memgraph_plugin.store.open import open_store

    about = _one_of(user, namespace)
    with open_store(settings()) as store:
        if drop:
            dropped = store.drop_index(about, below=below)
            typer.echo("Dropped." if dropped else "There were none.")
        else:
            made = store.create_index(about, below=below)
            typer.echo("Ready." if made else "Another process is making them.")


def _one_of(user: str | None, namespace: str | None) -> Namespace:
    if (user is None) == (namespace is None):
        raise ConfigurationError("Say either --user or --namespace.")
    return namespace_of_user(user) if user is not None else tuple(str(namespace).split("."))
