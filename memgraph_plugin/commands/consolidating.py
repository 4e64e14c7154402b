"""The command that puts a memory in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from memgraph_plugin.types import Operation

SHOWN = 20
"""Operations of a pass that are shown; of the others, how many."""


def consolidate(
    user: Annotated[str | None, typer.Option("--user", help="Whose memory.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", help="Or its namespace, as memories.ana.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
) -> None:
    """Merge duplicates, promote what is said often, let the unsaid fade, summarise old events.

    Each is a batch that `undo` takes back. With MEMGRAPH_PLUGIN_POLICY=model, the chat model words summaries.

    Example: memgraph-plugin consolidate --user ana --dry-run
    """
    from memgraph_plugin.consolidation import consolidate, summaries_of
    from memgraph_plugin.models.chat import load_chat_model
    from memgraph_plugin.nodes.scope import check_labels
    from memgraph_plugin.store.open import open_store

    if user is not None and namespace is None:
        labels = options.namespace(user)
    elif namespace is not None and user is None:
        labels = check_labels(namespace.split("."))
    else:
        raise ConfigurationError("Say whose memory: --user ana, or --namespace memories.ana.")
    used, by = options.settings(), None
    if used.policy == "model" and used.chat_model is not None:
        model = load_chat_model(used.chat_model, base_url=used.base_url, cache_dir=used.cache_dir)
        by = summaries_of(model)
    with open_store(used) as store:
        for each in consolidate(store, labels, by=by, dry_run=dry_run):
            batch = f", as batch {each.batch_id}" if each.batch_id else ""
            typer.echo(f"{each.name}: {len(each.operations) or 'nothing'} to do{batch}")
            for operation in each.operations[:SHOWN]:
                typer.echo(f"  {_said(operation)}")
            if more := len(each.operations[SHOWN:]):
                typer.echo(f"  ... and {more} more")


def _said(operation: Operation) -> str:
    from memgraph_plugin.terminal import printable
    from memgraph_plugin.types import Insert, Update

    text = printable(operation.text) if isinstance(operation, Insert | Update) else ""
    sign = "+" if isinstance(operation, Insert) else "~" if text else "-"
    return f"{sign} {text or getattr(operation, 'key', '')} ({printable(operation.reason)})".replace(
        "\n", " | "
    )
