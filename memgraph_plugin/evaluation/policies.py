"""What memory policies are worth on episodes, by the rewards of training, with the doubt that is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memgraph_plugin.evaluation.bootstrap import interval, paired
from memgraph_plugin.memalpha.episodes import Episode
from memgraph_plugin.memalpha.rewards import TERMS, Rewards, RewardWeights


@dataclass(frozen=True, slots=True)
class Scored:
    """One policy's rewards on episodes, those of one conversation together: they are not independent."""

    rewards: tuple[tuple[Rewards, ...], ...]

    @classmethod
    def of(
        cls,
        episodes: Sequence[Episode],
        worth: Callable[[Episode], Rewards],
        tell: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
    ) -> Scored:
        """Each episode by itself; `tell` is called with those done, and all."""
        talks: dict[str, list[Rewards]] = {}
        for number, episode in enumerate(episodes, 1):
            talks.setdefault(episode.id.rpartition("/")[0], []).append(worth(episode))
            tell(number, len(episodes))
        return cls(tuple(map(tuple, talks.values())))

    def total(self, weights: RewardWeights, places: Sequence[int] | None = None) -> float:
        """The mean sum of the episodes, or of those of some conversations."""
        talks = self.rewards if places is None else [self.rewards[place] for place in places]
        return _mean([each.total(weights) for talk in talks for each in talk])

    def figures(self, weights: RewardWeights) -> dict[str, Any]:
        """The mean of each term and of the sum, and the 95 % interval of that over conversations."""
        every = [each for talk in self.rewards for each in talk]
        places = range(len(self.rewards))
        low, high = interval(places, lambda drawn: self.total(weights, drawn))
        terms = {term: round(_mean([getattr(each, term) for each in every]), 4) for term in TERMS}
        return {"episodes": len(every), "reward": round(self.total(weights), 4), "low": round(low, 4), "high": round(high, 4), **terms}  # fmt: skip # noqa: E501

    def gain_over(self, other: Scored, weights: RewardWeights) -> dict[str, float]:
        """By how much this is better on the same episodes: the paired bootstrap over conversations."""
        gain = paired(
            len(self.rewards),
            lambda drawn: self.total(weights, drawn),
            lambda drawn: other.total(weights, drawn),
        )
        return {name: round(value, 4) for name, value in asdict(gain).items()}

    def plain(self) -> list[list[dict[str, float]]]:
        return [[asdict(each) for each in talk] for talk in self.rewards]

    @classmethod
    def from_plain(cls, plain: Sequence[Sequence[Mapping[str, float]]]) -> Scored:
        return cls(tuple(tuple(Rewards(**each) for each in talk) for talk in plain))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
