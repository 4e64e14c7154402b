"""Selectors that need no training: what most candidates agree on, and what the model held likeliest.

A consensus is minimum Bayes risk decoding: the candidate that loses least on average, were each of the
others the truth. Likelihood is the paper's ablation, which brings nothing: a beam tells its generator what
that believes already (Cheng et al., arXiv 2305.02437, Table 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from langchain_core.embeddings import Embeddings

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.selfmem.metrics import Metric, metric
from memgraph_plugin.types import Candidate, Request


def best(scores: Sequence[float]) -> int:
    """The place of the highest score, the first of equals. What is not a number never wins over a number.

    Raises:
        ConfigurationError: there are no scores: the pool is empty.
    """
    if not scores:
        raise ConfigurationError("Nothing to choose from: the generator gave no candidate for this source.")
    return max(range(len(scores)), key=lambda n: (not math.isnan(scores[n]), scores[n], -n))


class ConsensusSelector:
    """The candidate most like the others.

    Args:
        by: a metric or its name ("bleu", "chrf"), each of the others taken for the reference; or embeddings,
            compared by cosine.

    Raises:
        ConfigurationError: no such metric.
        MissingExtraError: the extra `selfmem` is not installed.
    """

    def __init__(self, by: str | Metric | Embeddings = "chrf") -> None:
        self._by = metric(by) if isinstance(by, str) else by

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        """The mean likeness to the others of the pool; 0 for a candidate that is alone."""
        check_pools(requests, pools)
        return [agreement(self._likeness([candidate.text for candidate in pool])) for pool in pools]

    def _likeness(self, texts: Sequence[str]) -> list[list[float]]:
        if len(texts) < 2:
            return [[0.0]] * len(texts)
        if isinstance(self._by, Metric):
            return self._by.pairwise(texts)
        vectors = [_unit(vector) for vector in self._by.embed_documents(list(texts))]
        return [[sum(map(mul, one, other)) for other in vectors] for one in vectors]


class LikelihoodSelector:
    """The candidate that the generator held likeliest: for comparison, it does not help.

    A candidate that it did not write (retrieved memory that competes) has no likelihood, and is never chosen.
    """

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        """The log probabilities; NaN where there is none.

        Raises:
            ConfigurationError: no candidate of a pool has one.
        """
        check_pools(requests, pools)
        told = [[candidate.logprob for candidate in pool] for pool in pools]
        if any(pool and not any(each is not None for each in pool) for pool in told):
            raise ConfigurationError("This generator tells no likelihoods: take another selector.")
        return [[math.nan if each is None else each for each in pool] for pool in told]


def agreement(likeness: Sequence[Sequence[float]]) -> list[float]:
    """Of each row the mean without the candidate itself."""
    others = max(len(likeness) - 1, 1)
    return [sum(cell for j, cell in enumerate(row) if j != i) / others for i, row in enumerate(likeness)]


def check_pools(requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> None:
    """Raises ConfigurationError where there are not as many pools as requests."""
    if len(requests) != len(pools):
        raise ConfigurationError(f"There are {len(requests)} requests, but {len(pools)} pools.")


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.hypot(*vector) or 1.0
    return [number / length for number in vector]
