"""Selfmem's commands one after the other, as somebody types them, on a handful of pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="needs the extra local")

from memgraph_plugin.cli import app  # noqa: E402
from memgraph_plugin.selfmem import pools as pooling  # noqa: E402
from memgraph_plugin.selfmem.calibrate import Calibration  # noqa: E402
from memgraph_plugin.selfmem.seq2seq import Seq2Seq, load_generator  # noqa: E402
from tests.tiny_generators import EXAMPLES  # noqa: E402

TINY = ("--width", "32", "--layers", "1", "--vocabulary", "300", "--rate", "5e-3", "--epochs", "80")
GIVEN = ("--data", "pairs.jsonl", "--generator", "generator")
SELECT = ("train", "selfmem-selector", "pools.jsonl", "--metric", "chrf", "--held-out", "3")
CALIBRATE = ("calibrate", *GIVEN, "--most", "2", "--pool", "3", "--metric", "chrf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands are called, with their pairs."""
    folder = tmp_path_factory.mktemp("selfmem")
    lines = [json.dumps({"id": each.key, "en": each.source, "de": each.target}) for each in EXAMPLES]
    (folder / "pairs.jsonl").write_text("\n".join(lines), "utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    torch.set_num_threads(threads)


def call(*words: str, fails: int = 0) -> Result:
    """Run a command; it ends well unless a failure is expected."""
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == fails, done.output + repr(done.exception)
    return done


def learn(*more: str, fails: int = 0) -> Result:
    fields = ("--source", "en", "--target", "de", "--dev", "6", "--test", "6", "--output", "generator")
    return call("train", "selfmem-generator", "pairs.jsonl", *fields, *TINY, *more, fails=fails)


# What each command makes, for the next one


@pytest.fixture(scope="module")
def generator(folder: Path) -> Result:
    return learn()


@pytest.fixture(scope="module")
def pools(generator: Result) -> Result:
    return call("build-pools", *GIVEN, "--pool", "3", "--folds", "2", "--output", "pools.jsonl")


@pytest.fixture(scope="module")
def selectors(pools: Result) -> list[Result]:
    network = ("--kind", "kl", "--generator", "generator", "--steps", "2", "--rate", "0.001")
    return [call(*SELECT, "--output", "selector"), call(*SELECT, *network, "--output", "network")]


@pytest.fixture(scope="module")
def calibrated(selectors: list[Result]) -> Result:
    call(*CALIBRATE, "--selector", "network")
    return call(*CALIBRATE, "--selector", "selector")


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests generators were called with, call for call."""
    write, counts = Seq2Seq._write, list[int]()

    def counting(self: Seq2Seq, requests: Any, *how: Any) -> Any:
        counts.append(len(requests))
        return write(self, requests, *how)

    monkeypatch.setattr(Seq2Seq, "_write", counting)
    return counts


def test_a_generator_is_trained_once_and_knows_its_pairs(generator: Result) -> None:
    assert "12 pairs to learn from, 6 for choices, 6 to report" in generator.output
    first = load_generator(Path("generator")).fingerprint
    learn()
    assert load_generator(Path("generator")).fingerprint == first
    assert "another training" in learn("--seed", "2", fails=1).output


def test_pools_hold_nothing_that_their_generator_saw(pools: Result) -> None:
    assert "12 pools" in pools.output
    made = pooling.read(Path("pools.jsonl"))
    assert all(pool.reference for pool in made)
    assert all(each.source != pool.request.source for pool in made for each in pool.request.examples)
    words = ("build-pools", *GIVEN, "--pool", "3")
    assert "6 pools" in call(*words, "--part", "dev", "--output", "dev.jsonl").output
    assert "--part" in call(*words, "--part", "all", "--output", "no.jsonl", fails=1).output


def test_pools_that_were_broken_off_go_on(
    generator: Result, generated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("build-pools", *GIVEN, "--pool", "3", "--folds", "2", "--output", "again.jsonl")
    write, made = Seq2Seq.candidates, list[int]()

    def stops(self: Seq2Seq, requests: Any, n: int, *, seed: int = 0) -> Any:
        made.append(len(requests))
        if len(made) == 2:
            raise KeyboardInterrupt
        return write(self, requests, n, seed=seed)

    with monkeypatch.context() as patch:
        patch.setattr(Seq2Seq, "candidates", stops)
        call(*words, fails=130)
    assert not Path("again.jsonl").exists()
    generated.clear()
    assert "12 pools" in call(*words).output
    assert sum(generated) == made[1] == 6


def test_a_selector_learns_from_pools(selectors: list[Result]) -> None:
    for each in selectors:
        assert "on 3 pools held out" in each.output
    assert "12 are to be held out" in call(*SELECT, "--held-out", "12", "--output", "x", fails=1).output
    assert "--base" in call(*SELECT, "--kind", "kl", "--output", "x", fails=1).output


def test_the_rounds_are_chosen_and_kept(calibrated: Result, generated: list[int]) -> None:
    lines = calibrated.stdout.splitlines()
    assert [line[:8] for line in lines[:3]] == ["0 rounds", "1 rounds", "2 rounds"]
    assert call(*CALIBRATE, "--selector", "selector").stdout == calibrated.stdout
    assert generated == []
    assert len(Calibration.load(Path("selector")).curve) == 3
    assert "Written" not in call(*CALIBRATE, "--selector", "consensus").output


def test_it_is_measured(calibrated: Result, generated: list[int]) -> None:
    named = ("--selector", "selector", "--selector", "network", "--selector", "consensus")
    words = ("evaluate", "selfmem", *GIVEN, "--metric", "chrf", *named, "--output", "report.json")
    done = call(*words)
    for said in ("reference", "oracle", "consensus", "network", "seconds a source"):
        assert said in done.stdout
    report = json.loads(Path("report.json").read_text("utf-8"))
    assert report["plan"]["pool"] == 3
    assert list(report["ladder"]) == ["none", "random", "retrieved", "reference"]
    assert report["ladder"]["reference"]["memory"] == 100
    assert report["curves"]["oracle"][0] == report["curves"]["selector"][0]
    assert report["curves"]["oracle"][-1]["pool_best"] >= report["curves"]["oracle"][-1]["pool_mean"]
    assert sum(each["count"] for each in report["buckets"]["oracle"]) == report["sources"] == 6
    assert all(each["multiple"] > 0 for each in report["times"].values())
    assert {len(texts) for texts in report["outputs"].values()} == {6}
    assert {"reference", "retrieved", "oracle", "selector"} <= set(report["outputs"])
    assert Path("report.svg").read_text("utf-8").startswith("<svg")
    generated.clear()
    call(*words)
    again = json.loads(Path("report.json").read_text("utf-8"))
    assert {**again, "times": 0} == {**report, "times": 0}
    assert sum(generated) == 2 * (6 + 3 * (3 * 6))  # the times are taken anew, twice


def test_what_does_not_fit_is_refused(generator: Result, folder: Path) -> None:
    (folder / "other.jsonl").write_text(
        (folder / "pairs.jsonl").read_text("utf-8").replace("Datei", "Akte"), "utf-8"
    )
    (folder / "empty").mkdir()
    for data, made, selector, said in (
        ("other.jsonl", "generator", "consensus", "not what the generator"),
        ("pairs.jsonl", "empty", "consensus", "no generator of"),
        ("pairs.jsonl", "generator", "best", "trained one's folder"),
    ):
        words = ("--data", data, "--generator", made, "--selector", selector)
        assert said in call("calibrate", *words, fails=1).output
