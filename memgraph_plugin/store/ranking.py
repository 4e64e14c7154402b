"""How a namespace's memories are ranked against a query: words, BM25, fusion, budget. Pure; no I/O.

The Postgres stores do the same inside one statement; this is the same arithmetic for a store without one.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import snowballstemmer

from memgraph_plugin.errors import InvalidValue
from memgraph_plugin.tokens import CJK
from memgraph_plugin.types import Hit

K1 = 1.2
B = 0.75
NEIGHBOUR_SHARES = {-2: 0.15, -1: 0.40, 1: 0.40, 2: 0.15}
"""What of its score a row gives to those so many positions away in its session: answers follow questions."""

LIFTING = 100
"""The best rows, which lift their neighbours."""

SEARCHED_CHARACTERS = 65_536
"""Words are read from this many characters of a text, as in the database (a tsvector holds 1 MB at most)."""

QUESTION_CHARACTERS = 4_096
"""Of a query, words are read from this many: each is looked for in every memory of the namespace."""

_LETTER = rf"[^\W_{CJK}]"
_WORDS = re.compile(
    rf"""(?P<cjk>[{CJK}]+)
    | (?P<name>(?:{_LETTER}[\w.]*)?(?:/{_LETTER}(?:[\w.-]*{_LETTER})?)+
        | {_LETTER}[\w-]*(?:\.{_LETTER}(?:[\w-]*{_LETTER})?)+)
    | (?P<compound>{_LETTER}+(?:-{_LETTER}+)+)
    | {_LETTER}+""",
    re.VERBOSE,
)
"""Words, as Postgres' parser sees them: what looks like a path or a host is one, whatever is in it."""

_ENGLISH_STOP_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves what which who whom this that these those am is are
was were be been being have has had having do does did doing a an the and but if or because as until while
of at by for with about against between into through during before after above below to from up down in out
on off over under again further then once here there when where why how all any both each few more most
other some such no nor not only own same so than too very s t can will just don should now
"""
_STOP_WORDS = {"english": frozenset(_ENGLISH_STOP_WORDS.split())}


def lexemes(text: str, language: str = "english") -> list[str]:
    """The words of `text` as search compares them, in order, much as Postgres' `to_tsvector` makes them.

    Lower-cased, stemmed by `language`'s Snowball stemmer (not at all for "simple" or a language without one),
    English stop words left out. Of a compound with hyphens come the whole and its parts; a path or a host
    stays as it is. A run of Chinese, Japanese or Korean letters becomes its overlapping pairs.
    """
    stop_words = _STOP_WORDS.get(language, frozenset())
    found: list[str] = []
    for match in _WORDS.finditer(text[:SEARCHED_CHARACTERS].lower()):
        word = match.group()
        if match["cjk"]:
            found += [word[i : i + 2] for i in range(len(word) - 1)] or [word]
        elif match["name"]:
            found.append(word)
        else:
            parts = [word, *word.split("-")] if match["compound"] else [word]
            found += [_stem(part, language) for part in parts if part not in stop_words]
    return found


@lru_cache(maxsize=65_536)
def _stem(word: str, language: str) -> str:
    if language not in snowballstemmer.algorithms():
        return word
    # A stemmer keeps the word it works on: one a word, since threads may share this function.
    return str(snowballstemmer.stemmer(language).stemWord(word))


def bm25(query: Iterable[str], documents: Sequence[Mapping[str, int]]) -> list[float]:
    """Okapi BM25 of each document (its lexemes and how often each occurs), by the statistics of just these.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the inverse
    document frequency kept positive: ln(1 + (N - df + 0.5) / (df + 0.5)). Departs from it: the length of a
    document is its number of distinct lexemes, which Postgres knows without opening a tsvector.
    """
    lengths = [len(document) for document in documents]
    mean_length = sum(lengths) / len(lengths) if any(lengths) else 1.0
    scores = [0.0] * len(documents)
    for term in sorted(set(query)):
        frequencies = [(i, document[term]) for i, document in enumerate(documents) if term in document]
        idf = math.log(1 + (len(documents) - len(frequencies) + 0.5) / (len(frequencies) + 0.5))
        for i, frequency in frequencies:
            saturation = frequency + K1 * (1 - B + B * lengths[i] / mean_length)
            scores[i] += idf * frequency * (K1 + 1) / saturation
    return scores


def fuse(
    cosines: Sequence[float | None],
    bm25s: Sequence[float],
    sessions: Sequence[Any],
    positions: Sequence[int | None],
) -> list[float]:
    """One score a row: z-scores of both rankers, summed; then the best rows lift their neighbours.

    A missing cosine adds nothing; a row without a session and a position neither lifts nor is lifted.
    """
    known = [cosine for cosine in cosines if cosine is not None]
    cosine_scores = iter(_z_scores(known))
    sums = [
        (next(cosine_scores) if cosine is not None else 0.0) + word_score
        for cosine, word_score in zip(cosines, _z_scores(bm25s), strict=True)
    ]
    lifts: defaultdict[tuple[Any, int | None], float] = defaultdict(float)
    places = list(zip(sessions, positions, strict=True))
    for row in sorted(range(len(sums)), key=lambda row: -sums[row])[:LIFTING]:
        session, position = places[row]
        if sums[row] > 0 and session is not None and position is not None:
            for distance, share in NEIGHBOUR_SHARES.items():
                lifts[session, position + distance] += sums[row] * share
    return [own + lifts.get(place, 0.0) for own, place in zip(sums, places, strict=True)]


def _z_scores(values: Sequence[float]) -> list[float]:
    if not values:
        return []
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    # What is left of equal values is rounding error, not a ranking.
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return [0.0] * len(values)
    return [(value - mean) / deviation for value in values]


def unit(vector: Sequence[float]) -> Sequence[float] | None:
    """The vector at length 1, which half precision can hold; None where it is zero and points nowhere.

    Raises:
        InvalidValue: a component is not finite.
    """
    length = math.hypot(*vector)
    if not math.isfinite(length):
        raise InvalidValue("A vector has components that are not finite numbers.")
    if 0.99 < length < 1.01:
        return vector
    return [x / length for x in vector] if length else None


def within_budget(hits: Iterable[Hit], token_budget: int | None) -> list[Hit]:
    """In order, each hit whose tokens still fit into what is left of the budget; all where it is None."""
    if token_budget is None:
        return list(hits)
    left = token_budget
    kept = []
    for hit in hits:
        if hit.memory.tokens <= left:
            kept.append(hit)
            left -= hit.memory.tokens
    return kept
