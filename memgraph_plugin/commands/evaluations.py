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
from memgraph_plugin.errors import ConfigurationError

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


def compression(
    data: Annotated[Path, typer.Option("--data", help="A long text, UTF-8.", exists=True, dir_okay=False)],
    model: Annotated[
        str, typer.Option("--model", help='A local model: "local:<name or path>".')
    ] = "local:smollm2-135m-instruct",
    scorers: Annotated[str | None, typer.Option("--scorers", help="Which of them; all by default.")] = None,
    ratios: Annotated[str, typer.Option("--ratios", help="Raw tokens for each entry that stays.")] = "2,4,8",
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens in a window.")] = 512,
    places: Annotated[int, typer.Option("--places", min=1, help="Places of the text; or seeds.")] = 2,
    needles: Annotated[
        int, typer.Option("--needles", min=0, help="Hide codes in so many tokens and ask for them instead.")
    ] = 0,
    tokens: Annotated[
        Path | None, typer.Option("--tokens", help="Trained memory tokens, measured as well.", exists=True)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write the figures here, as JSON.")] = None,
) -> None:
    """What a compressed memory keeps of a text, by who chooses what stays; chance is the baseline.

    Example: memgraph-plugin evaluate compression --data book.txt --scorers random,reconstruction
    """
    from memgraph_plugin.evaluation.compression import Kept, kept_table, likelihood
    from memgraph_plugin.evaluation.compression import needles as search_needles
    from memgraph_plugin.memorag.beacon import load
    from memgraph_plugin.memorag.scorers import SCORERS
    from memgraph_plugin.memorag.spec import MemorySpec
    from memgraph_plugin.terminal import counting

    asked = scorers.split(",") if scorers else list(SCORERS)
    if unknown := sorted(set(asked) - set(SCORERS)):
        raise ConfigurationError(f"--scorers: no {unknown[0]!r}; there are {', '.join(SCORERS)}")
    rates = options.ratios(ratios, window)
    weights = options.local_weights(model)
    learned = load(tokens, weights.model) if tokens else None
    specs = [MemorySpec(window=window, ratio=1)]
    specs += [
        MemorySpec(window=window, ratio=rate, scorer=name)
        for name in SCORERS
        for rate in rates
        if name in asked
    ]
    specs += [MemorySpec(window=window, ratio=rate, mode="beacon") for rate in rates if learned]
    text = data.read_text("utf-8")
    found: list[Kept] = []
    with counting(options.console(err=True), "ways to compress") as tell:
        measured = (
            search_needles(weights, text, specs, length=needles, seeds=range(1, places + 1), tokens=learned)
            if needles
            else likelihood(weights, text, [None, *specs], places=places, tokens=learned)
        )
        for each in measured:
            found.append(each)
            tell(len(found), len(specs) + (not needles))
    options.console().print(kept_table(found))
    if output:
        about = {"benchmark": "compression", "model": weights.name, "data": data.name}
        figures = [each.to_json() for each in found]
        output.write_text(json.dumps({**about, "found": figures}, indent=2) + "\n", "utf-8")
        typer.echo(f"Written to {output}.")


def clues(
    data: Annotated[Path, typer.Option("--data", help="The task's JSONL.", exists=True, dir_okay=False)],
    task: Annotated[str, typer.Option("--task", help="hotpotqa, qmsum or books.")] = "hotpotqa",
    model: Annotated[
        str, typer.Option("--model", help='Who remembers and drafts: "local:<name or path>".')
    ] = "local:smollm2-135m-instruct",
    systems: Annotated[
        str | None, typer.Option("--systems", help="query,hyde,spans,questions,both,draft,routed,oracle.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Lines of the file.")] = 20,
    ratio: Annotated[int, typer.Option("--ratio", min=1, help="Of the compressed memory.")] = 2,
    window: Annotated[int, typer.Option("--window", min=2, help="Of the compressed memory.")] = 512,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Tokens of passages.")] = 1200,
    output: Annotated[Path | None, typer.Option("--output", help="Write the figures here, as JSON.")] = None,
) -> None:
    """Whether clues from a compressed memory find more evidence than the question alone, and what they cost.

    Example: memgraph-plugin evaluate clues --data hotpotqa.jsonl --limit 20 --systems query,both,oracle
    """
    from memgraph_plugin.evaluation.evidence import SYSTEMS, TASKS, evaluate, evidence_table
    from memgraph_plugin.memorag.compressor import Compressor
    from memgraph_plugin.memorag.drafters import MemoryModelDrafter
    from memgraph_plugin.memorag.kv_memory import KVMemory
    from memgraph_plugin.memorag.spec import MemorySpec
    from memgraph_plugin.terminal import counting
    from memgraph_plugin.types import ClueKind

    if task not in TASKS:
        raise ConfigurationError(f"--task: no {task!r}; there are {', '.join(TASKS)}")
    wanted = systems.split(",") if systems else list(SYSTEMS)
    if unknown := sorted(set(wanted) - set(SYSTEMS)):
        raise ConfigurationError(f"--systems: no {unknown[0]!r}; there are {', '.join(SYSTEMS)}")
    cases = TASKS[task](data, limit)
    compressor = Compressor(options.local_weights(model), MemorySpec(window=window, ratio=ratio))
    memories: dict[str | None, KVMemory] = {}

    def drafter(document: str | None, kinds: tuple[ClueKind, ...]) -> MemoryModelDrafter:
        if document not in memories:
            memories[document] = compressor.memorize(cases.documents[document] if document else "")
        return MemoryModelDrafter(compressor.weights, memories[document], kinds=kinds)

    used = {
        "model": model,
        "ratio": ratio,
        "window": window,
        "scorer": compressor.spec.scorer,
        "limit": limit,
    }
    with (
        _scratch_store(options.settings()) as store,
        counting(options.console(err=True), "questions") as progress,
    ):
        report = evaluate(
            store,
            cases,
            [name for name in SYSTEMS if name in wanted],
            drafter,
            budget=budget,
            settings=used,
            progress=progress,
        )
    options.console().print(evidence_table(report))
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
