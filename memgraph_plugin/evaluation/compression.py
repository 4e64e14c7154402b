"""What a compressed memory keeps of a text, for any model and any way to compress: likelihood, and needles.

Likelihood, in nats a token, lower is better: `next` of 191 tokens that follow what was memorized; `copy` of
64 tokens of an earlier passage after its first 16, for eight passages: only who remembers word for word can
foretell them.
Needles: eight five-digit codes hidden in the text, each asked for behind the memory; a hit has the code.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import torch

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memorag.compressor import Compressor
from memgraph_plugin.memorag.kv_memory import KVMemory
from memgraph_plugin.memorag.reader import answers
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.models.weights import Weights

if TYPE_CHECKING:
    from rich.table import Table

    from memgraph_plugin.memorag.beacon import MemoryTokens

NEXT, PREFIX, COPIED, PASSAGES = 192, 16, 64, 8

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black")
NEEDLE = "The secret code of the {colour} vault is {code}."
ASKED = "What is the secret code of the {colour} vault? Reply with the number only."


@dataclass(frozen=True, slots=True)
class Kept:
    """What one way to compress kept: one value a place in the text or a seed, and what it cost."""

    spec: MemorySpec | None
    values: Mapping[str, tuple[float, ...]]
    entries: int
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "spec": asdict(self.spec) if self.spec else None,
            **{name: {"mean": fmean(found), "each": list(found)} for name, found in self.values.items()},
            "entries": self.entries,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 2),
        }

    def shown(self, name: str) -> str:
        """The mean, and over several values their standard deviation."""
        found = self.values[name]
        return f"{fmean(found):.3f}" + (f" ±{stdev(found):.3f}" if len(found) > 1 else "")


def likelihood(
    weights: Weights,
    text: str,
    specs: Sequence[MemorySpec | None],
    *,
    windows: int = 4,
    places: int = 2,
    tokens: MemoryTokens | None = None,
) -> Iterator[Kept]:
    """`next` and `copy` of each way to compress, at several places of a text; None remembers nothing.

    Raises:
        ConfigurationError: the text is too short.
    """
    ids = Compressor(weights, MemorySpec()).frame.text(text)
    for spec in specs:
        window = (spec or next(filter(None, specs), MemorySpec())).window
        length = windows * window
        if len(ids) < length + NEXT:
            raise ConfigurationError(f"the text has {len(ids)} tokens; {length + NEXT} are needed")
        starts = [round(n * (len(ids) - length - NEXT) / max(places, 1)) for n in range(places)]
        found: dict[str, list[float]] = {"next": [], "copy": []}
        began, memory = time.perf_counter(), None
        for start in starts:
            part = ids[start : start + length]
            memory = _memorized(weights, spec, part, tokens)
            found["next"].append(_nll(weights, memory, ids[start + length :][:NEXT], 1))
            passages = [
                part[at : at + PREFIX + COPIED]
                for at in (round((n + 0.5) * (length - PREFIX - COPIED) / PASSAGES) for n in range(PASSAGES))
            ]
            found["copy"].append(fmean(_nll(weights, memory, passage, PREFIX) for passage in passages))
        seconds = (time.perf_counter() - began) / len(starts)
        yield _kept(spec, found, memory, seconds)


def needles(
    weights: Weights,
    text: str,
    specs: Sequence[MemorySpec],
    *,
    length: int = 4_000,
    seeds: Sequence[int] = (1,),
    tokens: MemoryTokens | None = None,
) -> Iterator[Kept]:
    """`hits` of eight for each way to compress, with other codes and places for each seed."""
    for spec in specs:
        hits, memory, began = [], None, time.perf_counter()
        for seed in seeds:
            hidden, codes = _hidden(weights, text, length, seed)
            compressor = Compressor(weights, spec, tokens)
            memory = compressor.memorize(hidden)
            asked = [compressor.frame.question(ASKED.format(colour=colour)) for colour in codes]
            said = [compressor.frame.reply(ids) for ids in answers(weights, memory, asked, max_tokens=12)]
            hits.append(float(sum(code in reply for code, reply in zip(codes.values(), said, strict=True))))
        yield _kept(spec, {"hits": hits}, memory, (time.perf_counter() - began) / len(seeds))


def kept_table(found: Sequence[Kept]) -> Table:
    """What was measured, one way to compress a row."""
    from rich.table import Table

    measures = list(found[0].values) if found else []
    shown = Table(caption="Means of all places or seeds ± their standard deviation; seconds for one of them.")
    for column in ("who chooses", "ratio", *measures, "entries", "MB", "seconds"):
        shown.add_column(column, justify="right")
    for each in found:
        name = "nothing kept" if each.spec is None else "everything kept"
        if each.spec and each.spec.ratio > 1:
            name = "memory tokens" if each.spec.mode == "beacon" else each.spec.scorer
        shown.add_row(
            name,
            str(each.spec.ratio) if each.spec else "",
            *(each.shown(measure) for measure in measures),
            f"{each.entries:,}",
            f"{each.bytes / 1e6:.1f}",
            f"{each.seconds:.1f}",
        )
    return shown


def _hidden(weights: Weights, text: str, length: int, seed: int) -> tuple[str, dict[str, str]]:
    """About `length` tokens of a text with a needle in each eighth of it; the codes by colour."""
    draw = random.Random(seed)  # noqa: S311 - a benchmark
    codes = {colour: str(draw.randint(10_000, 99_999)) for colour in draw.sample(COLOURS, len(COLOURS))}
    sentences = text[: length * 6].replace("\n", " ").split(". ")
    lengths = [len(weights.tokenizer(sentence, verbose=False).input_ids) for sentence in sentences]
    taken, total = 0, 0
    while taken < len(sentences) and total < length:
        total += lengths[taken]
        taken += 1
    sentences = sentences[:taken]
    for number, (colour, code) in reversed(list(enumerate(codes.items()))):
        at = round((number + draw.random()) * taken / len(codes))
        sentences.insert(at, NEEDLE.format(colour=colour, code=code).removesuffix("."))
    return ". ".join(sentences), codes


def _memorized(
    weights: Weights, spec: MemorySpec | None, ids: Sequence[int], tokens: MemoryTokens | None
) -> KVMemory:
    compressor = Compressor(weights, spec or MemorySpec(), tokens)
    memory = compressor.new()
    if spec is not None:
        compressor.append(memory, ids)
    return memory


@torch.inference_mode()
def _nll(weights: Weights, memory: KVMemory, ids: Sequence[int], given: int) -> float:
    """The mean negative log likelihood of `ids` behind the memory, after the first `given`."""
    read = torch.tensor([list(ids)], device=weights.model.device)
    logits = weights.model(input_ids=read, past_key_values=memory.fork()).logits[0, given - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits.float(), read[0, given:]))


def _kept(
    spec: MemorySpec | None, found: Mapping[str, Sequence[float]], memory: KVMemory | None, seconds: float
) -> Kept:
    values = {name: tuple(each) for name, each in found.items()}
    return Kept(spec, values, memory.entries if memory else 0, memory.bytes if memory else 0, seconds)
