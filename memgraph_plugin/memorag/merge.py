"""What several searches found, made one list: in MemoRAG's way, or by weighted ranks within a budget.

Qian et al., MemoRAG (arXiv 2409.05591); reciprocal rank fusion: Cormack, Clarke and Büttcher (SIGIR 2009).
Pure; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Literal, TypeAlias

from memgraph_plugin.types import ClueKind, Hit, Namespace

Merge: TypeAlias = Literal["rrf", "memorag"]

SMOOTHING = 60
"""The constant of reciprocal rank fusion: so far a rank must fall to count for half."""

WEIGHTS: Mapping[ClueKind, float] = MappingProxyType(
    {"span": 0.7, "question": 0.7, "entity": 0.5, "draft": 0.5}
)
"""What a clue's search counts for beside the user's own, which counts for 1."""

NEARNESS = 0.3
"""How much of an answer's worth it loses to standing beside what was taken already (1 - lambda of MMR)."""

Place: TypeAlias = tuple[Namespace, str]


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one search found, best first; its best `kept` stay whatever the other searches say."""

    hits: Sequence[Hit]
    weight: float = 1.0
    kept: int = 0


def memorag(rankings: Sequence[Ranking], each: int = 3) -> list[Hit]:
    """MemoRAG's merge: the first `each` of every search, each memory once, in the order of the document.

    Scores and weights count for nothing, and there is no limit.
    """
    return in_document_order(list(_pooled([ranking.hits[:each] for ranking in rankings]).values()))


def weighted_rrf(
    rankings: Sequence[Ranking],
    *,
    token_budget: int,
    k: int | None = None,
    depth: int = 3,
    spread: bool = False,
) -> list[Hit]:
    """The memories with the highest sum of weight / (60 + rank) that fit, in the order of the document.

    Of each search the first `depth` count. The first is the user's own: its best hit always stays, then as
    many as it keeps, and what others keep, each in half of the budget; what it found further down takes what
    room is left. A memory larger than the budget is passed over, as everywhere.

    Args:
        k: memories at most; None for as many as the budget holds.
        spread: prefer places that nothing was taken of yet, for questions that ask for all of something.
    """
    scores: dict[Place, float] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking.hits[:depth], 1):
            scores[_place(hit)] = scores.get(_place(hit), 0.0) + ranking.weight / (SMOOTHING + rank)
    pool = _pooled([ranking.hits[:depth] for ranking in rankings])
    ordered = sorted(pool, key=lambda place: -scores[place])
    if spread:
        ordered = _spread(ordered, pool, scores)
    stay = [hit for ranking in rankings[:1] for hit in _fitting(ranking.hits, token_budget)[:1]]
    for ranking in rankings:
        stay += _fitting(ranking.hits, token_budget // 2)[: ranking.kept]
    rest = [hit for ranking in rankings[:1] for hit in ranking.hits[depth:]]
    whole = _pooled([stay, [pool[place] for place in ordered], rest]).values()
    return in_document_order(_fitting(list(whole), token_budget, k))


def in_document_order(hits: Sequence[Hit]) -> list[Hit]:
    """The hits of one document or session together, by position; the documents as their best hits come."""
    sessions: dict[tuple[object, ...], list[Hit]] = {}
    for hit in hits:
        memory = hit.memory
        placed = memory.session is not None and memory.position is not None
        of = (memory.namespace, memory.session) if placed else (*_place(hit), None)
        sessions.setdefault(of, []).append(hit)
    return [
        hit for group in sessions.values() for hit in sorted(group, key=lambda hit: hit.memory.position or 0)
    ]


def priors(rankings: Sequence[Ranking], session: str | None, weight: float = 0.3) -> list[Ranking]:
    """Two further rankings of what was found: the newest first, and what is of this session.

    Their weight is light: they decide between memories that the searches find equally good.
    """
    found = list(_pooled([ranking.hits for ranking in rankings]).values())
    newest = sorted(found, key=_time, reverse=True)
    ours = [hit for hit in newest if session is not None and hit.memory.session == session]
    return [Ranking(newest, weight), Ranking(ours, weight)]


def supported(hits: Sequence[Hit], floor: float) -> bool:
    """Whether anything that a clue found is like it: a cosine of `floor`; without vectors, a word."""
    if any(hit.cosine is not None for hit in hits):
        return any(hit.cosine is not None and hit.cosine >= floor for hit in hits)
    return any(hit.bm25 for hit in hits)


def _pooled(lists: Sequence[Sequence[Hit]]) -> dict[Place, Hit]:
    """Each memory once, as it was found first."""
    pool: dict[Place, Hit] = {}
    for hits in lists:
        for hit in hits:
            pool.setdefault(_place(hit), hit)
    return pool


def _place(hit: Hit) -> Place:
    return hit.memory.namespace, hit.memory.key


def _time(hit: Hit) -> float:
    when = hit.memory.valid_from or hit.memory.updated_at or hit.memory.created_at
    return when.timestamp() if when else -inf


def _fitting(hits: Sequence[Hit], token_budget: int, k: int | None = None) -> list[Hit]:
    """In order, what still fits into the rest of the budget."""
    taken: list[Hit] = []
    for hit in hits:
        if (k is None or len(taken) < k) and hit.memory.tokens <= token_budget:
            taken.append(hit)
            token_budget -= hit.memory.tokens
    return taken


def _spread(
    ordered: Sequence[Place], pool: Mapping[Place, Hit], scores: Mapping[Place, float]
) -> list[Place]:
    """Maximal marginal relevance over places: each next one is good and far from those before it.

    Carbonell and Goldstein (SIGIR 1998), with 1 / (1 + distance) in the same document as likeness.
    """
    left, taken = list(ordered), list(ordered[:1])
    top = scores[taken[0]] if taken else 1.0
    near = dict.fromkeys(left, 0.0)
    while left := [place for place in left if place != taken[-1]]:
        for place in left:
            near[place] = max(near[place], _nearness(pool[place], pool[taken[-1]]))
        taken.append(max(left, key=lambda p: (1 - NEARNESS) * scores[p] / top - NEARNESS * near[p]))
    return taken


def _nearness(hit: Hit, other: Hit) -> float:
    one, two = hit.memory, other.memory
    if one.session != two.session or one.session is None or one.position is None or two.position is None:
        return 0.0
    return 1 / (1 + abs(one.position - two.position))
