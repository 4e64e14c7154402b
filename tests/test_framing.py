"""How a text and questions are laid before a model."""

from __future__ import annotations

import pytest

from memgraph_plugin.memorag.compressor import Compressor
from memgraph_plugin.memorag.framing import Frame
from memgraph_plugin.memorag.spec import MemorySpec
from tests.tiny_models import tiny

TEMPLATE = "<end>{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}[assistant]"


def test_without_a_template_words_are_only_words() -> None:
    frame = Frame.of(tiny().tokenizer)
    assert frame.before == ()
    assert frame.tokenizer.decode(frame.question("Who <end> is it?")) == "\n\nWho <end> is it?"
    assert frame.tokenizer.eos_token_id not in frame.question("Who <end> is it?")
    assert frame.reply(frame.text(" Ann \n")) == "Ann"


def test_text_and_question_are_one_message_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny().tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    compressor = Compressor(tiny(), MemorySpec(window=64))
    memory = compressor.memorize("A text with <end> in it.")
    whole = [*memory.tail, *compressor.frame.question("Who?")]
    assert tokenizer.decode(whole) == "<end>[user]A text with <end> in it.\n\nWho?<end>[assistant]"
    assert whole.count(tokenizer.eos_token_id) == 2


def test_memorizing_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny().tokenizer, "chat_template", TEMPLATE)
    compressor = Compressor(tiny(), MemorySpec(window=16))
    text = "the cat sat on the mat and looked at the dog " * 4
    half = compressor.memorize(text[:60])
    whole = compressor.memorize(text, half)
    assert (whole.digest, whole.tail) == ((again := compressor.memorize(text)).digest, again.tail)
