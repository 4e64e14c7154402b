"""Measuring what a policy writes to memory, on conversations that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memgraph_plugin import __version__
from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from memgraph_plugin.memalpha.policies import Policy
    from memgraph_plugin.memalpha.timelines import Timeline
    from memgraph_plugin.settings import Settings
    from memgraph_plugin.store.base import MemoryStore


def memory_writing(
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            help='"rules", "oracle" (who knows the truth), a chat model ("local:NAME"), "trained:FOLDER".',
        ),
    ] = "rules",
    cases: Annotated[int, typer.Option("--cases", min=1, help="Timelines, a seed each.")] = 500,
    first: Annotated[int, typer.Option("--first", min=0, help="The first seed.")] = 0,
    split: Annotated[str, typer.Option("--split", help='Phrases: "held-out" or "train".')] = "held-out",
    difficulty: Annotated[
        float, typer.Option("--difficulty", min=0, max=1, help="How often a fact is said indirectly.")
    ] = 0.5,
    store: Annotated[str, typer.Option("--store", help='"memory" or "postgres".')] = "memory",
    embeddings: Annotated[
        str | None, typer.Option("--embeddings", help='"local:minilm", "none", ...')
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Memories found for a question.")] = 10,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the figures here, as JSON; cases beside it.")
    ] = None,
) -> None:
    """What a policy stores, updates and forgets of made-up conversations whose truth is known.

    With --output, each case is kept in OUTPUT.cases as it is done, and the same command goes on where it
    stopped, with the same settings and the same code; remove that file to begin anew.

    Example: memgraph-plugin evaluate memory-writing --policy rules --cases 500 --output rules.json
    """
    from memgraph_plugin.evaluation.graph_writer import graph_writers
    from memgraph_plugin.evaluation.memory_writing import evaluate, memory_writing_table
    from memgraph_plugin.evaluation.timeline_oracle import NEVER_PROPOSED
    from memgraph_plugin.memalpha.timelines import timeline
    from memgraph_plugin.terminal import counting

    if split not in ("held-out", "train"):
        raise ConfigurationError(f'--split is "held-out" or "train", not {split!r}')
    settings = options.settings(**({"embeddings": embeddings} if embeddings else {}))
    halves: dict[str, Any] = {"held-out": "held_out", "train": "train"}
    timelines = [
        timeline(seed, split=halves[split], difficulty=difficulty) for seed in range(first, first + cases)
    ]
    used = {
        "split": split,
        "difficulty": difficulty,
        "store": store,
        "embeddings": settings.embeddings,
        "memgraph_plugin": __version__,
    }
    with _store(store, settings) as opened, counting(options.console(err=True), "timelines") as progress:
        report = evaluate(
            policy,
            graph_writers(opened, _policies(policy, settings)),
            timelines,
            k=k,
            resume=output and output.with_name(f"{output.name}.cases"),
            settings=used,
            unseen=NEVER_PROPOSED if policy == "oracle" else (),
            progress=progress,
        )
    options.console().print(memory_writing_table([report]))
    if output:
        output.write_text(json.dumps(report.to_json(), indent=2) + "\n", "utf-8")
        typer.echo(f"Written to {output}.")


def _policies(name: str, settings: Settings) -> Callable[[Timeline], Policy]:
    """Who decides on a timeline: all the same, but the model that knows it."""
    from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
    from memgraph_plugin.memalpha.local_policy import LocalPolicy
    from memgraph_plugin.memalpha.rules import RulePolicy

    if name == "rules":
        return lambda _: RulePolicy()
    if name == "oracle":
        from memgraph_plugin.evaluation.timeline_oracle import TimelineOracle

        return lambda known: ChatModelPolicy(TimelineOracle(timeline=known), fallback=None, timeout=None)
    if name.startswith("trained:"):
        from memgraph_plugin.memalpha.trained_policy import TrainedPolicy

        trained = TrainedPolicy.from_folder(Path(name.removeprefix("trained:")))
        return lambda _: trained
    from memgraph_plugin.models.chat import load_chat_model

    model = load_chat_model(name, base_url=settings.base_url, cache_dir=settings.cache_dir)
    kind = LocalPolicy if name.startswith("local:") else ChatModelPolicy
    policy = kind(model, fallback=None)  # where it gives nothing usable, that is counted
    return lambda _: policy


@contextmanager
def _store(name: str, settings: Settings) -> Iterator[MemoryStore]:
    from memgraph_plugin.commands.evaluations import scratch_store
    from memgraph_plugin.store.in_memory import InMemoryMemoryStore
    from memgraph_plugin.store.open import embeddings

    if name == "postgres":
        with scratch_store(settings) as opened:
            yield opened
    elif name == "memory":
        yield InMemoryMemoryStore(embeddings=embeddings(settings), language=settings.language)
    else:
        raise ConfigurationError(f'--store is "memory" or "postgres", not {name!r}')
