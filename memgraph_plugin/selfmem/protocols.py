"""What the loop needs: who retrieves, who generates, who selects. All take whole batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

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
    """Writes outputs, leaning on a memory. It stays as it is while the loop runs.

    One whose candidates are each a call to somewhere else is a `Sampler`, so that a graph may make the calls
    at the same time.
    """

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What decides its output: model, settings, what it was trained on."""

    def candidates(self, requests: Sequence[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:
        """At most `n` outputs for each request, all different, likeliest first where the model tells."""

    def hypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:
        """The one output for each request."""


@runtime_checkable
class Sampler(Protocol):
    """A generator whose candidates can be asked for one by one, in either colour."""

    def sample(self, request: Request, number: int, *, seed: int = 0) -> Candidate | None:
        """The candidate of this number, from 0; None where the model said nothing. Two may be equal."""

    async def asample(self, request: Request, number: int, *, seed: int = 0) -> Candidate | None:
        """Async twin of `sample`."""

    async def ahypothesis(self, request: Request, *, seed: int = 0) -> Candidate:
        """The one output for a request."""


class Selector(Protocol):
    """Says which candidate would be the best memory, without a reference."""

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        """A score for each candidate of each pool; higher is better. Ties go to the first."""


@runtime_checkable
class AsyncSelector(Selector, Protocol):
    """A selector that waits for somebody else, so that no thread need wait with it."""

    async def ascores(
        self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]
    ) -> list[list[float]]:
        """Async twin of `scores`."""
