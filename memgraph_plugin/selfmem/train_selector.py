"""Training of a selector, by transformers' Trainer: to say of a pool's candidates what a metric says of them.

L = KL(p_M || p_S), with p_M = softmax(Delta / tau) from the reference and p_S = softmax(S(x, c)) over the
pool (Cheng et al., Selfmem, arXiv 2305.02437, equations 3 to 5). Adam and a rate that falls in a line after
a warm-up, as DrNMT.

Departs from them: pools that teach nothing (`pools.target`) are left out; the checkpoint kept is the one
whose picks score best on pools held out, where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.models.training import SavedOnce, Told, last_checkpoint
from memgraph_plugin.selfmem.kl import KLSelector, pool_loss
from memgraph_plugin.selfmem.metrics import metric
from memgraph_plugin.selfmem.pools import Pool, digest, labels, quality, target

Sample = Mapping[str, Any]
"""A pool's `pairs` of source and candidate, and the `goal` of each."""

_PICKED = "eval_picked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a selector is trained.

    Args:
        metric: of the labels and of the checkpoint that is kept (`metrics.metric`).
        tau: how sharp the labels are made; the paper tries 0.08 to 0.8.
        normalize: "minmax" spreads the labels of a pool over 0..1 first, "none" leaves them as they are.
        steps: updates.
        batch: pools in an update.
        together: pools in a forward pass, as many as memory allows; a divisor of `batch`.
        rate: the highest learning rate.
        warmup: the share of updates until it is reached.
        save_every: updates between checkpoints, and between looks at the pools held out.
    """

    metric: str = "bleu"
    tau: float = 0.5
    normalize: Literal["minmax", "none"] = "minmax"
    steps: int = 1_000
    batch: int = 8
    together: int = 1
    rate: float = 5e-5
    warmup: float = 0.025
    save_every: int = 100
    seed: int = 1


def train(
    selector: KLSelector,
    pools: Sequence[Pool],
    folder: Path,
    recipe: Recipe,
    *,
    held_out: Sequence[Pool] = (),
    progress: Callable[[int, int, float], None] | None = None,
) -> KLSelector:
    """Train a selector. Its model is changed; it is given back with what it was trained on.

    Checkpoints go to `folder`; run again, after Ctrl-C or a crash, it goes on from the last one. `progress`
    is called with updates done, all of them, and the mean loss since the call before.

    Raises:
        ConfigurationError: no pool has candidates that differ by the metric; the recipe cannot be; or the
            checkpoints in the folder are of another training.
        MissingExtraError: the extra `selfmem` is not installed.
    """
    if recipe.tau <= 0 or recipe.together < 1 or recipe.batch % recipe.together:
        raise ConfigurationError("tau must be above 0, and `together` a divisor of `batch`.")
    learned = samples(pools, recipe)
    if not learned:
        raise ConfigurationError(f"Nothing to learn: in no pool do candidates differ by {recipe.metric}.")
    last = last_checkpoint(folder, json.dumps([asdict(recipe), digest(pools), selector.training.base]))
    torch.manual_seed(recipe.seed)
    trainer = _Trainer(
        selector,
        held_out,
        recipe.metric,
        model=_Pooled(selector.model),
        args=_arguments(folder, recipe, on_cpu=selector.model.device.type == "cpu", looks=bool(held_out)),
        train_dataset=learned,
        eval_dataset=list(held_out) or None,
        data_collator=lambda some: _together(selector, some),
        callbacks=[Told(progress)] if progress else [],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last)
    return selector.trained(
        metric=recipe.metric, tau=recipe.tau, normalize=recipe.normalize, pools=digest(pools)
    )


def samples(pools: Sequence[Pool], recipe: Recipe) -> list[Sample]:
    """What is learned from each pool, without those that teach nothing."""
    found: list[Sample] = []
    for pool, each in zip(pools, labels(pools, metric(recipe.metric)), strict=True):
        if goal := target(each, recipe.tau, recipe.normalize):
            pairs = [(pool.request.source, candidate.text) for candidate in pool.candidates]
            found.append({"pairs": pairs, "goal": goal})
    return found


def _arguments(folder: Path, recipe: Recipe, *, on_cpu: bool, looks: bool) -> TrainingArguments:
    held: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": recipe.save_every,
        "load_best_model_at_end": True,
        "metric_for_best_model": _PICKED,
        "greater_is_better": True,
    }
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.together,
        gradient_accumulation_steps=recipe.batch // recipe.together,
        learning_rate=recipe.rate,
        lr_scheduler_type="linear",
        warmup_steps=round(recipe.warmup * recipe.steps),
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        weight_decay=0.0,
        max_grad_norm=1.0,
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=1,
        seed=recipe.seed,
        use_cpu=on_cpu,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **(held if looks else {}),
    )


class _Pooled(SavedOnce):
    """A selector's model that reads whole pools and gives their loss."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pairs: Mapping[str, torch.Tensor], goal: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, Any]:
        scores = goal.new_zeros(goal.shape)
        scores[mask] = self.model(**pairs).logits[:, 0].to(goal.dtype)
        return {"loss": pool_loss(scores, goal, mask)}


class _Trainer(Trainer):
    """Looks at the picks of a selector from the pools held out, not at its loss."""

    def __init__(self, selector: KLSelector, held_out: Sequence[Pool], by: str, **given: Any) -> None:
        self._selector, self._held_out, self._metric = selector, held_out, metric(by)
        super().__init__(**given)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self._selector.model.eval()
        pools = self._held_out
        told = self._selector.scores([pool.request for pool in pools], [pool.candidates for pool in pools])
        found = {_PICKED: quality(pools, told, self._metric).picked}
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


def _together(selector: KLSelector, some: Sequence[Sample]) -> dict[str, Any]:
    """Pools in one input: their pairs one below the other, goals [B, N] and where there is a candidate."""
    widest = max(len(sample["goal"]) for sample in some)
    rows = [[*sample["goal"], *[0.0] * (widest - len(sample["goal"]))] for sample in some]
    mask = [[place < len(sample["goal"]) for place in range(widest)] for sample in some]
    return {
        "pairs": dict(selector.read([pair for sample in some for pair in sample["pairs"]])),
        "goal": torch.tensor(rows),
        "mask": torch.tensor(mask),
    }
