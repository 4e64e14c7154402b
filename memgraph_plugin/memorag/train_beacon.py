"""Training of memory tokens, by transformers' Trainer: everything else of the model stays as it is.

The first stage of MemoRAG (section 2.3) after Activation Beacon: a text is read window by window, each behind
what memory tokens kept of those before, at a ratio drawn anew for each window; the loss is that of the next
token from the second window on, so that only a memory that helps is rewarded. Gradients run through all
windows.

Departs from it: (1) what the uncompressed model would have said may be the target as well (`distill`), a
denser signal for short runs; (2) a part of the samples ends with the task to repeat one of the windows
(`copies`), since the next token hardly asks for what was said word for word; (3) the second stage, drafting
clues, is trained on sentences that are known to be the evidence (`clue_samples`), where the paper has clues
written by other models; (4) its third stage, preferences over sets of clues, is left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memorag.beacon import MemoryTokens
from memgraph_plugin.memorag.compressor import keep
from memgraph_plugin.memorag.framing import Frame
from memgraph_plugin.memorag.kv_memory import Cache, Layer, cache_of
from memgraph_plugin.memorag.rotary import check_supported
from memgraph_plugin.models.training import Told, last_checkpoint
from memgraph_plugin.models.weights import Weights
from memgraph_plugin.prompts import RECONSTRUCT

IGNORED = -100
"""The label of a token that nothing is learned from."""

Sample = Mapping[str, Any]
"""`input_ids` and `labels` [n] each, and how many `windows` are compressed; the rest is read behind them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How memory tokens are trained.

    Args:
        window: raw tokens in a window.
        windows: windows of a sample that are compressed.
        ratios: one of them is drawn for each window.
        rank: of a low-rank change of the projections; 0 trains copies of them, as the paper does.
        steps: updates.
        batch: samples in an update.
        rate: the first learning rate, which falls to zero; None for 5e-5, or 2e-4 of a low-rank change.
        distill: the weight of the uncompressed model's own distribution as a target, beside the text.
        copies: the share of samples that end by repeating one of their windows.
        save_every: updates between checkpoints.
    """

    window: int = 512
    windows: int = 4
    ratios: tuple[int, ...] = (2, 4, 8, 16)
    rank: int = 0
    steps: int = 200
    batch: int = 8
    rate: float | None = None
    distill: float = 1.0
    copies: float = 0.2
    save_every: int = 50
    seed: int = 1


def train(
    weights: Weights,
    samples: Sequence[Sample],
    folder: Path,
    recipe: Recipe,
    *,
    tokens: MemoryTokens | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> MemoryTokens:
    """Train memory tokens; those given, or new ones.

    Checkpoints go to `folder`; run again, it goes on from the last one. `progress` is called with steps done,
    all of them, and the mean loss since the call before.

    Raises:
        ConfigurationError: the model is of an unsupported make, there are no samples, or the folder has the
            checkpoints of another training.
    """
    check_supported(weights.model.config)
    if not samples:
        raise ConfigurationError("There is nothing to train on: the texts are shorter than a sample.")
    last = last_checkpoint(folder, f"{recipe} {_digest(samples)}")
    torch.manual_seed(recipe.seed)
    reader = _Reader(weights, tokens or MemoryTokens(weights.model, recipe.rank), recipe)
    rate = recipe.rate or (2e-4 if recipe.rank else 5e-5)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=recipe.batch,
        learning_rate=rate,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        weight_decay=0.0,
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=1,
        seed=recipe.seed,
        use_cpu=weights.model.device.type == "cpu",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=reader,
        args=arguments,
        train_dataset=list(samples),
        data_collator=_one,
        callbacks=[Told(progress)] if progress else [],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last)
    return reader.tokens.to(weights.model.device).eval()


def text_samples(frame: Frame, texts: Sequence[str], recipe: Recipe) -> Iterator[Sample]:
    """Texts cut into samples of `windows` + 1 windows; some end by repeating one of theirs."""
    draw = random.Random(recipe.seed)  # noqa: S311 - a training set
    length = recipe.windows * recipe.window
    again = frame.text(RECONSTRUCT)
    for text in texts:
        ids = frame.text(text)
        for start in range(0, len(ids) - length - recipe.window + 1, length):
            read = ids[start : start + length]
            if draw.random() < recipe.copies:
                at = draw.randrange(recipe.windows) * recipe.window
                said = read[at : at + recipe.window]
                # What stands behind a task is learned alone: the text before it is other samples' matter.
                labels = [IGNORED] * (length + len(again)) + said
                yield {"input_ids": [*read, *again, *said], "labels": labels, "windows": recipe.windows}
            else:
                whole = ids[start : start + length + recipe.window]
                labels = [IGNORED] * recipe.window + whole[recipe.window :]
                yield {"input_ids": whole, "labels": labels, "windows": recipe.windows}


def clue_samples(
    frame: Frame, records: Sequence[Mapping[str, Any]], ask: Callable[[str], str], recipe: Recipe
) -> Iterator[Sample]:
    """Samples for the second stage: of a "context" and a "question" the "clues", sentences of the context.

    `ask` makes the instruction of a question. A context shorter than a window is left out.
    """
    for record in records:
        ids = [*frame.before, *frame.text(record["context"])]
        windows = len(ids) // recipe.window
        asked = frame.question(ask(record["question"]))
        said = [*frame.text("\n".join(record["clues"])), frame.tokenizer.eos_token_id]
        if windows:
            labels = [IGNORED] * (len(ids) + len(asked)) + said
            yield {"input_ids": [*ids, *asked, *said], "labels": labels, "windows": windows}


def _digest(samples: Sequence[Sample]) -> str:
    found = sha256()
    for each in samples:
        found.update(json.dumps(each, sort_keys=True).encode())
    return found.hexdigest()


class _Reader(nn.Module):
    """Reads a sample window by window and gives its loss; the memory tokens are all there is to train."""

    def __init__(self, weights: Weights, tokens: MemoryTokens, recipe: Recipe) -> None:
        super().__init__()
        self.tokens = tokens.float()
        self._base = [weights.model.requires_grad_(False)]  # in a list: not to be saved with every checkpoint
        self._recipe = recipe
        self._draw = random.Random(recipe.seed)  # noqa: S311 - a training run

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, windows: int) -> dict[str, torch.Tensor]:
        model, length = self._base[0], self._recipe.window
        targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        teacher = self._teacher(input_ids, targets)
        layers: list[Layer] = []
        losses, counted = input_ids.new_zeros((), dtype=torch.float), 0
        for number in range(windows + 1):
            part = slice(number * length, (number + 1) * length if number < windows else None)
            cache = cache_of(layers)
            if number < windows:
                ratio = self._draw.choice(self._recipe.ratios)
                states, mask = self.tokens.read(model, cache, input_ids[:, part], ratio)
                layers = _kept(cache, layers, mask, model.base_model.rotary_emb.inv_freq)
                states = states[:, ~mask]
            else:
                states = model.base_model(
                    input_ids=input_ids[:, part], past_key_values=cache
                ).last_hidden_state
            learned = targets[:, part] != IGNORED
            if learned.any():
                logits = model.get_output_embeddings()(states[learned]).float()
                losses = losses + nn.functional.cross_entropy(
                    logits, targets[:, part][learned], reduction="sum"
                )
                if teacher is not None:
                    wanted = teacher[:, part][learned].float().log_softmax(-1)
                    losses = losses + self._recipe.distill * nn.functional.kl_div(
                        logits.log_softmax(-1), wanted, reduction="sum", log_target=True
                    )
                counted += int(learned.sum())
        return {"loss": losses / max(counted, 1)}

    @torch.no_grad()
    def _teacher(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
        """What the model itself would say, having read everything [B, n, vocabulary]."""
        if not self._recipe.distill or not (targets != IGNORED).any():
            return None
        logits: torch.Tensor = self._base[0](input_ids=ids, use_cache=False).logits
        return logits


def _kept(cache: Cache, before: list[Layer], mask: torch.Tensor, frequencies: torch.Tensor) -> list[Layer]:
    """The memory with the memory tokens of the window that the cache has behind it; differentiable."""
    start, places = before[0][0].shape[2] if before else 0, mask.nonzero()[:, 0]
    for layer in cache.layers:
        keep(layer, start, places.expand(layer.keys.shape[1], -1), frequencies)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _one(samples: Sequence[Sample]) -> dict[str, Any]:
    (sample,) = samples
    return {
        "input_ids": torch.tensor([sample["input_ids"]]),
        "labels": torch.tensor([sample["labels"]]),
        "windows": sample["windows"],
    }
