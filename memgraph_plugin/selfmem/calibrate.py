"""How many rounds: tried on development data, and kept with the selector.

Cheng et al., Selfmem (arXiv 2305.02437): the number of rounds is fixed on the validation set, and the same
one is used for the test. Pure but for `save` and `load`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.selfmem.loop import Plan, hypothesize, passes
from memgraph_plugin.selfmem.protocols import Generator, Selector
from memgraph_plugin.types import Request

FILE = "calibration.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was found on development data.

    Args:
        rounds: K, the fewest of those that score best.
        curve: the score of the hypotheses after 0, 1, ... rounds.
        metric: its name.
        data: hash of sources and references.
        generator: fingerprint of the one that it holds for.
        pool, compete: of the plan.
    """

    rounds: int
    curve: tuple[float, ...]
    metric: str
    data: str
    pool: int
    compete: bool = False
    generator: Mapping[str, str] = field(default_factory=dict)

    def plan(self, generator: Generator, plan: Plan | None = None) -> Plan:
        """The plan with what was calibrated.

        Raises:
            FingerprintMismatch: it was calibrated with another generator; it names what differs.
        """
        now = dict(generator.fingerprint)
        if differ := sorted(k for k in {*now, *self.generator} if now.get(k) != self.generator.get(k)):
            raise FingerprintMismatch(
                f"These rounds were calibrated with another generator ({', '.join(differ)} differ): "
                "calibrate again."
            )
        return replace(plan or Plan(), rounds=self.rounds, pool=self.pool, compete=self.compete)

    def save(self, folder: Path) -> None:
        """Write it beside the selector."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FILE}.partial"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")
        partial.replace(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            ConfigurationError: there is none in the folder.
        """
        try:
            record = json.loads((folder / FILE).read_text("utf-8"))
            return cls(**{**record, "curve": tuple(record["curve"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{folder} holds no calibration: {error}") from error


def calibrate(
    generator: Generator,
    selector: Selector,
    requests: Sequence[Request],
    references: Sequence[str],
    plan: Plan,
    *,
    score: Callable[[Sequence[str], Sequence[str]], float],
    metric: str,
    run: str = "calibrate",
) -> Calibration:
    """Score the hypotheses after each number of rounds up to the plan's; the best of them is K.

    Args:
        requests: of round 0, with what was retrieved (`loop.begin`).
        score: of all outputs against all references; higher is better. `metric` is its name.

    Raises:
        ConfigurationError: there is nothing to calibrate on, or not as many references as requests.
    """
    if not requests or len(requests) != len(references):
        raise ConfigurationError(
            f"{len(requests)} requests cannot be calibrated on {len(references)} references."
        )
    curve = []
    for each in passes(generator, selector, requests, replace(plan, early=None), run=run):
        written = hypothesize(generator, each.requests, run=run)
        curve.append(score([output.text for output in written], references))
    return Calibration(
        rounds=max(range(len(curve)), key=curve.__getitem__),
        curve=tuple(curve),
        metric=metric,
        data=data_hash([request.source for request in requests], references),
        pool=plan.pool,
        compete=plan.compete,
        generator=dict(generator.fingerprint),
    )


def data_hash(sources: Sequence[str], references: Sequence[str]) -> str:
    """A hash of sources and references, in their order."""
    named = json.dumps([list(sources), list(references)])
    return hashlib.sha256(named.encode()).hexdigest()
