"""What the loop needs: who retrieves, who generates, who selects. All take whole batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from memgraph_plugin.types import Candidate, Example, Request


class Retriever(Protocol):
    """Finds examples whose source is like the source at hand."""

    def retrieve(
        self, sources: Sequence[str], k: int, *, exclude: Sequence[str | None] | None = None
    ) -> list[list[Example]]:
        """At most `k` examples for each source, nearest first.

        `exclude` has for each source the key of the example that it is itself, in training: neither that one
        nor any with an equal source is given back, nor any draft of the model's own.
        """


class Generator(Protocol):
    """Writes outputs, leaning on a memory. It stays as it is while the loop runs."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What decides its output: model, settings, what it was trained on."""

    def candidates(self, requests: Sequence[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:
        """At most `n` outputs for each request, all different, likeliest first where the model tells."""

    def hypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:
        """The one output for each request."""


class Selector(Protocol):
    """Says which candidate would be the best memory, without a reference."""

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        """A score for each candidate of each pool; higher is better. Ties go to the first."""
