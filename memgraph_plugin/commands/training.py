"""Training what can be trained: memory tokens, the compressed memory's own projections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memgraph_plugin.commands import options


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
