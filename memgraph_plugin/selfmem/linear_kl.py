"""A selector of seven numbers a candidate, trained in seconds on a CPU by the same loss as the large one.

Ours; the loss is Cheng et al.'s (arXiv 2305.02437, equations 3 to 5). It is convex here, so that Newton's
method finds the one best set of weights: nothing is drawn, and there is no rate to choose.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.selfmem.metrics import Metric, metric
from memgraph_plugin.selfmem.pools import Pool, digest, labels, spread, target
from memgraph_plugin.selfmem.selectors import agreement, check_pools
from memgraph_plugin.selfmem.trained import Training, read_training, write_training
from memgraph_plugin.types import Candidate, Request

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

FEATURES = (
    "agreement",
    "kept_numbers",
    "length",
    "usual_length",
    "copied_words",
    "like_memory",
    "logprob",
)

_KEPT = re.compile(r"%[-#0 +]*[\d*]*(?:\.[\d*]+)?[a-zA-Z]+|\{\w*\}|\d+(?:[.,]\d+)*|--?[a-z][\w-]+")
_WORD = re.compile(r"\w+")
_STEPS, _SMALL = 50, 1e-9

REMEMBERED = 4_096
"""Pools whose features are kept: a selector is fitted to the same ones at several settings."""


class LinearKLSelector:
    """Scores candidates by a weighted sum of what is plainly to be seen of them.

    Agreement with the pool, numbers and placeholders kept, length beside the source and beside the pool,
    words copied from the source, likeness to the memory, and likelihood where the generator tells it.
    """

    def __init__(self, weights: Sequence[float], training: Training) -> None:
        if len(weights) != len(FEATURES) or not all(map(math.isfinite, weights)):
            raise ConfigurationError(f"A linear selector has {len(FEATURES)} weights, each a finite number.")
        self.weights = tuple(weights)
        self.training = training

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        check_pools(requests, pools)
        return [
            [sum(map(mul, self.weights, row)) for row in features(request, pool)]
            for request, pool in zip(requests, pools, strict=True)
        ]

    @classmethod
    def fit(
        cls,
        pools: Sequence[Pool],
        *,
        task: str = "",
        language: str = "",
        by: str | Metric = "bleu",
        tau: float = 0.5,
        normalize: Literal["minmax", "none"] = "minmax",
        ridge: float = 1e-3,
    ) -> LinearKLSelector:
        """Learn from pools whose references are known.

        Args:
            task, language: what it is for, as "translation", "en-de"; it is refused for anything else.
            by: the metric of the labels.
            tau, normalize: how sharp the labels are made (`pools.target`).
            ridge: how much large weights cost, a pool.

        Raises:
            ConfigurationError: no pool has candidates that differ by the metric.
            MissingExtraError: the extra `selfmem` is not installed.
        """
        import numpy as np

        measure = metric(by) if isinstance(by, str) else by
        wanted = [target(each, tau, normalize) for each in labels(pools, measure)]
        taught = [(pool, goal) for pool, goal in zip(pools, wanted, strict=True) if goal is not None]
        if not taught:
            raise ConfigurationError(f"Nothing to learn: in no pool do candidates differ by {measure.name}.")
        seen = [np.array(_known(each.request, each.candidates)) for each, _ in taught]
        starts = np.cumsum([0, *map(len, seen[:-1])]).tolist()
        unit = np.concatenate([rows - rows.mean(axis=0) for rows in seen]).std(axis=0)
        unit[unit < _SMALL] = 1.0
        goals = np.concatenate([goal for _, goal in taught])
        weights = _minimum(np.concatenate(seen) / unit, goals, starts, ridge) / unit
        training = Training(
            kind="linear",
            task=task,
            language=language,
            metric=measure.name,
            tau=tau,
            normalize=normalize,
            pools=digest(pools),
        )
        return cls(weights.tolist(), training)

    def save(self, folder: Path) -> None:
        """Write it to a folder, made where there is none."""
        write_training(folder, self.training, weights=dict(zip(FEATURES, self.weights, strict=True)))

    @classmethod
    def load(cls, folder: Path, *, task: str = "", language: str = "") -> LinearKLSelector:
        """Read a saved one.

        Raises:
            ConfigurationError: there is none in the folder.
            FingerprintMismatch: it was trained for another task or language, or with other features.
        """
        training, more = read_training(folder, "linear", task=task, language=language)
        weights = more.get("weights")
        if not isinstance(weights, dict) or set(weights) != set(FEATURES):
            raise ConfigurationError(f"The selector in {folder} has other features: train it anew.")
        return cls([float(weights[name]) for name in FEATURES], training)


def features(request: Request, pool: Sequence[Candidate]) -> list[list[float]]:
    """What is seen of each candidate, in the order of FEATURES; each about 1 wide, but the likelihood."""
    source, memory = request.source, request.memory
    texts = [candidate.text for candidate in pool]
    # The memory is compared with the candidates as they are with one another, and is then no other.
    like = metric("chrf").pairwise([*texts, memory])
    alike = spread(agreement([row[:-1] for row in like[:-1]]))
    asked, kept = _words(source), Counter(_KEPT.findall(source))
    lengths = [math.log1p(len(text)) for text in texts]
    usual = sorted(lengths)[len(lengths) // 2] if lengths else 0.0
    told = [candidate.logprob for candidate in pool]
    likely = [0.0 if each is None or not math.isfinite(each) else each for each in told]
    return [
        [
            alike[n],
            _f1(kept, Counter(_KEPT.findall(text))),
            lengths[n] - math.log1p(len(source)),
            abs(lengths[n] - usual),
            _share(_words(text), asked),
            like[n][-1] / 100,
            likely[n] if None not in told else 0.0,
        ]
        for n, text in enumerate(texts)
    ]


@lru_cache(REMEMBERED)
def _known(request: Request, pool: tuple[Candidate, ...]) -> list[list[float]]:
    return features(request, pool)


def loss(scores: Matrix, goals: Matrix, starts: Sequence[int]) -> float:
    """The mean over pools of KL(goal || softmax of the scores), in nats.

    Scores and goals are those of all candidates, pool behind pool; `starts` is where each pool begins.
    """
    import numpy as np

    sure = goals > 0
    entropy = (goals[sure] * np.log(goals[sure])).sum()
    return float((entropy - (goals * _told(scores, starts)).sum()) / len(starts))


def _told(scores: Matrix, starts: Sequence[int]) -> Matrix:
    """The log softmax of each pool."""
    import numpy as np

    sizes = np.diff([*starts, len(scores)])
    scores = scores - np.repeat(np.maximum.reduceat(scores, starts), sizes)
    told: Matrix = scores - np.repeat(np.log(np.add.reduceat(np.exp(scores), starts)), sizes)
    return told


def _minimum(matrix: Matrix, goals: Matrix, starts: Sequence[int], ridge: float) -> Matrix:
    """The weights of least loss, by Newton's method, each step halved until it gains."""
    import numpy as np

    def cost(weights: Matrix) -> float:
        return loss(matrix @ weights, goals, starts) + float(ridge / 2 * weights @ weights)

    width, count = matrix.shape[1], len(starts)
    weights: Matrix = np.zeros(width)
    now = cost(weights)
    for _ in range(_STEPS):
        share = np.exp(_told(matrix @ weights, starts))
        means = np.add.reduceat(matrix * share[:, None], starts)
        slope = (share - goals) @ matrix / count + ridge * weights
        curve = ((matrix * share[:, None]).T @ matrix - means.T @ means) / count + ridge * np.eye(width)
        step = np.linalg.solve(curve, slope)
        while (after := cost(weights - step)) > now and np.abs(step).max() > _SMALL:
            step /= 2
        if now - after < _SMALL:
            break
        weights, now = weights - step, after
    return weights


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _share(words: Counter[str], of: Counter[str]) -> float:
    """How many of the words are among the others."""
    return (words & of).total() / words.total() if words else 0.0


def _f1(wanted: Counter[str], had: Counter[str]) -> float:
    """1 where both are empty."""
    both = wanted.total() + had.total()
    return 2 * (wanted & had).total() / both if both else 1.0
