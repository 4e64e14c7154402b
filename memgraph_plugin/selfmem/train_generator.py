"""Training of a generator on examples with what was retrieved for them, by transformers' Trainer.

Cheng et al., "Lift Yourself Up" (arXiv 2305.02437): negative log likelihood of the target behind source and
memory, label smoothing 0.1, inverse square root rates. Their printed rates are divided by the root of the
warm-up in their code; here a rate is the true peak (printed 4.4e-2 at 4,000 steps is 7e-4, of a larger one).

Departs from it: (1) the memory of a row is drawn anew each epoch: from its nearest few, now and then from
anywhere, and in a part of the rows it is a poor draft, the row's own target with words left out and changed,
where theirs is always the nearest (`memories=1, strays=0, drafts=0`). With thousands of pairs instead of
hundreds of thousands, a model otherwise learns the pairs instead of how to use a memory (development BLEU
45.4 against 40.5 after 12 epochs of 7,487 pairs); (2) the checkpoint that is kept is the best on the
development rows by greedy search; (3) a new network's learned positions begin as sinusoids, and its rate
peaks at 2e-3: both together write at 1,000 updates what the others do after 2,000 (29.5 against 11.0).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn import functional
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.models.training import SavedOnce, Told, last_checkpoint
from memgraph_plugin.models.weights import fast_bf16
from memgraph_plugin.selfmem.metrics import metric
from memgraph_plugin.selfmem.network import Network
from memgraph_plugin.selfmem.protocols import Retriever
from memgraph_plugin.selfmem.seq2seq import DualSeq2Seq, JointSeq2Seq, Seq2Seq, device, padded
from memgraph_plugin.selfmem.tokens import train_tokenizer
from memgraph_plugin.types import Example, Request

Score = Callable[[Sequence[str], Sequence[str]], float]
"""How good outputs are against their references, over all; more is better."""

Batch = list[tuple[int, str]]
"""Rows, and the memory that each is read with."""

SPOILT = 0.6
"""Share of a draft's words, at most, that are not the target's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a network that begins with random weights: a BART, encoder and decoder alike.

    Args:
        width: of its states; a multiple of `heads`.
        layers: of the encoder, and of the decoder.
        vocabulary: tokens, at most, that are learned from the examples.
        positions: tokens that it reads or writes at most.
    """

    width: int = 192
    layers: int = 2
    heads: int = 4
    vocabulary: int = 4000
    dropout: float = 0.2
    positions: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a generator is trained.

    Args:
        epochs: passes over the examples.
        tokens: in a batch, padding included.
        rate: the true peak of the learning rate; for a small new network. A trained one bears far less, 3e-5.
        warmup: updates until it is reached; of a short training at most a quarter.
        memories: of the nearest so many one is drawn for each row, anew in each epoch; 0 for none at all.
        strays: the share of rows that get the target of any other row instead.
        drafts: the share of rows that get their own target instead, spoilt: as the loop's candidates are.
        check_every: updates between checkpoints, each with a score of the development rows.
        patience: checks without a better score after which training ends; 0 for never.
    """

    epochs: int = 30
    tokens: int = 2048
    rate: float = 2e-3
    warmup: int = 500
    smoothing: float = 0.1
    memories: int = 5
    strays: float = 0.05
    drafts: float = 0.2
    check_every: int = 500
    patience: int = 0
    seed: int = 1


def new_generator(
    kind: Literal["joint", "dual"], examples: Sequence[Example], shape: Shape | None = None, *, seed: int = 1
) -> Seq2Seq:
    """A generator with random weights, and a tokenizer learned from sources and targets together."""
    shape = shape or Shape()
    tokens = train_tokenizer(
        (text for each in examples for text in (each.source, each.target)), shape.vocabulary
    )
    tokenizer = tokens.tokenizer
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=shape.width,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=4 * shape.width,
        decoder_ffn_dim=4 * shape.width,
        dropout=shape.dropout,
        max_position_embeddings=shape.positions,
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )
    torch.manual_seed(seed)
    base = BartForConditionalGeneration(config)
    for side in (base.model.encoder, base.model.decoder):
        _place(side.embed_positions.weight, config.init_std * shape.width**0.5)
    network = Network(base, kind == "dual")
    make = DualSeq2Seq if kind == "dual" else JointSeq2Seq
    return make(network.to(device()), tokens)


@torch.no_grad()
def _place(positions: torch.Tensor, size: float) -> None:
    """Let positions [P, d] begin as sinusoids as large as the words' embeddings, instead of at random."""
    places, width = positions.shape
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(places)[:, None] * rates
    positions[:, 0::2], positions[:, 1::2] = size * angles.sin(), size * angles.cos()


def train(
    generator: Seq2Seq,
    examples: Sequence[Example],
    retriever: Retriever,
    folder: Path,
    recipe: Recipe,
    *,
    dev: Sequence[Example] = (),
    score: Score | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Seq2Seq:
    """Train a generator; its weights are changed.

    Checkpoints go to `folder`; run again with the same arguments, it goes on from the last one, to the same
    weights as if it had never stopped. `progress` is called with updates done, all of them, and the mean loss
    since the call before.

    Args:
        retriever: over `examples`; neither a row itself nor its equals are given as its memory.
        dev: rows to choose the checkpoint by, with memories of the same retriever; the last one where empty.
        score: of them; sacreBLEU where None.

    Raises:
        ConfigurationError: there are no examples, or the folder has the checkpoints of another training.
    """
    if not examples:
        raise ConfigurationError("There is nothing to train on: no examples.")
    rows = _Rows(generator, examples, retriever, recipe)
    batches = [batch for epoch in range(recipe.epochs) for batch in rows.epoch(epoch)]
    torch.manual_seed(recipe.seed)
    trainer = _Trainer(
        model=_Learner(generator.network, recipe.smoothing),
        args=_arguments(folder, recipe, len(batches), generator, choose=bool(dev)),
        train_dataset=batches,
        eval_dataset=batches[:1] if dev else None,  # asked for; `evaluate` has its own
        data_collator=lambda samples: rows.tensors(samples[0]),
        callbacks=[_Told(progress)] if progress else [],
    )
    if dev:
        trainer.choose_by(generator, dev, retriever, score or metric("bleu").corpus)
        if recipe.patience:
            trainer.add_callback(EarlyStoppingCallback(recipe.patience))
    trainer.remove_callback(PrinterCallback)
    last = last_checkpoint(folder, f"{data_digest(examples)} {recipe} {generator.kind}")
    trainer.train(resume_from_checkpoint=last)
    generator.network.eval()
    how = {name: str(value) for name, value in asdict(recipe).items()}
    about = {**generator.trained_on, "data": data_digest(examples), **how}
    return type(generator)(generator.network, generator.tokens, generator.decoding, trained_on=about)


def data_digest(examples: Sequence[Example]) -> str:
    """A hash of sources and targets, in their order."""
    found = hashlib.sha256()
    for each in examples:
        found.update(f"{each.source}\0{each.target}\0".encode())
    return found.hexdigest()


class _Rows:
    """The examples as ids with their memories, and the batches of each epoch."""

    def __init__(
        self, generator: Seq2Seq, examples: Sequence[Example], retriever: Retriever, recipe: Recipe
    ) -> None:
        self._generator, self._recipe = generator, recipe
        config = generator.network.base.config
        most = min(generator.decoding.max_tokens, int(config.max_position_embeddings)) - 1
        self._targets = [
            [*generator.tokens.target(each.target)[:most], config.eos_token_id] for each in examples
        ]
        found = retriever.retrieve(
            [each.source for each in examples], recipe.memories, exclude=[each.key for each in examples]
        )
        self._memories = [[hit.target for hit in hits] or [""] for hits in found]
        self._examples = examples
        self._lengths = [len(generator.tokens.source(each.source)) for each in examples]
        self._memory_lengths: dict[str, int] = {}

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of rows of like length, drawn by seed and epoch alone, in random order."""
        draw = random.Random(f"{self._recipe.seed} {number}")  # noqa: S311 - a training run
        drawn = [(row, self._draw(row, draw)) for row in range(len(self._examples))]
        sizes = {pair: self._sizes(*pair) for pair in drawn}
        drawn.sort(key=lambda pair: (*(size // 4 for size in sizes[pair]), draw.random()))
        batches: list[Batch] = []
        batch: Batch = []
        widest: tuple[int, ...] = ()
        for pair in drawn:
            wider = tuple(map(max, zip(widest, sizes[pair], strict=True))) if batch else sizes[pair]
            if batch and (len(batch) + 1) * sum(wider) > self._recipe.tokens:
                batches.append(batch)
                batch, wider = [], sizes[pair]
            batch, widest = [*batch, pair], wider
        batches.append(batch)
        draw.shuffle(batches)
        yield from batches

    def tensors(self, batch: Batch) -> dict[str, Any]:
        pairs = [(self._examples[row].source, memory) for row, memory in batch]
        texts = [self._generator.inputs(*pair) for pair in pairs]
        pad = self._generator.network.base.config.pad_token_id
        targets, mask = padded([self._targets[row] for row, _ in batch], pad, "cpu")
        read = [padded(each, pad, "cpu") for each in zip(*texts, strict=True)]
        return {"read": read, "labels": targets.masked_fill(mask == 0, -100)}

    def _draw(self, row: int, draw: random.Random) -> str:
        chance = draw.random() - self._recipe.strays
        if chance < 0:
            return draw.choice(self._examples).target
        if chance < self._recipe.drafts:
            return self._draft(self._examples[row].target, draw)
        return draw.choice(self._memories[row])

    def _draft(self, target: str, draw: random.Random) -> str:
        """The target without some of its words, and with words of another one in place of some."""
        others, spoilt = draw.choice(self._examples).target.split() or [""], draw.uniform(0, SPOILT)
        words = (
            word if draw.random() >= spoilt else draw.choice(["", draw.choice(others)])
            for word in target.split()
        )
        return " ".join(word for word in words if word)

    def _sizes(self, row: int, text: str) -> tuple[int, ...]:
        """Tokens that are written, and of each text that is read, about."""
        if text not in self._memory_lengths:
            self._memory_lengths[text] = len(self._generator.tokens.target(text))
        read = self._lengths[row], self._memory_lengths[text]
        return len(self._targets[row]), *(read if self._generator.network.dual else [sum(read)])


class _Learner(SavedOnce):
    """The loss of a batch: only where there is a target are there logits."""

    def __init__(self, network: Network, smoothing: float) -> None:
        super().__init__()
        self.network = network
        self._smoothing = smoothing

    def forward(self, read: Any, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        config = self.network.base.config
        start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
        behind = torch.cat([start, labels[:, :-1]], dim=1)
        behind = behind.masked_fill(behind == -100, config.pad_token_id)
        states = self.network.states(behind, self.network.read(read))
        known = labels != -100
        logits = self.network.logits(states[known]).float()
        loss = functional.cross_entropy(logits, labels[known], label_smoothing=self._smoothing)
        return {"loss": loss}


class _Trainer(Trainer):
    """Takes the batches as they come, and chooses a checkpoint by what the generator writes."""

    def choose_by(
        self, generator: Seq2Seq, dev: Sequence[Example], retriever: Retriever, score: Score
    ) -> None:
        # One beam: to rank checkpoints, greedy outputs do, and cost a fifth.
        decoding = replace(generator.decoding, beams=1)
        self._greedy = type(generator)(generator.network, generator.tokens, decoding)
        nearest = retriever.retrieve(
            [each.source for each in dev], 1, exclude=[each.key or None for each in dev]
        )
        self._requests = [
            Request(source=each.source, memory=hits[0].target if hits else "")
            for each, hits in zip(dev, nearest, strict=True)
        ]
        self._references, self._score = [each.target for each in dev], score

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        training = self._greedy.network.training
        self._greedy.network.eval()
        outputs = [each.text for each in self._greedy.hypotheses(self._requests)]
        self._greedy.network.train(training)
        metrics = {"eval_score": self._score(outputs, self._references)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


def _arguments(
    folder: Path, recipe: Recipe, steps: int, generator: Seq2Seq, *, choose: bool
) -> TrainingArguments:
    where = generator.network.device.type
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # of our batches
        learning_rate=recipe.rate,
        lr_scheduler_type="inverse_sqrt",
        warmup_steps=min(recipe.warmup, steps // 4),
        adam_beta2=0.98,
        max_grad_norm=1.0,
        weight_decay=0.0,
        bf16=fast_bf16(where),
        save_steps=recipe.check_every,
        eval_strategy="steps" if choose else "no",
        eval_steps=recipe.check_every,
        load_best_model_at_end=choose,
        metric_for_best_model="score" if choose else None,
        save_total_limit=2,
        logging_steps=min(20, recipe.check_every),
        seed=recipe.seed,
        use_cpu=where == "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


class _Told(Told):
    """Tells of the last update too, which may come after the last that is logged."""

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002 - its form
        self._tell(state)
