"""A generator whose outputs are kept in a file: a job that is stopped goes on where it was.

Everything that runs the loop over many sources (pools, calibration, evaluation) spends its time in the
generator; with its outputs kept, the same command run again is at the same place in seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from memgraph_plugin.selfmem.protocols import Generator
from memgraph_plugin.types import Candidate, Request

CHUNK = 64
"""Requests that are generated for before their outputs are written down."""

Bar: TypeAlias = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows how far a pass has come, given what is made: told what is done, and all of it."""


@contextmanager
def _no_bar(_: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda *_: None


class Kept:
    """The same generator, writing down what it gives, and giving what is written down.

    An entry is found again by the generator's fingerprint, the request, the number of candidates and the
    seed. Equal requests are generated for once: their outputs are equal, also those of a model that samples.

    Args:
        bar: shown for each pass that has something to make.
    """

    def __init__(self, generator: Generator, path: Path, *, bar: Bar = _no_bar) -> None:
        self._generator = generator
        self._path = path
        self._bar = bar
        self._known: dict[str, list[Candidate]] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                try:
                    record = json.loads(line)
                    self._known[record["key"]] = [Candidate(*each) for each in record["outputs"]]
                except (ValueError, KeyError, TypeError):  # the last line of a process that was killed
                    continue

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return self._generator.fingerprint

    def candidates(self, requests: Sequence[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:
        return self._all(
            requests,
            "candidates",
            f"candidates {n} {seed}",
            lambda part: self._generator.candidates(part, n, seed=seed),
        )

    def hypotheses(self, requests: Sequence[Request], *, seed: int = 0) -> list[Candidate]:
        made = self._all(
            requests,
            "hypotheses",
            f"hypothesis {seed}",
            lambda part: [[each] for each in self._generator.hypotheses(part, seed=seed)],
        )
        return [each[0] for each in made]

    def _all(
        self,
        requests: Sequence[Request],
        what: str,
        how: str,
        make: Callable[[Sequence[Request]], list[list[Candidate]]],
    ) -> list[list[Candidate]]:
        by = json.dumps([dict(self.fingerprint), how], sort_keys=True)
        keys = [_key(by, request) for request in requests]
        missing = {key: each for key, each in zip(keys, requests, strict=True) if key not in self._known}
        if missing:
            # The longest first: like lengths come into one batch, and the time left is not told too short.
            wanted = sorted(missing.items(), key=lambda item: -len(item[1].source))
            known, total = len(set(keys)) - len(wanted), len(set(keys))
            with self._bar(what) as tell:
                tell(known, total)
                for start in range(0, len(wanted), CHUNK):
                    part = wanted[start : start + CHUNK]
                    made = make([request for _, request in part])
                    self._write({key: out for (key, _), out in zip(part, made, strict=True)})
                    tell(known + start + len(part), total)
        return [self._known[key] for key in keys]

    def _write(self, made: Mapping[str, list[Candidate]]) -> None:
        self._known |= made
        lines = [
            json.dumps({"key": key, "outputs": [[each.text, each.logprob] for each in outputs]})
            for key, outputs in made.items()
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # A line that a killed process left half written must not swallow the first of these.
            file.write("".join(f"\n{line}" for line in lines))


def _key(by: str, request: Request) -> str:
    named = by + json.dumps(asdict(request), sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()
