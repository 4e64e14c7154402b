"""Training what can be trained: memory tokens (the compressed memory's own projections), a memory policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    from memgraph_plugin.memalpha.environment import Environment
    from memgraph_plugin.memalpha.episodes import Episode
    from memgraph_plugin.memalpha.rewards import Rewards
    from memgraph_plugin.memalpha.train_policy import Recipe
    from memgraph_plugin.models.weights import Weights

HELD_OUT = 100_000
"""The seed of the first timeline that a trained policy is tested on: far from those of benchmarks."""


def memorag(
    texts: Annotated[
        list[Path], typer.Argument(help="Text files to learn from, UTF-8.", exists=True, dir_okay=False)
    ],
    output: Annotated[Path, typer.Option("--output", help="Where the memory tokens go (safetensors).")],
    model: Annotated[
        str, typer.Option("--model", help='A local model: "local:<name or path>".')
    ] = "local:smollm2-135m-instruct",
    clues: Annotated[
        Path | None,
        typer.Option(
            "--clues", help='Then learn to draft clues: JSONL of "context", "question", "clues".', exists=True
        ),
    ] = None,
    begin: Annotated[
        Path | None, typer.Option("--begin", help="Go on from these memory tokens.", exists=True)
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Updates.")] = 200,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples in an update.")] = 8,
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens in a window.")] = 512,
    windows: Annotated[int, typer.Option("--windows", min=1, help="Windows in a sample.")] = 4,
    ratios: Annotated[str, typer.Option("--ratios", help="Ratios to draw from.")] = "2,4,8,16",
    rank: Annotated[
        int, typer.Option("--rank", min=0, help="Of a low-rank change; 0 trains copies of the projections.")
    ] = 0,
    rate: Annotated[float | None, typer.Option("--rate", help="The first learning rate.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 1,
) -> None:
    """Train memory tokens for a model, on a GPU where there is one. Stopped, the same command goes on.

    Checkpoints are kept beside the output, in OUTPUT.training; remove that folder to begin anew.

    Example: memgraph-plugin train memorag book.txt --output tokens.safetensors --steps 300
    """
    from memgraph_plugin.memorag.beacon import load
    from memgraph_plugin.memorag.framing import Frame
    from memgraph_plugin.memorag.train_beacon import Recipe, clue_samples, text_samples, train
    from memgraph_plugin.terminal import counting

    weights = options.local_weights(model)
    recipe = Recipe(
        window=window,
        windows=windows,
        ratios=options.ratios(ratios, window),
        rank=rank,
        steps=steps,
        batch=batch,
        rate=rate,
        seed=seed,
    )
    frame = Frame.of(weights.tokenizer)
    samples = list(text_samples(frame, [path.read_text("utf-8") for path in texts], recipe))
    if clues:
        from memgraph_plugin.jsonl import read_jsonl
        from memgraph_plugin.memorag.clues import Ask
        from memgraph_plugin.memorag.drafters import memory_prompt

        records = read_jsonl(clues, ("context", "question", "clues"))
        samples = list(
            clue_samples(
                frame,
                records,
                lambda question: memory_prompt(Ask(query=question, scenario="multi_hop"), "span"),
                recipe,
            )
        )
    tokens = load(begin, weights.model) if begin else None
    losses: list[float] = []
    with counting(options.console(err=True), f"updates, {len(samples):,} samples") as tell:

        def told(done: int, total: int, loss: float) -> None:
            losses.append(loss)
            tell(done, total)

        made = train(weights, samples, Path(f"{output}.training"), recipe, tokens=tokens, progress=told)
    made.save(output)
    if losses:
        typer.echo(f"Loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last.")
    typer.echo(f"Written to {output}.")


def memalpha(
    output: Annotated[Path, typer.Option("--output", help="The folder of the adapter and its card.")],
    talks: Annotated[
        list[Path] | None,
        typer.Argument(help="Conversations to learn from (JSONL); generated ones too.", exists=True),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help='A local chat model: "local:<name or path>".')
    ] = "local:smollm2-135m-instruct",
    timelines: Annotated[int, typer.Option("--timelines", min=0, help="Generated persons.")] = 60,
    exchanges: Annotated[int, typer.Option("--exchanges", min=1, help="Read in one decision.")] = 2,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Updates that imitate.")] = 100,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Updates by reward (GRPO).")] = 100,
    group: Annotated[int, typer.Option("--group", min=2, help="Replies to one episode.")] = 8,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=8, help="Of a reply.")] = 128,
    warmup_rate: Annotated[float, typer.Option("--warmup-rate")] = 5e-4,
    rate: Annotated[float, typer.Option("--rate", help="Of GRPO.")] = 5e-5,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of the adapter.")] = 16,
    save_every: Annotated[int, typer.Option("--save-every", min=1, help="Updates.")] = 20,
    test: Annotated[int, typer.Option("--test", min=1, help="Generated persons held out to test with.")] = 10,
    seed: Annotated[int, typer.Option("--seed")] = 1,
) -> None:
    """Train a local model to decide what to remember: it imitates, then learns by reward (GRPO).

    Tested on persons whose facts are other values in other words (not all: bank names, replies and how
    others are spoken of are the same): before, between and after, beside the rules and policies that do
    nothing or copy. Checkpoints are kept in OUTPUT.training; stopped, the same command goes on.

    Example: memgraph-plugin train memalpha --output policy --timelines 60 --warmup 100 --steps 100
    """
    try:
        from memgraph_plugin.memalpha.train_policy import Recipe, adapted
    except ImportError as error:
        raise MissingExtraError("train", "Training of a memory policy") from error
    from memgraph_plugin.memalpha.environment import Environment
    from memgraph_plugin.memalpha.episodes import Talk, TimelineTalk, cut, read_talks
    from memgraph_plugin.memalpha.timelines import timeline
    from memgraph_plugin.store.in_memory import InMemoryMemoryStore

    recipe = Recipe(
        warmup=warmup,
        warmup_rate=warmup_rate,
        steps=steps,
        group=group,
        max_tokens=max_tokens,
        rate=rate,
        rank=rank,
        save_every=save_every,
        seed=seed,
    )
    learned: list[Talk] = [TimelineTalk(timeline(number, split="train")) for number in range(timelines)]
    learned += [talk for path in talks or [] for talk in read_talks(path)]
    held_out = [TimelineTalk(timeline(HELD_OUT + number)) for number in range(test)]
    episodes = [episode for talk in learned for episode in cut(talk, exchanges=exchanges)]
    tests = [episode for talk in held_out for episode in cut(talk, exchanges=exchanges)]
    environment = Environment(new_store=InMemoryMemoryStore)
    policy = adapted(options.local_weights(model), recipe)
    card = _train_policy(policy, episodes, tests, environment, output, recipe)
    _save_policy(policy, output, {"base": model, "timelines": timelines, "tested_from": HELD_OUT, **card})


def _train_policy(
    policy: Weights,
    episodes: list[Episode],
    tests: list[Episode],
    environment: Environment,
    output: Path,
    recipe: Recipe,
) -> dict[str, Any]:
    """Train, and measure before, between and after; what was measured before a stop is not measured again.

    Beside it the rules, and the lazy policies: a gain over the untrained model that is none over doing
    nothing is that of having learned to do nothing."""
    from dataclasses import asdict, replace

    from memgraph_plugin.evaluation.policies import LAZY, Scored
    from memgraph_plugin.memalpha.episodes import digest
    from memgraph_plugin.memalpha.policies import Policy
    from memgraph_plugin.memalpha.rules import RulePolicy
    from memgraph_plugin.memalpha.train_policy import Decided, decide, mark, train
    from memgraph_plugin.models.training import last_checkpoint
    from memgraph_plugin.terminal import counting

    folder = Path(f"{output}.training")
    last_checkpoint(folder / "tests", f"{digest(tests)} {mark(policy, episodes, environment, recipe)}")
    scores: dict[str, Scored] = {}

    def measure(stage: str) -> None:
        kept = folder / "tests" / f"{stage}.json"
        if kept.exists():
            scores[stage] = Scored.from_plain(json.loads(kept.read_text("utf-8")))
            return
        with counting(options.console(err=True), f"tests, {stage}") as tell:
            made = list[Decided]()

            def worth(episode: Episode) -> Rewards:
                made.append(decide(policy, environment, episode, recipe))
                return made[-1].rewards

            scored = Scored.of(tests, worth, tell)
        scores[stage] = replace(scored, cut=sum(not each.whole for each in made) / len(made))
        kept.write_text(json.dumps(scores[stage].plain()), "utf-8")

    measure("untrained")
    with counting(options.console(err=True), f"updates, {len(episodes):,} episodes") as tell:
        train(
            policy, episodes, environment, folder, recipe,
            progress=lambda done, total, _: tell(done, total), after=measure,
        )  # fmt: skip
    last = [*scores][-1]
    others: list[Policy] = [RulePolicy(), *LAZY]
    for other in others:
        scores[other.name] = Scored.of(tests, lambda each, other=other: environment.rewards(each, other))  # type: ignore[misc]
    return {
        "data": digest(episodes),
        "episodes": len(episodes),
        "prompt": environment.prompt,
        "ask": environment.ask,
        "max_tokens": recipe.max_tokens,
        "recipe": asdict(recipe),
        "tests": {stage: each.figures(recipe.weights) for stage, each in scores.items()},
        "gains": {
            f"{last} over {stage}": scores[last].gain_over(each, recipe.weights)
            for stage, each in scores.items()
            if stage != last
        },
    }


def _save_policy(policy: Weights, output: Path, card: dict[str, Any]) -> None:
    from memgraph_plugin.memalpha.train_policy import save

    save(policy, output, card)
    for stage, figures in card["tests"].items():
        typer.echo(
            f"{stage:16} reward {figures['reward']:.3f} ({figures['low']:.3f} to {figures['high']:.3f}), "
            f"recall {figures['retrieval']:.3f}, updates {figures['update']:.3f}, "
            f"harm {figures['harm']:.3f}, cut {figures['cut']:.0%}"
        )
    for name, gain in card["gains"].items():
        typer.echo(f"{name}: {gain['gain']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})")
    typer.echo(f"Written to {output}.")
