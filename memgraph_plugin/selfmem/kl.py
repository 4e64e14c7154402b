"""A selector that reads source and candidate together and was trained to say what a metric would.

Cheng et al., Selfmem (arXiv 2305.02437, section 3.3), after DrNMT (Lee et al., 2021): an encoder with one
number for its first token, a softmax over the pool. Any sequence classifier of transformers will do (the
paper: XLM-R base for translation, RoBERTa base for summaries and dialogue). Departs from DrNMT: positions do
not start again at the candidate, and the two are told apart as the model was pretrained to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.models.weights import quiet
from memgraph_plugin.selfmem.selectors import check_pools
from memgraph_plugin.selfmem.trained import Training, read_training, write_training
from memgraph_plugin.types import Candidate, Request

MOST_TOKENS = 512
"""Of source and candidate together; the longer of the two loses its end first."""

DROPOUT = 0.2
"""Of the head, in training."""


class KLSelector:
    """Scores candidates by a sequence classifier, on a GPU where there is one.

    A pair that comes twice is read once, and pairs of a length are read together.

    Args:
        model: a sequence classifier with one label, of transformers.
        tokenizer: its tokenizer; it must be able to pad.
        training: what it was trained for.
        batch: pairs in a forward pass.
    """

    def __init__(self, model: Any, tokenizer: Any, training: Training, *, batch: int = 64) -> None:
        if model.config.num_labels != 1:
            raise ConfigurationError(f"A selector has one label; this model has {model.config.num_labels}.")
        if tokenizer.pad_token_id is None:
            raise ConfigurationError("This tokenizer has no token to pad with.")
        model.config.pad_token_id = tokenizer.pad_token_id
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self.tokenizer = tokenizer
        self.training = training
        self._batch = batch

    @classmethod
    def begin(cls, base: str, *, task: str = "", language: str = "") -> KLSelector:
        """One to be trained, from an encoder in a directory or on the hub ("FacebookAI/xlm-roberta-base").

        Raises:
            ConfigurationError: there is no such model.
        """
        model, tokenizer = _loaded(base, num_labels=1, classifier_dropout=DROPOUT)
        return cls(model, tokenizer, Training(kind="kl", task=task, language=language, base=Path(base).name))

    @classmethod
    def small(
        cls,
        tokenizer: Any,
        *,
        layers: int = 4,
        width: int = 256,
        seed: int = 1,
        task: str = "",
        language: str = "",
    ) -> KLSelector:
        """One to be trained from nothing, on the tokens of a generator, say, where nothing is pretrained.

        Raises:
            ConfigurationError: the tokenizer has no token to begin or to end a text with.
        """
        torch.manual_seed(seed)
        tokenizer = _paired(tokenizer)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=max(width // 64, 1),
            intermediate_size=4 * width,
            max_position_embeddings=MOST_TOKENS + 2,
            classifier_dropout=DROPOUT,
        )
        config.num_labels = 1
        model = BertForSequenceClassification(config)
        return cls(model, tokenizer, Training(kind="kl", task=task, language=language, base="small"))

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        check_pools(requests, pools)
        pairs = [
            [(request.source, candidate.text) for candidate in pool]
            for request, pool in zip(requests, pools, strict=True)
        ]
        ordered = sorted(
            {pair for pool in pairs for pair in pool}, key=lambda pair: len(pair[0]) + len(pair[1])
        )
        told: dict[tuple[str, str], float] = {}
        with torch.inference_mode():
            for start in range(0, len(ordered), self._batch):
                some = ordered[start : start + self._batch]
                logits = self.model(**self.read(some).to(self.model.device)).logits[:, 0]
                told.update(zip(some, logits.float().tolist(), strict=True))
        return [[told[pair] for pair in pool] for pool in pairs]

    def read(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Sources and candidates as the model's input, padded to the longest of them."""
        # Two positions of RoBERTa's kind are not for tokens.
        positions = getattr(self.model.config, "max_position_embeddings", MOST_TOKENS + 2) - 2
        return self.tokenizer(
            [source for source, _ in pairs],
            [text for _, text in pairs],
            truncation="longest_first",
            max_length=min(MOST_TOKENS, positions, self.tokenizer.model_max_length),
            padding=True,
            return_tensors="pt",
        )

    def trained(self, **changes: Any) -> KLSelector:
        """The same model with more known of its training."""
        return KLSelector(self.model, self.tokenizer, replace(self.training, **changes), batch=self._batch)

    def save(self, folder: Path) -> None:
        """Write it to a folder, made where there is none."""
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        write_training(folder, self.training)

    @classmethod
    def load(cls, folder: Path, *, task: str = "", language: str = "") -> KLSelector:
        """Read a saved one.

        Raises:
            ConfigurationError: there is none in the folder.
            FingerprintMismatch: it was trained for another task or language.
        """
        training, _ = read_training(folder, "kl", task=task, language=language)
        return cls(*_loaded(str(folder)), training)


def pool_loss(scores: torch.Tensor, goal: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(goal || softmax of the scores over the pool), in nats, a mean over pools.

    Args:
        scores: [B, N] of each candidate.
        goal: [B, N], each row a distribution; 0 where there is no candidate.
        mask: [B, N], true where there is one; the others count for nothing.
    """
    told = scores.masked_fill(~mask, float("-inf")).log_softmax(-1).masked_fill(~mask, 0.0)
    return (torch.xlogy(goal, goal) - goal * told).sum(-1).mean()


def _loaded(path: str, **settings: Any) -> tuple[Any, Any]:
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path)
            model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32, **settings)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"No selector's model could be loaded from {path!r}: {reason}") from error
    return model, tokenizer


def _paired(tokenizer: Any) -> Any:
    """A copy of a tokenizer that writes a pair as begin, source, end, candidate, end."""
    begin = tokenizer.cls_token or tokenizer.bos_token or tokenizer.eos_token
    end = tokenizer.sep_token or tokenizer.eos_token
    if not begin or not end:
        raise ConfigurationError("This tokenizer has no token to begin and to end a text with.")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in {begin, end}],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=tokenizer.pad_token,
        cls_token=begin,
        sep_token=end,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
