"""How a text and a question about it are laid before a model: to a chat model as one message of a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MARK = "\u2e28here\u2e29"


@dataclass(frozen=True)
class Frame:
    """The ids that stand before a text, and what makes a question of words behind it.

    Args:
        before: what a chat template begins a user's message with; nothing where there is no template.
        after: what it ends the message with, up to where the reply begins.
    """

    tokenizer: Any
    before: tuple[int, ...]
    after: str

    @classmethod
    def of(cls, tokenizer: Any) -> Frame:
        if not getattr(tokenizer, "chat_template", None):
            return cls(tokenizer, (), "")
        shown = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}], add_generation_prompt=True, tokenize=False
        )
        before, _, after = shown.partition(_MARK)
        return cls(tokenizer, tuple(_ids(tokenizer, before)), after)

    def question(self, words: str) -> list[int]:
        """The ids of a question or an instruction, up to where the reply begins."""
        return [*self.text(f"\n\n{words}"), *_ids(self.tokenizer, self.after)]

    def text(self, words: str) -> list[int]:
        """The ids of words alone: what looks like a tag of a template is text like any other."""
        return _ids(self.tokenizer, words, split_special_tokens=True)

    def reply(self, ids: Sequence[int]) -> str:
        """The words of a reply's ids."""
        words: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return words.strip()


def _ids(tokenizer: Any, text: str, **options: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False, **options).input_ids
    return ids
