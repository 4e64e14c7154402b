"""Generators, a selector and a retriever for tests of the loop: real, deterministic, and small."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from memgraph_plugin.types import Candidate, Example, Request

PAIRS = [
    Example(source="could not open file", target="konnte Datei nicht öffnen", key="1"),
    Example(source="could not close file", target="konnte Datei nicht schließen", key="2"),
    Example(source="permission denied", target="keine Berechtigung", key="3"),
]


@dataclass
class Beams:
    """Goes on from its memory: candidate i adds i letters to it, the hypothesis one "!"."""

    asked: list[tuple[Request, int]] = field(default_factory=list)
    fingerprint: Mapping[str, str] = field(default_factory=lambda: {"generator": "beams"})

    def candidates(self, requests: Sequence[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:
        self.asked += [(request, seed) for request in requests]
        return [
            [Candidate(f"{each.memory}{'abcdefgh'[: i + 1]}", -float(i)) for i in range(n)]
            for each in requests
        ]

    def hypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:
        return [Candidate(f"{each.memory}!", -1.0) for each in requests]


@dataclass
class Calls(Beams):
    """The same, a call each."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    fails: set[int] = field(default_factory=set)

    def sample(self, request: Request, number: int, *, seed: int = 0) -> Candidate:
        with self.lock:
            self.asked.append((request, seed))
        if number in self.fails:
            raise ConnectionError(f"no route for {number}")
        return Candidate(f"{request.memory}{'abcdefgh'[: number + 1]}")

    async def asample(self, request: Request, number: int, *, seed: int = 0) -> Candidate:
        return self.sample(request, number, seed=seed)

    async def ahypothesis(self, request: Request, *, seed: int = 0) -> Candidate:
        return self.hypotheses([request], seed=seed)[0]


class Middle:
    """Prefers the candidate in the middle of the pool, by length."""

    def scores(self, requests: Sequence[Request], pools: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        return [[-abs(len(each.text) - len(pool[len(pool) // 2].text)) for each in pool] for pool in pools]


class Words:
    """Finds the pairs that share most words."""

    def __init__(self, pairs: Sequence[Example] = PAIRS) -> None:
        self.pairs = pairs

    def retrieve(
        self, sources: Sequence[str], k: int, *, exclude: Sequence[str | None] | None = None
    ) -> list[list[Example]]:
        own = exclude or [None] * len(sources)
        return [self._nearest(source, k, key) for source, key in zip(sources, own, strict=True)]

    def _nearest(self, source: str, k: int, key: str | None) -> list[Example]:
        told = set(source.split())
        shared = [(len(told & set(pair.source.split())), pair) for pair in self.pairs if pair.key != key]
        found = sorted((each for each in shared if each[0]), key=lambda each: -each[0])
        return [pair for _, pair in found][:k]
