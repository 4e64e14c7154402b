"""What a compressed memory keeps: the measure itself, on tiny models; the commands, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.evaluation.compression import COLOURS, kept_table, likelihood, needles
from memgraph_plugin.memorag.spec import MemorySpec
from tests.tiny_models import tiny

TEXT = "It was the best of times, it was the worst of times. It was the age of wisdom. " * 40
SPECS = [MemorySpec(window=64, ratio=1), MemorySpec(window=64, ratio=4, scorer="random")]


def test_likelihood_is_of_what_follows_and_of_what_was_read() -> None:
    found = list(likelihood(tiny(), TEXT, [None, *SPECS], windows=4, places=2))
    assert [each.entries for each in found] == [0, 256, 68]
    assert all(len(each.values["next"]) == len(each.values["copy"]) == 2 for each in found)
    nothing, everything, some = (sum(each.values["copy"]) for each in found)
    assert len({nothing, everything, some}) == 3
    assert len(kept_table(found).rows) == 3


def test_a_text_too_short_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"tokens; .* are needed"):
        list(likelihood(tiny(), "short", SPECS))


def test_eight_needles_are_hidden_and_asked_for() -> None:
    found = list(needles(tiny(), TEXT, SPECS, length=1_000, seeds=(1, 2)))
    assert [len(each.values["hits"]) for each in found] == [2, 2]
    assert all(0 <= hits <= len(COLOURS) for each in found for hits in each.values["hits"])


def test_the_commands_train_and_measure(tmp_path: Path) -> None:
    book, model = tmp_path / "book.txt", tmp_path / "model"
    book.write_text(TEXT, "utf-8")
    tiny().model.save_pretrained(model)
    tiny().tokenizer.save_pretrained(model)
    tokens, output = tmp_path / "tokens.safetensors", tmp_path / "out.json"
    made = CliRunner().invoke(
        app,
        f"train memorag {book} --model local:{model} --output {tokens} --steps 2 --batch 1 --window 64 "
        "--windows 2 --ratios 4 --rank 2".split(),
    )
    assert made.exit_code == 0, made.output
    assert "Loss" in made.output
    for more, measure in (([], "copy"), (["--needles", "600"], "hits")):
        measured = CliRunner().invoke(
            app,
            f"evaluate compression --data {book} --model local:{model} --window 64 --ratios 4 --places 1 "
            f"--scorers random,norm --tokens {tokens} --output {output}".split()
            + more,
        )
        assert measured.exit_code == 0, measured.output
        assert "memory tokens" in measured.output
        assert measure in json.loads(output.read_text("utf-8"))["found"][0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--scorers nobody", "no 'nobody'"),
        ("--ratios 3", "3 does not divide"),
        ("--ratios x", "whole numbers"),
        ("--model openai:x", "no local model"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path: Path, options: str, why: str) -> None:
    book = tmp_path / "book.txt"
    book.write_text(TEXT, "utf-8")
    refused = CliRunner().invoke(app, f"evaluate compression --data {book} {options}".split())
    assert refused.exit_code == 1
    assert why in refused.output
