"""Measuring what memory brings back, on public benchmarks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from memgraph_plugin import __version__
from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from memgraph_plugin.memorag.clues import ClueDrafter
    from memgraph_plugin.settings import Settings
    from memgraph_plugin.store.base import MemoryStore
    from memgraph_plugin.types import ClueKind

    Drafting: TypeAlias = Callable[[str, tuple[ClueKind, ...]], ClueDrafter]
    """Who drafts these kinds of clues, remembering a text."""


def locomo(
    data: Annotated[Path, typer.Option("--data", help="LoCoMo's JSON.", exists=True, dir_okay=False)],
    output: Annotated[Path | None, typer.Option("--output", help="Write the figures here, as JSON.")] = None,
    embeddings: Annotated[
        str | None, typer.Option("--embeddings", help='"local:minilm", "none", ...')
    ] = None,
    memories: Annotated[
        bool, typer.Option("--memories", help="Compare with what the rules extract, beside the turns.")
    ] = False,
) -> None:
    """Recall of LoCoMo's evidence, without any language model. Its tables are dropped afterwards.

    With --memories, also what a found memory points to: how many tokens memories are, and what they add.

    Example: memgraph-plugin evaluate locomo --data locomo10.json --output locomo.result.json
    """
    from memgraph_plugin.evaluation import locomo_memories
    from memgraph_plugin.evaluation.locomo import Report, evaluate, table
    from memgraph_plugin.memalpha.rules import RulePolicy
    from memgraph_plugin.terminal import counting

    settings = options.settings(**({"embeddings": embeddings} if embeddings else {}))
    used = {"embeddings": settings.embeddings, "language": settings.language, "memgraph_plugin": __version__}
    with (
        scratch_store(settings) as store,
        counting(options.console(err=True), "turns and questions") as progress,
    ):
        report: Report | locomo_memories.Compared
        if memories:
            report = compared = locomo_memories.evaluate(
                store, data, RulePolicy(), settings=used, progress=progress
            )
            shown = locomo_memories.locomo_memories_table(compared)
        else:
            report = evaluate(store, data, settings=used, progress=progress)
            shown = table(report)
    options.console().print(shown)
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
    task: Annotated[str, typer.Option("--task", help="hotpotqa, qmsum, books or cast.")] = "hotpotqa",
    model: Annotated[
        str, typer.Option("--model", help='Who drafts: "local:<name or path>"; with gists, any chat model.')
    ] = "local:smollm2-135m-instruct",
    mode: Annotated[
        str, typer.Option("--mode", help='What it drafts from: "compressed" (a memory), or "gist".')
    ] = "compressed",
    systems: Annotated[
        str | None,
        typer.Option(
            "--systems",
            help="query,hyde,spans,questions,both,draft,routed,oracle; of cast: raw,last,all,clues,oracle.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Lines of the file.")] = 20,
    ratio: Annotated[int, typer.Option("--ratio", min=1, help="Of the compressed memory.")] = 2,
    window: Annotated[int, typer.Option("--window", min=2, help="Of the compressed memory.")] = 512,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Tokens of passages.")] = 1200,
    output: Annotated[Path | None, typer.Option("--output", help="Write the figures here, as JSON.")] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Tell of each question by a line, in place of a bar.")
    ] = False,
) -> None:
    """Whether clues from a model's memory find more evidence than the question alone, and what they cost.

    With --task cast, whether they bring the words that a question in a conversation leaves out.

    Example: memgraph-plugin evaluate clues --data hotpotqa.jsonl --limit 20 --systems query,both,oracle
    """
    from memgraph_plugin.evaluation import conversations, evidence
    from memgraph_plugin.memorag.clues import KINDS

    names: Sequence[str] = conversations.SEARCHED if task == "cast" else evidence.SYSTEMS
    if task not in (*evidence.TASKS, "cast"):
        raise ConfigurationError(f"--task: no {task!r}; there are {', '.join(evidence.TASKS)}, cast")
    wanted = systems.split(",") if systems else list(names)
    if unknown := sorted(set(wanted) - set(names)):
        raise ConfigurationError(f"--systems: no {unknown[0]!r}; there are {', '.join(names)}")
    if mode not in ("compressed", "gist"):
        raise ConfigurationError(f'--mode is "compressed" or "gist", not {mode!r}')
    chosen: list[Any] = [name for name in names if name in wanted]
    report: conversations.Report | evidence.Report
    settings, used = options.settings(), {"model": model, "mode": mode, "limit": limit}
    if mode == "gist":
        drafting = _gist_drafters(model, settings)
    else:
        drafting, more = _memory_drafters(model, window, ratio)
        used |= more
    if task == "cast":
        cases = conversations.cast(data, limit)

        def for_case(case: conversations.Case) -> ClueDrafter:
            return drafting("\n".join(case.before), KINDS)

        with _telling(lines=lines) as progress:
            report = conversations.evaluate(cases, chosen, for_case, settings=used, progress=progress)
        options.console().print(conversations.conversations_table(report))
    else:
        found = evidence.TASKS[task](data, limit)

        def for_document(document: str | None, kinds: tuple[ClueKind, ...]) -> ClueDrafter:
            return drafting(found.documents[document] if document else "", kinds)

        with scratch_store(settings) as store, _telling(lines=lines) as progress:
            report = evidence.evaluate(
                store, found, chosen, for_document, budget=budget, settings=used, progress=progress
            )
        options.console().print(evidence.evidence_table(report))
    if output:
        output.write_text(json.dumps(report.to_json(), indent=2) + "\n", "utf-8")
        typer.echo(f"Written to {output}.")


def _memory_drafters(model: str, window: int, ratio: int) -> tuple[Drafting, dict[str, Any]]:
    """Drafters that remember a text by a local model's keys and values, and the settings of their memory."""
    from memgraph_plugin.memorag.compressor import Compressor
    from memgraph_plugin.memorag.drafters import MemoryModelDrafter
    from memgraph_plugin.memorag.spec import MemorySpec

    compressor = Compressor(options.local_weights(model), MemorySpec(window=window, ratio=ratio))
    memorize = cache(compressor.memorize)

    def of(text: str, kinds: tuple[ClueKind, ...]) -> ClueDrafter:
        return MemoryModelDrafter(compressor.weights, memorize(text), kinds=kinds)

    return of, {"ratio": ratio, "window": window, "scorer": compressor.spec.scorer}


def _gist_drafters(model: str, settings: Settings) -> Drafting:
    """Drafters that have a text in short, each piece of it told once by the same chat model."""
    from memgraph_plugin.memorag.drafters import ChatModelDrafter
    from memgraph_plugin.memorag.gist import gists
    from memgraph_plugin.models.chat import load_chat_model

    chat = load_chat_model(model, base_url=settings.base_url, cache_dir=settings.cache_dir)
    notes = cache(lambda text: tuple(gist.text for gist in gists(chat, text)))

    def of(text: str, kinds: tuple[ClueKind, ...]) -> ClueDrafter:
        return ChatModelDrafter(chat, notes=notes(text), kinds=kinds)

    return of


@contextmanager
def _telling(*, lines: bool) -> Iterator[Callable[[int, int], None]]:
    """What tells how many questions are done: a bar, or lines."""
    from memgraph_plugin.terminal import counting

    if lines:
        yield lambda done, total: typer.echo(f"{done} of {total} questions", err=True)
        return
    with counting(options.console(err=True), "questions") as progress:
        yield progress


@contextmanager
def scratch_store(settings: Settings) -> Iterator[MemoryStore]:
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
