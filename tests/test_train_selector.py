"""The selector that reads: its loss by hand, that padding counts for nothing, and that training resumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sacrebleu", reason="metrics are in the extra selfmem")
torch = pytest.importorskip("torch", reason="it is in the extra local")

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch  # noqa: E402
from memgraph_plugin.selfmem.kl import KLSelector, pool_loss  # noqa: E402
from memgraph_plugin.selfmem.pools import Pool  # noqa: E402
from memgraph_plugin.selfmem.saved import load_selector  # noqa: E402
from memgraph_plugin.selfmem.train_selector import Recipe, train  # noqa: E402
from memgraph_plugin.types import Candidate, Request  # noqa: E402
from tests import tiny_generators as generator  # noqa: E402
from tests.test_selectors import learnable  # noqa: E402
from tests.tiny_models import tiny  # noqa: E402


def selector(**given: Any) -> KLSelector:
    return KLSelector.small(
        tiny().tokenizer, layers=1, width=32, task="translation", language="en-de", **given
    )


def test_the_loss_is_the_divergence_by_hand() -> None:
    goal = torch.tensor([[0.5, 0.3, 0.2], [0.75, 0.25, 0.0]])
    scores = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 50.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    whole = math.e + 1 + 1 / math.e
    told = [math.e / whole, 1 / whole, 1 / math.e / whole]
    first = sum(p * math.log(p / q) for p, q in zip((0.5, 0.3, 0.2), told, strict=True))
    second = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert pool_loss(scores, goal, mask).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_the_loss_is_least_at_the_goal_and_padding_has_no_part_in_it() -> None:
    goal, mask = torch.tensor([[0.6, 0.4, 0.0]]), torch.tensor([[True, True, False]])
    scores = goal.clamp_min(1e-9).log().requires_grad_()
    loss = pool_loss(scores, goal, mask)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert scores.grad is not None
    assert scores.grad.abs().max().item() < 1e-6
    other = torch.where(mask, scores.detach(), torch.tensor(math.nan))
    assert pool_loss(other, goal, mask).item() == pytest.approx(0, abs=1e-6)


def test_a_score_is_the_same_in_whatever_company() -> None:
    pools = [learnable(3)[n] for n in range(3)]
    requests, candidates = [pool.request for pool in pools], [pool.candidates for pool in pools]
    one = selector(seed=3)
    together = one.scores(requests, candidates)
    for request, pool, row in zip(requests, candidates, together, strict=True):
        assert one.scores([request], [pool])[0] == pytest.approx(row, abs=1e-5)
    long = [Candidate("very " * 2_000), Candidate("")]
    scores = one.scores([Request(source="long " * 2_000), requests[0]], [long, []])
    assert all(map(math.isfinite, scores[0]))
    assert scores[1] == []


def test_it_learns_and_is_read_back(tmp_path: Path) -> None:
    pools, told = learnable(8), []
    recipe = Recipe(steps=12, batch=4, together=4, rate=3e-3, save_every=6)
    made = train(
        selector(),
        [*pools, Pool(Request(source="s"), (Candidate("x"),), "x")],
        tmp_path / "work",
        recipe,
        held_out=pools[:3],
        progress=lambda *step: told.append(step),
    )
    assert [(done, total) for done, total, _ in told] == [(n, 12) for n in range(1, 13)]
    assert told[-1][2] < told[0][2]
    assert (made.training.metric, made.training.tau, made.training.base) == ("bleu", 0.5, "small")
    made.save(tmp_path / "made")
    again = load_selector(tmp_path / "made", task="translation", language="en-de")
    asked = [pools[0].request], [pools[0].candidates]
    assert again.scores(*asked)[0] == pytest.approx(made.scores(*asked)[0], abs=1e-5)
    with pytest.raises(FingerprintMismatch, match="language 'en-de', and here it is 'de-en'"):
        KLSelector.load(tmp_path / "made", language="de-en")


def test_it_may_begin_as_a_generator(tmp_path: Path) -> None:
    """Whose embeddings are tied: safetensors refuses to write a tensor twice."""
    generator.tiny("joint").save(tmp_path / "generator")
    pools, recipe = learnable(8), Recipe(steps=2, batch=2, save_every=1)
    made = train(KLSelector.begin(str(tmp_path / "generator")), pools, tmp_path / "work", recipe)
    made.save(tmp_path / "made")
    asked = [pools[0].request], [pools[0].candidates]
    again = load_selector(tmp_path / "made")
    assert again.scores(*asked)[0] == pytest.approx(made.scores(*asked)[0], abs=1e-5)


def test_training_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    pools, recipe = learnable(8), Recipe(steps=6, batch=2, rate=1e-3, save_every=2)
    whole = train(selector(), pools, tmp_path / "whole", recipe)
    seen: list[int] = []

    def until_ctrl_c(done: int, total: int, loss: float) -> None:
        seen.append(done)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(selector(), pools, tmp_path / "cut", recipe, progress=until_ctrl_c)
    resumed = train(selector(), pools, tmp_path / "cut", recipe, progress=lambda done, *_: seen.append(done))
    assert seen[4] in (3, 4, 5)
    assert seen[-1] == 6
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ConfigurationError, match="another training"):
        train(selector(), pools[1:], tmp_path / "cut", recipe)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Nothing to learn"):
        train(selector(), [], tmp_path, Recipe())
    with pytest.raises(ConfigurationError, match="divisor"):
        train(selector(), learnable(2), tmp_path, Recipe(batch=3, together=2))
    with pytest.raises(ConfigurationError, match="No selector's model"):
        KLSelector.begin(str(tmp_path / "nothing"))
