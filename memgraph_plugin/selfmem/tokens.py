"""A generator's words: texts as ids and back; and a tokenizer learned from examples where none is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, END = "<pad>", "</s>"


@dataclass(frozen=True)
class Tokens:
    """A tokenizer of transformers, asked for bare ids, and the ids that stand around a text."""

    tokenizer: Any

    def source(self, text: str) -> list[int]:
        return self._ids(text=text)

    def target(self, text: str) -> list[int]:
        """A Marian's tokenizer has another half for targets."""
        return self._ids(text_target=text)

    def _ids(self, **text: str) -> list[int]:
        # What looks like a special token in somebody's text is text.
        ids: list[int] = self.tokenizer(
            **text, add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        return ids

    def text(self, ids: Iterable[int]) -> str:
        """Exactly what was written; where a source was learned with spaces at its ends, they stay."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    @cached_property
    def around(self) -> tuple[list[int], int]:
        """The ids before a text, and the one behind it."""
        empty = self.tokenizer("").input_ids
        end = self.tokenizer.eos_token_id
        return [token for token in empty if token != end], end

    @cached_property
    def digest(self) -> str:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        known = backend.to_str() if backend is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        return hashlib.sha256(known.encode()).hexdigest()


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokens:
    """One byte-level BPE for sources and targets: it knows every text, and gives it back letter by letter."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Tokens(_wrapped(tokenizer))


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)]
    )
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False
    )
    return made
