"""Training of a local model to decide what to remember: a supervised beginning, then GRPO, on a LoRA adapter.

Mem-alpha (arXiv 2509.25911) trains Qwen3-4B by GRPO in verl on 32 GPUs; here TRL's GRPOTrainer (DeepSeekMath,
arXiv 2402.03300; its loss "dapo", no reference model) does it on whatever there is, for the rewards of
`rewards`, on one decision a row. Advantages are by a group's own mean, undivided (Dr. GRPO, arXiv
2503.20783): where nothing is to be remembered, all replies are worth nearly the same, and divided by so small
a deviation they would count as much as those where much is at stake, until the model does nothing any more.

Departs from it, and confesses: (1) replies are text in JSON, held to the operations' schema while they are
sampled, as in production; tokens that the schema left no choice about are not learned from, but where it left
some of them, the gradient is that of the model without the schema. (2) `warmup` steps imitate operations that
are known to be right before the first reward: a model of 135M parameters says at first little that is worth
anything, equally so in all of a group, and then there is no advantage to learn from. What the beginning has
gained is no merit of the rewards: both are to be reported. (3) TRL's own tools and environments are not used:
they need a chat template with tools, which small models lack, and a tool call a turn, where one reply has all
operations of a batch.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memalpha.environment import Environment, written
from memgraph_plugin.memalpha.episodes import Episode, digest
from memgraph_plugin.memalpha.rewards import TERMS, Rewards, RewardWeights, rewards
from memgraph_plugin.memalpha.tools import shown_schema
from memgraph_plugin.models.rollouts import Rollout, rollouts
from memgraph_plugin.models.training import Told, last_checkpoint
from memgraph_plugin.models.weights import Weights, weights_hash
from memgraph_plugin.types import Delete, NoOp, Update

IGNORED = -100
"""The label of a token that nothing is learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a policy is trained.

    Args:
        warmup: updates of the supervised beginning; 0 for none.
        warmup_batch: episodes in one of them.
        warmup_rate: their first learning rate, which falls to zero.
        steps: updates by GRPO.
        group: replies to one episode, which are compared with each other.
        episodes: in an update.
        max_tokens: of a reply.
        temperature: replies are drawn with; below 1, they are nearer to the greedy one that a policy gives.
        rate: the learning rate of GRPO, constant.
        rank: of the adapter, on all linear layers.
        save_every: updates between checkpoints.
    """

    warmup: int = 100
    warmup_batch: int = 8
    warmup_rate: float = 5e-4
    steps: int = 100
    group: int = 8
    episodes: int = 1
    max_tokens: int = 128
    temperature: float = 0.7
    rate: float = 5e-5
    rank: int = 16
    save_every: int = 20
    weights: RewardWeights = field(default_factory=RewardWeights)
    seed: int = 1


def adapted(weights: Weights, recipe: Recipe) -> Weights:
    """The weights with a new adapter of random numbers, which changes nothing yet. `weights` are changed."""
    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(weights.model, config)
    if weights.tokenizer.pad_token is None:
        weights.tokenizer.pad_token = weights.tokenizer.eos_token
    return replace(weights, model=model)


def train(
    weights: Weights,
    episodes: Sequence[Episode],
    environment: Environment,
    folder: Path,
    recipe: Recipe,
    *,
    progress: Callable[[int, int, float], None] | None = None,
    after: Callable[[str], None] = lambda stage: None,  # noqa: ARG005
) -> None:
    """Train the adapter of `adapted(...)`: imitate, then GRPO.

    Checkpoints go to `folder`; run again with the same arguments, it goes on from the last one. The mean of
    each reward at each update is written there, to rewards.jsonl. `progress` is called with updates done, all
    of them, and the loss, of the beginning first; `after` with "warmup" and "grpo" when each is done.

    Raises:
        ConfigurationError: there are no episodes, their ids are not unique, or the folder has the checkpoints
            of another training.
    """
    if not episodes:
        raise ConfigurationError("There is nothing to train on: no episodes.")
    if len({episode.id for episode in episodes}) < len(episodes):
        raise ConfigurationError("Two episodes have the same id.")
    for stage, updates, learn in (("warmup", recipe.warmup, _imitate), ("grpo", recipe.steps, _reinforce)):
        if updates:
            learn(weights, episodes, environment, folder, recipe, progress)
            weights.model.eval()
            after(stage)


def mark(weights: Weights, episodes: Sequence[Episode], environment: Environment, recipe: Recipe) -> str:
    """What a training's outcome depends on: the model below the adapter, its chat template, the data, the
    recipe, and all of the environment but its code."""
    base = weights_hash(weights.model, without="lora_")
    return f"{base} {weights.tokenizer.chat_template} {digest(episodes)} {recipe} {environment}"


class Decided(NamedTuple):
    """A reply, what it is worth, and whether it came to its end within the allowed tokens."""

    reply: str
    rewards: Rewards
    whole: bool


def decide(weights: Weights, environment: Environment, episode: Episode, recipe: Recipe) -> Decided:
    """The greedy reply to one episode."""
    prompt, schema = prompt_ids(weights, environment, episode), _schema(environment, episode)
    reply = rollouts(weights, prompt, 1, schema, max_tokens=recipe.max_tokens)[0]
    text = weights.tokenizer.decode(reply.tokens, skip_special_tokens=True)
    return Decided(text, rewards(environment.play(episode, text)), reply.whole)


def prompt_ids(weights: Weights, environment: Environment, episode: Episode) -> list[int]:
    """The request as the model reads it.

    Raises:
        ConfigurationError: the model has no chat template.
    """
    if not weights.tokenizer.chat_template:
        raise ConfigurationError(f"{weights.name} has no chat template: choose an instruct or chat variant.")
    ids: list[int] = weights.tokenizer.apply_chat_template(
        environment.messages(episode), add_generation_prompt=True, return_dict=False
    )
    return ids


def _schema(environment: Environment, episode: Episode) -> dict[str, Any]:
    """What a reply is held to: no handle but those that are shown."""
    return shown_schema(environment.handles(episode), environment.limits)


def save(weights: Weights, folder: Path, card: Mapping[str, Any]) -> None:
    """The adapter, the tokenizer, and card.json: enough for "local:<folder>" where peft is installed."""
    weights.model.save_pretrained(folder)
    weights.tokenizer.save_pretrained(folder)
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")


# The supervised beginning.


def _imitate(
    weights: Weights,
    episodes: Sequence[Episode],
    environment: Environment,
    folder: Path,
    recipe: Recipe,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """Likelihood of the operations that are right, behind the request."""
    rows = [_imitated(weights, environment, each) for each in episodes if each.target]
    if not rows:
        raise ConfigurationError("No episode has a target: there is nothing to imitate (set warmup to 0).")
    training = mark(weights, episodes, environment, recipe)
    trainer = Trainer(
        model=weights.model,
        args=TrainingArguments(
            output_dir=str(folder / "warmup"),
            max_steps=recipe.warmup,
            per_device_train_batch_size=recipe.warmup_batch,
            learning_rate=recipe.warmup_rate,
            lr_scheduler_type="linear",
            logging_steps=1,
            **_arguments(weights, recipe),
        ),
        train_dataset=rows,
        data_collator=lambda samples: _padded(samples, weights.tokenizer.pad_token_id),
        callbacks=[Told(progress)] if progress else [],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "warmup", training))


def _imitated(weights: Weights, environment: Environment, episode: Episode) -> dict[str, list[int]]:
    """The request, and the target as far as it is about what is shown."""
    prompt, handles = prompt_ids(weights, environment, episode), environment.handles(episode)
    shown = {memory.key for memory in handles.memories.values()}
    target = [each for each in episode.target if not isinstance(each, Update | Delete) or each.key in shown]
    text = written(target or [NoOp()], handles)
    reply = [*weights.tokenizer.encode(text, add_special_tokens=False), weights.tokenizer.eos_token_id]
    return {"input_ids": prompt + reply, "labels": [IGNORED] * len(prompt) + reply}


def _padded(samples: Sequence[Mapping[str, list[int]]], pad: int) -> dict[str, Any]:
    """Padded on the left, so that the replies end together: only behind their part are words predicted."""
    width = max(len(each["input_ids"]) for each in samples)
    part = 1 + max(sum(label != IGNORED for label in each["labels"]) for each in samples)

    def rows(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([[filler] * (width - len(each[name])) + each[name] for each in samples])

    lengths = torch.tensor([[len(each["input_ids"])] for each in samples])
    return {
        "input_ids": rows("input_ids", pad),
        "labels": rows("labels", IGNORED)[:, -part:],
        "attention_mask": (torch.arange(width) >= width - lengths).long(),
        "logits_to_keep": part,
    }


# GRPO.


def _reinforce(
    weights: Weights,
    episodes: Sequence[Episode],
    environment: Environment,
    folder: Path,
    recipe: Recipe,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """TRL is given the episodes' ids for prompts: requests, replies and rewards are made by `_Rollouts`."""
    training = mark(weights, episodes, environment, recipe)
    args = GRPOConfig(
        output_dir=str(folder / "grpo"),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.group,
        gradient_accumulation_steps=recipe.episodes,
        num_generations=recipe.group,
        max_completion_length=recipe.max_tokens,
        temperature=recipe.temperature,
        learning_rate=recipe.rate,
        lr_scheduler_type="constant",
        reward_weights=[getattr(recipe.weights, term) for term in TERMS],
        beta=0.0,
        scale_rewards="none",
        gradient_checkpointing=False,
        logging_steps=1,
        **_arguments(weights, recipe),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using 'rollout_func'")  # pinned by the extra
        trainer = GRPOTrainer(
            model=weights.model,
            reward_funcs=list(map(_forwarded, TERMS)),
            args=args,
            train_dataset=Dataset.from_list([{"prompt": episode.id} for episode in episodes]),
            processing_class=weights.tokenizer,
            rollout_func=_Rollouts(weights, episodes, environment, recipe),
            callbacks=[_Logged(folder / "rewards.jsonl"), *([Told(progress)] if progress else [])],
        )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "grpo", training))


class _Rollouts:
    """TRL's `rollout_func`: replies, which of their tokens were chosen, and each term of their rewards."""

    def __init__(
        self, weights: Weights, episodes: Sequence[Episode], environment: Environment, recipe: Recipe
    ) -> None:
        self._weights, self._environment, self._recipe = weights, environment, recipe
        self._episodes = {episode.id: episode for episode in episodes}

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:  # noqa: ARG002 - TRL's form
        """An id stands there as often as replies are wanted, in a row."""
        made: dict[str, list[Any]] = {
            name: [] for name in ("prompt_ids", "completion_ids", "env_mask", *TERMS)
        }
        for name, group in groupby(prompts):
            episode = self._episodes[name]
            prompt = prompt_ids(self._weights, self._environment, episode)
            schema = _schema(self._environment, episode)
            for reply in self._replies(prompt, len(list(group)), schema):
                text = self._weights.tokenizer.decode(reply.tokens, skip_special_tokens=True)
                worth = rewards(self._environment.play(episode, text))
                end = [self._weights.tokenizer.eos_token_id] if reply.whole else []
                made["prompt_ids"].append(prompt)
                made["completion_ids"].append([*reply.tokens, *end])
                made["env_mask"].append([*map(int, reply.chosen), *(0 for _ in end)])
                for term in TERMS:
                    made[term].append(getattr(worth, term))
        return {**made, "logprobs": None}

    def _replies(self, prompt: list[int], count: int, schema: dict[str, Any]) -> list[Rollout]:
        return rollouts(
            self._weights,
            prompt,
            count,
            schema,
            max_tokens=self._recipe.max_tokens,
            temperature=self._recipe.temperature,
        )


def _forwarded(term: str) -> Any:
    """The reward function of a term that `_Rollouts` has worked out."""

    def forward(**given: Any) -> list[float]:
        scores: list[float] = given[term]
        return scores

    forward.__name__ = term
    return forward


class _Logged(TrainerCallback):
    """One line of JSON an update: the mean of each term, of the sum, and how the replies were."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002 - its form
        """What came after the checkpoint that is gone on from will come again."""
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
        self._path.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002
        logs = given.get("logs") or {}
        if "reward" not in logs:
            return
        line = {
            "step": state.global_step,
            "reward": logs["reward"],
            **{term: logs[f"rewards/{term}/mean"] for term in TERMS},
            "equal_groups": logs["frac_reward_zero_std"],
            "tokens": logs["completions/mean_length"],
            "cut": logs["completions/clipped_ratio"],
            "loss": logs["loss"],
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


# Both.


def _arguments(weights: Weights, recipe: Recipe) -> dict[str, Any]:
    where = weights.model.device.type
    return {
        "save_steps": recipe.save_every,
        "save_total_limit": 2,
        "seed": recipe.seed,
        "use_cpu": where == "cpu",
        "bf16": False,  # as the weights are loaded; the adapter is in float32
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
