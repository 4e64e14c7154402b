"""The selector that knows the references: the bound that every other one is measured by.

It stands among the evaluations on purpose. Nothing that a graph is built of may import from here, and a
`Request` has no place for a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.selfmem.metrics import Metric, metric
from memgraph_plugin.selfmem.selectors import check_pools
from memgraph_plugin.types import Candidate, Request


class OracleSelector:
    """Scores candidates by a metric against the reference of their source.

    Args:
        references: by source.
        by: the metric or its name.
    """

    def __init__(self, references: Mapping[str, str], by: str | Metric = "bleu") -> None:
        self._references = dict(references)
        self._by = metric(by) if isinstance(by, str) else by

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        """The metric of each candidate, 0..100.

        Raises:
            ConfigurationError: a source has no reference.
        """
        check_pools(requests, pools)
        if missing := [request.source for request in requests if request.source not in self._references]:
            raise ConfigurationError(f"The oracle has no reference for {missing[0][:60]!r}.")
        return [
            self._by.sentences(
                [candidate.text for candidate in pool], [self._references[request.source]] * len(pool)
            )
            for request, pool in zip(requests, pools, strict=True)
        ]
