"""What memory policies are worth on episodes, by the rewards of training, with the doubt that is in it.

Beside them stand `LAZY` ones, which understand nothing: what any of them is paid is no merit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memgraph_plugin.evaluation.bootstrap import interval, paired
from memgraph_plugin.memalpha.episodes import Episode
from memgraph_plugin.memalpha.rewards import TERMS, Rewards, RewardWeights
from memgraph_plugin.types import Delete, Insert, Memory, NoOp, Operation, Turn


@dataclass(frozen=True, slots=True)
class Scored:
    """One policy's rewards on episodes, those of one conversation together: they are not independent.

    Args:
        cut: the share of a model's replies that did not end within the tokens allowed, 0..1.
    """

    rewards: tuple[tuple[Rewards, ...], ...]
    cut: float = 0.0

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
        return {"episodes": len(every), "reward": round(self.total(weights), 4), "low": round(low, 4), "high": round(high, 4), "cut": round(self.cut, 4), **terms}  # fmt: skip # noqa: E501

    def gain_over(self, other: Scored, weights: RewardWeights) -> dict[str, float]:
        """By how much this is better on the same episodes: the paired bootstrap over conversations."""
        gain = paired(
            len(self.rewards),
            lambda drawn: self.total(weights, drawn),
            lambda drawn: other.total(weights, drawn),
        )
        return {name: round(value, 4) for name, value in asdict(gain).items()}

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Scored:
        return cls(tuple(tuple(Rewards(**each) for each in talk) for talk in plain["rewards"]), plain["cut"])


@dataclass(frozen=True, slots=True)
class Lazy:
    """A policy that does the same always, whatever was said."""

    name: str
    script: Callable[[Sequence[Turn], Sequence[Memory]], Sequence[Operation]]

    def propose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return [*self.script(turns, memories)] or [NoOp()]

    async def apropose(self, turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:
        return self.propose(turns, memories)


def _copier(name: str, write: Callable[[str], str], *, statements: bool = False) -> Lazy:
    """Copies what the user says, or of that what ends neither in "?" nor in "!"."""

    def copied(turns: Sequence[Turn], memories: Sequence[Memory]) -> list[Operation]:  # noqa: ARG001
        return [
            Insert(text=write(turn.text), evidence=(turn.key,))
            for turn in turns
            if turn.role == "user" and not (statements and turn.text.rstrip().endswith(("?", "!")))
        ]

    return Lazy(name, copied)


def _last(count: int) -> Callable[[str], str]:
    return lambda text: "The user: " + " ".join(re.findall(r"[\w'-]+", text)[-count:])


def _turned(text: str) -> str:
    """The words of the first person, each for itself, put in the third."""
    for own, third in ((r"i['’]m|i am", "the user is"), ("my", "the user's"), ("i", "the user")):
        text = re.sub(rf"\b(?:{own})\b", third, text, flags=re.I)
    return text


LAZY = (
    Lazy("no-op", lambda turns, memories: []),  # noqa: ARG005
    Lazy(
        "delete-all",
        lambda turns, memories: [Delete(key=each.key, evidence=(turns[0].key,)) for each in memories],
    ),
    _copier("copy-all", str),
    _copier("copy-all, quoted", lambda text: f"The user said: {text}"),
    *(_copier(f"last {count} words", _last(count), statements=True) for count in (3, 4, 6)),
    _copier("pronouns turned", _turned, statements=True),
)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
