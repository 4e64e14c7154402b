"""What Selfmem's commands share: how the pairs are divided, what is retrieved, what is loaded and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memgraph_plugin.commands import options
from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch

if TYPE_CHECKING:
    from memgraph_plugin.selfmem.corpus import Splits
    from memgraph_plugin.selfmem.protocols import Generator, Retriever, Selector
    from memgraph_plugin.selfmem.seq2seq import Seq2Seq
    from memgraph_plugin.types import Example, Request

ABOUT = "corpus.json"
"""Beside a generator: what it was told of the pairs, and how it was trained."""


def divided(data: Path, about: dict[str, Any]) -> Splits:
    """The same parts whatever the seed that a generator is trained with: what they write can be compared."""
    from memgraph_plugin.selfmem import corpus

    examples = corpus.read(data, about["source"], about["target"])
    return corpus.split(examples, dev=about["dev"], test=about["test"])


def corpus_of(generator: Path, data: Path) -> tuple[dict[str, Any], Splits]:
    """What the generator was trained on, divided as it was then."""
    try:
        about: dict[str, Any] = json.loads((generator / ABOUT).read_text("utf-8"))
        splits = divided(data, about)
        same = about["digest"] == digest(splits.train)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{generator} has no {ABOUT}: it is no generator of `train selfmem-generator` ({error})."
        ) from error
    if not same:
        raise FingerprintMismatch(f"{data} is not what the generator in {generator} was trained on.")
    return about, splits


def digest(examples: Sequence[Example]) -> str:
    from memgraph_plugin.selfmem.calibrate import data_hash

    return data_hash([each.source for each in examples], [each.target for each in examples])


def load(generator: Path) -> Seq2Seq:
    from memgraph_plugin.selfmem.seq2seq import load_generator

    return load_generator(generator)


def retriever(splits: Splits) -> Retriever:
    from memgraph_plugin.selfmem.retriever import BM25Retriever

    return BM25Retriever(splits.train)


def requests_of(retriever: Retriever, examples: Sequence[Example], *, own: bool = False) -> list[Request]:
    """Round 0 of each; where the examples are the retriever's `own`, none of them finds itself."""
    from memgraph_plugin.selfmem.loop import Plan, begin

    exclude = [each.key for each in examples] if own else None
    found = retriever.retrieve([each.source for each in examples], Plan().examples, exclude=exclude)
    return [begin(each.source, near) for each, near in zip(examples, found, strict=True)]


def selector_named(name: str) -> Selector:
    from memgraph_plugin.selfmem.saved import load_selector
    from memgraph_plugin.selfmem.selectors import ConsensusSelector, LikelihoodSelector

    if name == "likelihood":
        return LikelihoodSelector()
    if name == "consensus":
        return ConsensusSelector()
    if not Path(name).is_dir():
        raise ConfigurationError(
            f'--selector: "consensus", "likelihood" or a trained one\'s folder, not {name!r}'
        )
    return load_selector(Path(name))


def kept(generator: Generator, path: Path | None) -> Generator:
    """The generator with its outputs kept in this file, and bars; without a file, as it is."""
    from memgraph_plugin.selfmem.kept import Kept
    from memgraph_plugin.terminal import counting

    return (
        Kept(generator, path, bar=lambda what: counting(options.console(err=True), what))
        if path
        else generator
    )
