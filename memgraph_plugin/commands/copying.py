"""The commands that take over what another memory holds."""

from __future__ import annotations

from typing import Annotated

import typer

from memgraph_plugin.commands.options import console, settings


def langgraph_store(
    dsn: Annotated[str, typer.Option("--dsn", help="The database that LangGraph's store is in.")],
    db_schema: Annotated[str, typer.Option("--db-schema", help="The schema of its tables.")] = "public",
) -> None:
    """Copy the items of LangGraph's PostgresStore into the store of the settings; the source is only read.

    Vectors are made anew. Running it again copies what is new there, or newer than here. Items that cannot be
    stored are listed on stderr.

    Example: memgraph-plugin migrate-from langgraph-store --dsn postgresql://localhost/app
    """
    from memgraph_plugin.store.langgraph_copy import copy_langgraph_store
    from memgraph_plugin.store.open import open_store
    from memgraph_plugin.terminal import counting

    with open_store(settings()) as store, counting(console(err=True), "items") as progress:
        copied = copy_langgraph_store(dsn, store, source_schema=db_schema, progress=progress)
    for prefix, key, reason in copied.refused:
        typer.echo(f"refused: {prefix!r} {key!r}: {reason}", err=True)
    typer.echo(
        f"{copied.new:,} new, {copied.updated:,} updated, {copied.unchanged:,} unchanged, "
        f"{copied.expired:,} expired, {len(copied.refused):,} refused"
    )
    if copied.refused:
        raise typer.Exit(1)
