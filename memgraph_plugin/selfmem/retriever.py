"""The nearest examples of a corpus by BM25, source against source, for whole batches.

Cheng et al., "Lift Yourself Up" (arXiv 2305.02437, section 2.2). The arithmetic and the words are those of
the stores' `recall`, so that what a generator was trained on is what it is given later. Departs from it: in
training, not only the row itself is left out but all that have an equal source. Pure; no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memgraph_plugin.selfmem.corpus import same
from memgraph_plugin.store.ranking import K1, QUESTION_CHARACTERS, B, lexemes
from memgraph_plugin.types import Example


class BM25Retriever:
    """An index of examples in memory; some 5,000 sources a second against 10,000 examples.

    Args:
        examples: what is searched; keys must differ where they are used to exclude.
        language: whose stems and stop words; as of the store.
        side: what is compared; "target" finds examples for a draft.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        language: str = "english",
        side: Literal["source", "target"] = "source",
    ) -> None:
        self.examples = tuple(examples)
        self._language = language
        texts = [each.source if side == "source" else each.target for each in self.examples]
        self._postings = _postings([Counter(lexemes(text, language)) for text in texts])
        self._texts = np.array([same(text) for text in texts], dtype=object)
        self._corpus = np.array([each.origin == "corpus" for each in self.examples], dtype=bool)

    def retrieve(
        self, sources: Sequence[str], k: int, *, exclude: Sequence[str | None] | None = None
    ) -> list[list[Example]]:
        """At most `k` examples for each source, nearest first; ties in the order of the corpus.

        Only what shares a word with a source is near it: a source without words has none. For `exclude` see
        `protocols.Retriever`; an entry that is None leaves nothing out for its source.
        """
        keys = exclude if exclude is not None else [None] * len(sources)
        return [self._nearest(source, k, key) for source, key in zip(sources, keys, strict=True)]

    def scores(self, source: str) -> NDArray[np.float64]:
        """How near each example is, in their order; 0 where it shares no word."""
        scores = np.zeros(len(self.examples))
        for word in sorted(set(lexemes(source[:QUESTION_CHARACTERS], self._language))):
            if word in self._postings:
                places, weights = self._postings[word]
                scores[places] += weights
        return scores

    def _nearest(self, source: str, k: int, key: str | None) -> list[Example]:
        scores = self.scores(source)
        if key is not None:
            scores[~self._corpus | (self._texts == same(source))] = 0.0
        count = min(k + (key is not None), len(scores))
        if count < 1:
            return []
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        near = np.flatnonzero((scores >= least) & (scores > 0))
        ranked = near[np.lexsort((near, -scores[near]))]
        found = (self.examples[place] for place in ranked[:count])
        return [each for each in found if key is None or each.key != key][:k]


def _postings(
    documents: Sequence[Mapping[str, int]],
) -> dict[str, tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """For each word where it occurs, and what it adds to the score there (`ranking.bm25`)."""
    lengths = np.array([len(document) for document in documents], dtype=float)
    mean = lengths.mean() if lengths.any() else 1.0
    places: dict[str, list[tuple[int, int]]] = {}
    for place, document in enumerate(documents):
        for word, count in document.items():
            places.setdefault(word, []).append((place, count))
    found = {}
    for word, listed in places.items():
        where = np.array([place for place, _ in listed])
        times = np.array([count for _, count in listed], dtype=float)
        idf = log(1 + (len(documents) - len(listed) + 0.5) / (len(listed) + 0.5))
        found[word] = (where, idf * times * (K1 + 1) / (times + K1 * (1 - B + B * lengths[where] / mean)))
    return found
