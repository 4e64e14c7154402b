"""K from development data, and outputs that are kept so that a stopped job goes on."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.selfmem.calibrate import Calibration, calibrate
from memgraph_plugin.selfmem.kept import Kept
from memgraph_plugin.selfmem.loop import Plan, begin
from tests.drafting import PAIRS, Beams, Middle

REQUESTS = [begin(pair.source, [pair]) for pair in PAIRS]


def closeness(outputs: list[str], references: list[str]) -> float:
    return -sum(abs(len(a) - len(b)) for a, b in zip(outputs, references, strict=True))


def found(most: int, longer: int) -> Calibration:
    references = [f"{pair.target}{'x' * longer}" for pair in PAIRS]
    plan = Plan(rounds=most, pool=3)
    return calibrate(Beams(), Middle(), REQUESTS, references, plan, score=closeness, metric="length")  # type: ignore[arg-type]


@pytest.mark.parametrize(("longer", "rounds"), [(1, 0), (3, 1), (5, 2), (99, 3)])
def test_k_is_where_the_development_data_score_best(longer: int, rounds: int) -> None:
    calibration = found(3, longer)
    assert calibration.rounds == rounds
    assert len(calibration.curve) == 4


def test_of_equals_the_fewest_rounds() -> None:
    assert found(3, 2).curve[:2] == (-3.0, -3.0)
    assert found(3, 2).rounds == 0


def test_it_is_kept_and_holds_for_its_generator_alone(tmp_path: Path) -> None:
    calibration = found(2, 3)
    calibration.save(tmp_path / "selector")
    assert Calibration.load(tmp_path / "selector") == calibration
    assert calibration.plan(Beams()) == Plan(rounds=1, pool=3)
    with pytest.raises(FingerprintMismatch, match="generator differ"):
        calibration.plan(Beams(fingerprint={"generator": "other"}))
    with pytest.raises(ConfigurationError, match="no calibration"):
        Calibration.load(tmp_path)


def test_there_must_be_something_to_calibrate_on() -> None:
    with pytest.raises(ConfigurationError):
        calibrate(Beams(), Middle(), [], [], Plan(), score=closeness, metric="length")  # type: ignore[arg-type]


def test_what_was_generated_is_not_generated_again(tmp_path: Path) -> None:
    path, told = tmp_path / "kept.jsonl", []
    first = Beams()
    kept = Kept(first, path, bar=lambda what: nullcontext(lambda *counts: told.append((what, *counts))))
    pools = kept.candidates([*REQUESTS, REQUESTS[0]], 2, seed=1)
    outputs = kept.hypotheses(REQUESTS)
    assert len(first.asked) == 3
    assert told == [(what, done, 3) for what in ("candidates", "hypotheses") for done in (0, 3)]
    with path.open("a") as file:
        file.write('\n{"key": "half')
    again = Beams()
    kept = Kept(again, path)
    assert kept.candidates([*REQUESTS, REQUESTS[0]], 2, seed=1) == pools
    assert kept.hypotheses(REQUESTS) == outputs
    assert again.asked == []
    kept.candidates(REQUESTS, 2, seed=2)
    kept.candidates(REQUESTS, 1, seed=1)
    assert len(again.asked) == 6
    other = Beams(fingerprint={"generator": "other"})
    Kept(other, path).candidates(REQUESTS, 2, seed=1)
    assert len(other.asked) == 3
    assert Kept(Beams(), path).candidates(REQUESTS, 2, seed=2) == kept.candidates(REQUESTS, 2, seed=2)


def test_a_job_that_is_stopped_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memgraph_plugin.selfmem.kept.CHUNK", 1)

    class Stops(Beams):
        def candidates(self, requests, n, *, seed=0):  # type: ignore[no-untyped-def]
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().candidates(requests, n, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        Kept(Stops(), tmp_path / "kept.jsonl").candidates(REQUESTS, 2)
    rest = Beams()
    Kept(rest, tmp_path / "kept.jsonl").candidates(REQUESTS, 2)
    assert [request.source for request, _ in rest.asked] == [PAIRS[2].source]
