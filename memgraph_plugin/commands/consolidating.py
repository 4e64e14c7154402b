"""The command that puts a memory in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from memgraph_plugin.consolidation import Done
    from memgraph_plugin.types import Operation

SHOWN = 20
"""Groups of a pass, and operations of a group, that are shown; of the others, how many."""


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

    Each group is a batch that `undo` takes back. What somebody changes meanwhile is left alone, and named.
    With MEMGRAPH_PLUGIN_POLICY=model, the chat model words summaries.

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
    if used.policy == "model":
        if used.chat_model is None:
            raise ConfigurationError("MEMGRAPH_PLUGIN_POLICY=model needs MEMGRAPH_PLUGIN_CHAT_MODEL.")
        model = load_chat_model(used.chat_model, base_url=used.base_url, cache_dir=used.cache_dir)
        by = summaries_of(model)
    with open_store(used) as store:
        for each in consolidate(store, labels, by=by, dry_run=dry_run):
            left = sum(bool(group.left) for group in each.groups)
            alone = f", {left} of {len(each.groups)} groups left alone" if left else ""
            typer.echo(f"{each.name}: {len(each.operations) or 'nothing'} to do{alone}")
            for group in each.groups[:SHOWN]:
                _show(group)
            if more := len(each.groups[SHOWN:]):
                typer.echo(f"  ... and {more} more groups; `log` has their batches")


def _show(group: Done) -> None:
    from memgraph_plugin.terminal import printable

    for operation in group.operations[:SHOWN]:
        typer.echo(f"  {_said(operation)}")
    if more := len(group.operations[SHOWN:]):
        typer.echo(f"  ... and {more} more")
    if group.receipts:
        typer.echo(f"  as batch {group.receipts.batch_id}")
    if group.left:
        typer.echo(f"  left alone: {printable(group.left)}")


def _said(operation: Operation) -> str:
    from memgraph_plugin.terminal import printable
    from memgraph_plugin.types import Insert, Update

    text = printable(operation.text) if isinstance(operation, Insert | Update) else ""
    sign = "+" if isinstance(operation, Insert) else "~" if text else "-"
    return f"{sign} {text or getattr(operation, 'key', '')} ({printable(operation.reason)})".replace(
        "\n", " | "
    )
