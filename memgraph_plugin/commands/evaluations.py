"""Measuring what memory brings back, on public benchmarks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memgraph_plugin import __version__
from memgraph_plugin.commands import options

if TYPE_CHECKING:
    from memgraph_plugin.settings import Settings
    from memgraph_plugin.store.base import MemoryStore


def locomo(
    data: Annotated[Path, typer.Option("--data", help="LoCoMo's JSON.", exists=True, dir_okay=False)],
    output: Annotated[Path | None, typer.Option("--output", help="Write the figures here, as JSON.")] = None,
    embeddings: Annotated[
        str | None, typer.Option("--embeddings", help='"local:minilm", "none", ...')
    ] = None,
) -> None:
    """Recall of LoCoMo's evidence, without any language model. Its tables are dropped afterwards.

    Example: memgraph-plugin evaluate locomo --data locomo10.json --output locomo.result.json
    """
    from memgraph_plugin.evaluation.locomo import evaluate, table
    from memgraph_plugin.terminal import counting

    settings = options.settings(**({"embeddings": embeddings} if embeddings else {}))
    used = {"embeddings": settings.embeddings, "language": settings.language, "memgraph_plugin": __version__}
    with (
        _scratch_store(settings) as store,
        counting(options.console(err=True), "turns and questions") as progress,
    ):
        report = evaluate(store, data, settings=used, progress=progress)
    options.console().print(table(report))
    if output:
        output.write_text(json.dumps(report.to_json(), indent=2) + "\n", "utf-8")
        typer.echo(f"Written to {output}.")


@contextmanager
def _scratch_store(settings: Settings) -> Iterator[MemoryStore]:
    """A store in a schema of its own, which is dropped at the end."""
    import psycopg
    from psycopg import sql

    from memgraph_plugin.store.open import database, open_store

    schema = f"{settings.db_schema}_{uuid.uuid4().hex[:12]}"
    try:
        with open_store(settings.model_copy(update={"db_schema": schema})) as store:
            yield store
    finally:
        with psycopg.connect(database(settings), autocommit=True) as conn:
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
