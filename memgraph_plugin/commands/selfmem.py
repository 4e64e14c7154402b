"""Selfmem from pairs to figures: train a generator, build pools, train a selector, calibrate, evaluate.

What the first command was told of the pairs is kept beside the generator, so that all later ones divide them
alike: nothing is chosen or measured on what was learned from. Every one goes on where it was stopped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from memgraph_plugin.commands import options
from memgraph_plugin.commands import selfmem_corpus as shared
from memgraph_plugin.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from memgraph_plugin.selfmem.pools import Pool
    from memgraph_plugin.selfmem.protocols import Generator
    from memgraph_plugin.selfmem.seq2seq import Seq2Seq
    from memgraph_plugin.types import Example

Data = Annotated[
    Path, typer.Option("--data", help="The pairs, JSONL, as it was trained on.", exists=True, dir_okay=False)
]
GeneratorFolder = Annotated[
    Path, typer.Option("--generator", help="A trained generator's folder.", exists=True, file_okay=False)
]
SelectorName = Annotated[
    str, typer.Option("--selector", help='A trained selector\'s folder, or "consensus" or "likelihood".')
]
MetricName = Annotated[str, typer.Option("--metric", help="bleu, chrf, rouge, bleu-1/2 or distinct.")]
PoolSize = Annotated[int, typer.Option("--pool", min=1, help="Candidates of a source; the paper has 50.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Sources, at most.")]


def train_generator(
    data: Annotated[Path, typer.Argument(help="Pairs, JSONL.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("--output", help="The generator's folder.")],
    source: Annotated[str, typer.Option("--source", help="The field of the source.")] = "source",
    target: Annotated[str, typer.Option("--target", help="The field of the target.")] = "target",
    dev: Annotated[int, typer.Option("--dev", min=0, help="Pairs to choose settings by.")] = 500,
    test: Annotated[int, typer.Option("--test", min=0, help="Pairs to report.")] = 500,
    kind: Annotated[str, typer.Option("--kind", help="joint or dual.")] = "joint",
    base: Annotated[
        str | None, typer.Option("--base", help="A BART or Marian by name or path; else a new small one.")
    ] = None,
    width: Annotated[int, typer.Option("--width", min=16, help="Of a new one's states.")] = 192,
    layers: Annotated[int, typer.Option("--layers", min=1, help="Of a new one, each side.")] = 2,
    vocabulary: Annotated[int, typer.Option("--vocabulary", min=100, help="Of a new one.")] = 4000,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the pairs.")] = 30,
    rate: Annotated[
        float, typer.Option("--rate", help="The true peak of the learning rate; with --base rather 3e-5.")
    ] = 2e-3,
    memories: Annotated[
        int, typer.Option("--memories", min=0, help="Of the nearest so many, one is read; the paper has 1.")
    ] = 5,
    strays: Annotated[
        float, typer.Option("--strays", min=0, max=1, help="Share of rows that read anybody's; the paper: 0.")
    ] = 0.05,
    drafts: Annotated[
        float, typer.Option("--drafts", min=0, max=1, help="... that read their own, spoilt; the paper: 0.")
    ] = 0.2,
    seed: Annotated[
        int, typer.Option("--seed", help="Of its training; the pairs are always divided alike.")
    ] = 1,
) -> None:
    """Train a generator on pairs and what is retrieved for them. Stopped, the same command goes on.

    Example: memgraph-plugin train selfmem-generator pairs.jsonl --source en --target de --output generator
    """
    if kind not in ("joint", "dual"):
        raise ConfigurationError(f"--kind: joint or dual, not {kind!r}")
    about: dict[str, Any] = {
        "source": source,
        "target": target,
        "dev": dev,
        "test": test,
        "kind": kind,
        "base": base,
        "width": width,
        "layers": layers,
        "vocabulary": vocabulary,
        "epochs": epochs,
        "rate": rate,
        "memories": memories,
        "strays": strays,
        "drafts": drafts,
        "seed": seed,
    }
    splits = shared.divided(data, about)
    about["digest"] = shared.digest(splits.train)
    _trained(about, splits.train, splits.dev, output)
    (output / shared.ABOUT).write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    typer.echo(
        f"Written to {output}: {len(splits.train):,} pairs to learn from, "
        f"{len(splits.dev):,} for choices, {len(splits.test):,} to report."
    )


def build_pools(
    data: Data,
    generator: GeneratorFolder,
    output: Annotated[Path, typer.Option("--output", help="Where the pools go, JSONL.")],
    part: Annotated[str, typer.Option("--part", help="train, dev or test.")] = "train",
    folds: Annotated[
        int,
        typer.Option(
            "--folds", min=0, help="Train so many generators, each without a part, which it then writes."
        ),
    ] = 0,
    pool: PoolSize = 50,
    limit: Limit = None,
) -> None:
    """Write the candidates that a selector learns from. Of pairs that a generator was trained on it writes
    better than it ever will again: give --folds, or take a part that it has not seen.

    Example: memgraph-plugin build-pools --data pairs.jsonl --generator g --folds 3 --output pools.jsonl
    """
    from memgraph_plugin.selfmem import pools as pooling

    about, splits = shared.corpus_of(generator, data)
    if part not in ("train", "dev", "test"):
        raise ConfigurationError(f"--part: train, dev or test, not {part!r}")
    chosen = list(getattr(splits, part))[:limit]
    requests = shared.requests_of(shared.retriever(splits), chosen, own=part == "train")
    kept = output.with_name(output.name + ".kept")
    made: Iterable[Pool]
    if folds:

        def trained(places: list[int], number: int) -> Generator:
            learned, folder = [chosen[place] for place in places], output.with_name(f"{output.name}.{number}")
            return shared.kept(_trained(about, learned, splits.dev, folder), kept)

        made = pooling.cross_fitted(chosen, requests, trained, parts=folds, n=pool)
    else:
        references = [each.target for each in chosen]
        made = pooling.build(shared.kept(shared.load(generator), kept), requests, references, n=pool)
    count = pooling.write(made, output)
    typer.echo(f"Written to {output}: {count:,} pools.")


def train_selector(
    pools: Annotated[Path, typer.Argument(help="Of build-pools.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("--output", help="The selector's folder.")],
    kind: Annotated[str, typer.Option("--kind", help="linear (seconds) or kl (a network).")] = "linear",
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="Of kl: an encoder or a generator, by name or path; else a new small one."
        ),
    ] = None,
    generator: Annotated[
        Path | None,
        typer.Option("--generator", help="Of a new small one: whose tokens it reads.", exists=True),
    ] = None,
    metric: MetricName = "bleu",
    tau: Annotated[float, typer.Option("--tau", help="How sharp the labels are made.")] = 0.5,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Updates of kl.")] = 1000,
    rate: Annotated[
        float, typer.Option("--rate", help="Of kl, its highest; for a pretrained encoder by default.")
    ] = 5e-5,
    held_out: Annotated[int, typer.Option("--held-out", min=0, help="Pools to choose by and report.")] = 200,
    task: Annotated[str, typer.Option("--task", help='What it is for, "translation".')] = "",
    language: Annotated[str, typer.Option("--language", help='"en-de", for example.')] = "",
) -> None:
    """Train a selector to choose as the metric would, without a reference. Stopped, the same command goes on.

    Example: memgraph-plugin train selfmem-selector pools.jsonl --output selector --metric bleu
    """
    from memgraph_plugin.selfmem import metrics
    from memgraph_plugin.selfmem import pools as pooling
    from memgraph_plugin.selfmem.linear_kl import LinearKLSelector

    everything = pooling.read(pools)
    if len(everything) <= held_out:
        raise ConfigurationError(f"{pools} has {len(everything)} pools, and {held_out} are to be held out.")
    learned, rest = everything[held_out:], everything[:held_out]
    made: Any
    if kind == "linear":
        made = LinearKLSelector.fit(learned, task=task, language=language, by=metric, tau=tau)
    elif kind == "kl":
        made = _kl(base, generator, task=task, language=language)
        made = _train_kl(
            made, learned, rest, Path(f"{output}.training"), metric=metric, tau=tau, steps=steps, rate=rate
        )
    else:
        raise ConfigurationError(f"--kind: linear or kl, not {kind!r}")
    made.save(output)
    if rest:
        scores = made.scores([each.request for each in rest], [each.candidates for each in rest])
        found = pooling.quality(rest, scores, metrics.metric(metric))
        typer.echo(
            f"{metric} of its picks {found.picked:.2f}; by chance {found.random:.2f}, "
            f"best {found.oracle:.2f} (on {len(rest):,} pools held out)."
        )
    typer.echo(f"Written to {output}.")


def calibrate(
    data: Data,
    generator: GeneratorFolder,
    selector: SelectorName,
    most: Annotated[int, typer.Option("--most", min=0, help="Rounds that are tried.")] = 4,
    pool: PoolSize = 50,
    compete: Annotated[bool, typer.Option("--compete", help="Retrieved memory is a candidate too.")] = False,
    metric: MetricName = "bleu",
    limit: Limit = None,
) -> None:
    """Find the number of rounds on the pairs that are for choices; it is kept with a trained selector.

    Example: memgraph-plugin calibrate --data pairs.jsonl --generator generator --selector selector
    """
    from memgraph_plugin.selfmem.calibrate import calibrate as find
    from memgraph_plugin.selfmem.loop import Plan
    from memgraph_plugin.selfmem.metrics import metric as named

    _, splits = shared.corpus_of(generator, data)
    chosen = list(splits.dev)[:limit]
    found = find(
        shared.kept(shared.load(generator), generator / "calibrate.kept"),
        shared.selector_named(selector),
        shared.requests_of(shared.retriever(splits), chosen),
        [each.target for each in chosen],
        Plan(rounds=most, pool=pool, compete=compete),
        score=named(metric).corpus,
        metric=metric,
    )
    for number, score in enumerate(found.curve):
        typer.echo(f"{number} rounds: {metric} {score:.2f}{'  <- best' if number == found.rounds else ''}")
    if Path(selector).is_dir():
        found.save(Path(selector))
        typer.echo(f"Written to {selector}.")


def evaluate(
    data: Data,
    generator: GeneratorFolder,
    selector: Annotated[
        list[str],
        typer.Option("--selector", help='Folders, "consensus" or "likelihood"; the first is calibrated.'),
    ],
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="In place of what was calibrated.")
    ] = None,
    pool: Annotated[
        int | None, typer.Option("--pool", min=1, help="Candidates of a source; else as calibrated, or 50.")
    ] = None,
    compete: Annotated[
        bool | None,
        typer.Option(
            "--compete/--no-compete", help="Retrieved memory is a candidate too; else as calibrated."
        ),
    ] = None,
    metric: MetricName = "bleu",
    limit: Limit = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the figures here, as JSON, and a plot beside it.")
    ] = None,
) -> None:
    """Whether self-memory helps, on the pairs that are to report. Give each run that shall go on an --output.

    Example: memgraph-plugin evaluate selfmem --data pairs.jsonl --generator generator --selector selector
    """
    from memgraph_plugin.evaluation import plot
    from memgraph_plugin.evaluation import selfmem as evaluation
    from memgraph_plugin.selfmem.calibrate import Calibration
    from memgraph_plugin.selfmem.loop import Plan
    from memgraph_plugin.selfmem.metrics import metric as named

    _, splits = shared.corpus_of(generator, data)
    chosen, loaded = list(splits.test)[:limit], shared.load(generator)
    plan = Plan(rounds=rounds or 1, pool=50)
    if calibrated := rounds is None and Path(selector[0]).is_dir():
        plan = Calibration.load(Path(selector[0])).plan(loaded, plan)
    given: dict[str, Any] = {"pool": pool, "compete": compete}
    plan = replace(plan, **{name: value for name, value in given.items() if value is not None})
    kept = output.with_name(f"{output.name}.kept") if output else None
    report = evaluation.evaluate(
        shared.kept(loaded, kept),
        {Path(name).name: shared.selector_named(name) for name in selector},
        shared.requests_of(shared.retriever(splits), chosen),
        [each.target for each in chosen],
        [each.target for each in splits.train],
        metric=named(metric),
        plan=plan,
        timed=loaded,
        settings={
            "data": data.name,
            "generator": dict(loaded.fingerprint),
            "calibrated": plan.rounds if calibrated else None,
        },
    )
    for table in evaluation.selfmem_tables(report):
        options.console().print(table)
    if output:
        output.write_text(json.dumps(report.to_json(), indent=2) + "\n", "utf-8")
        curves = {name: [step.output for step in steps] for name, steps in report.curves.items()}
        drawn = plot.lines(curves, title="Self-memory, round by round", x="round", y=metric)
        output.with_suffix(".svg").write_text(drawn, "utf-8")
        typer.echo(f"Written to {output} and {output.with_suffix('.svg')}.")


def _trained(
    about: dict[str, Any], examples: Sequence[Example], dev: Sequence[Example], folder: Path
) -> Seq2Seq:
    """A generator trained as `about` says, or the one that was; saved in the folder."""
    from memgraph_plugin.selfmem import seq2seq
    from memgraph_plugin.selfmem.retriever import BM25Retriever
    from memgraph_plugin.selfmem.train_generator import Recipe, Shape, new_generator, train
    from memgraph_plugin.terminal import counting

    kind: Literal["joint", "dual"] = about["kind"]
    if about["base"]:
        make = seq2seq.DualSeq2Seq if kind == "dual" else seq2seq.JointSeq2Seq
        generator = make.from_pretrained(about["base"])
    else:
        shape = Shape(width=about["width"], layers=about["layers"], vocabulary=about["vocabulary"])
        generator = new_generator(kind, examples, shape, seed=about["seed"])
    told = ("epochs", "rate", "memories", "strays", "drafts", "seed")
    recipe = Recipe(**{name: about[name] for name in told})
    with counting(options.console(err=True), f"updates, {len(examples):,} pairs") as tell:
        made = train(
            generator,
            examples,
            BM25Retriever(examples),
            Path(f"{folder}.training"),
            recipe,
            dev=dev,
            progress=lambda done, total, _: tell(done, total),
        )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(folder)
    return made


def _kl(base: str | None, generator: Path | None, *, task: str, language: str) -> Any:
    from memgraph_plugin.selfmem.kl import KLSelector

    if base:
        return KLSelector.begin(base, task=task, language=language)
    if generator is None:
        raise ConfigurationError(
            "A selector of kind kl begins from --base, or with the tokens of a --generator."
        )
    return KLSelector.small(shared.load(generator).tokens.tokenizer, task=task, language=language)


def _train_kl(selector: Any, pools: Any, held_out: Any, folder: Path, **given: Any) -> Any:
    from memgraph_plugin.selfmem.train_selector import Recipe, train
    from memgraph_plugin.terminal import counting

    recipe = Recipe(**given)
    with counting(options.console(err=True), f"updates, {len(pools):,} pools") as tell:
        return train(
            selector,
            pools,
            folder,
            recipe,
            held_out=held_out,
            progress=lambda done, total, _: tell(done, total),
        )
