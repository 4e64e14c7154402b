"""How good an output is: against a reference (Delta of the paper), or against the other candidates.

BLEU and chrF by sacreBLEU's formulas and tokens, ROUGE by `rouge-score`, Distinct by hand; all in 0..100.
What is ours is to count n-grams once a text: a pool of fifty candidates is compared pairwise in hundredths
of a second.

Cheng et al., Selfmem (arXiv 2305.02437): BLEU for translation, a mix of ROUGE-1/2/L for summaries, of
BLEU-1/2 for dialogue, of Distinct-1/2 where variety is wanted. The paper does not give the weights of a mix;
ours are equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from memgraph_plugin.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np

    Rows: TypeAlias = np.ndarray[tuple[int, int, int], np.dtype[np.int64]]

REMEMBERED = 8_192
"""Texts whose n-grams or stemmed words are kept: candidates are counted once for all references."""

MIXES: Mapping[str, str] = MappingProxyType(
    {
        "bleu-1/2": "bleu-1+bleu-2",
        "rouge": "rouge-1+rouge-2+rouge-l",
        "distinct": "distinct-1+distinct-2",
    }
)
"""Names for the mixes of the paper."""


class Metric(ABC):
    """A measure of outputs, by name; higher is better, 0..100."""

    name: str

    @abstractmethod
    def sentences(self, outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        """Each output alone against its reference: the label of a candidate.

        Raises:
            ConfigurationError: there are not as many references as outputs.
        """

    @abstractmethod
    def over(self, outputs: Sequence[str], references: Sequence[str]) -> Callable[[Sequence[int]], float]:
        """The score of any choice of rows, together: to resample them, or for those of a bucket. 0 for none.

        Raises:
            ConfigurationError: there are not as many references as outputs.
        """

    @abstractmethod
    def pairwise(self, texts: Sequence[str]) -> list[list[float]]:
        """Row i, column j: text i with text j for its reference.

        Raises:
            ConfigurationError: it is a metric without a reference.
        """

    def corpus(self, outputs: Sequence[str], references: Sequence[str]) -> float:
        """The score of all outputs together."""
        return self.over(outputs, references)(range(len(outputs)))


def metric(name: str) -> Metric:
    """The metric of a name; the same object for the same name.

    There are "bleu", "bleu-1", "bleu-2", "chrf" (chrF++: six characters, two words), "rouge-1", "rouge-2",
    "rouge-l", "distinct-1", "distinct-2"; "+" between them makes their mean. "rouge", "bleu-1/2" and
    "distinct" are the mixes of the paper. "bleu" has sacreBLEU's defaults (13a, exp, mixed case); "bleu-1"
    and "bleu-2" are NLTK's on words between blanks (smoothing of method 1), as dialogue is measured.

    Raises:
        ConfigurationError: there is no such metric.
        MissingExtraError: the extra `selfmem` is not installed.
    """
    return _metric(name)


@cache
def _metric(name: str) -> Metric:
    parts = MIXES.get(name, name).split("+")
    if len(parts) > 1:
        return _Mix(name, [_metric(part) for part in parts])
    try:
        if name in ("bleu", "bleu-1", "bleu-2"):
            return _Bleu(name)
        if name == "chrf":
            return _Chrf(name)
        if name in ("rouge-1", "rouge-2", "rouge-l"):
            return _Rouge(name)
        if name in ("distinct-1", "distinct-2"):
            return _Distinct(name)
    except ImportError as error:
        raise MissingExtraError("selfmem", f"The metric {name!r}") from error
    raise ConfigurationError(
        f"There is no metric {name!r}: name bleu, bleu-1/2, chrf, rouge or distinct, or parts joined by '+'."
    )


class _NGrams(Metric):
    """What is scored from counts of n-grams of several orders: of the output, the reference, and shared."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._counts = lru_cache(REMEMBERED)(self._count)

    @abstractmethod
    def _count(self, text: str) -> tuple[Counter[Any], ...]:
        """The n-grams of a text, one counter an order."""

    @abstractmethod
    def _score(self, had: list[int], wanted: list[int], shared: list[int]) -> float:
        """The score of counts by order."""

    def sentences(self, outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        return [self._score(*row.tolist()) for row in self._rows(outputs, references)]

    def over(self, outputs: Sequence[str], references: Sequence[str]) -> Callable[[Sequence[int]], float]:
        rows = self._rows(outputs, references)

        def score(chosen: Sequence[int]) -> float:
            return self._score(*rows[list(chosen)].sum(axis=0).tolist()) if len(chosen) else 0.0

        return score

    def pairwise(self, texts: Sequence[str]) -> list[list[float]]:
        import numpy as np

        if not texts:
            return []
        counts = [self._counts(text) for text in texts]
        orders: list[dict[Any, int]] = []
        starts, width = [], 0
        for grams in zip(*counts, strict=True):
            orders.append({gram: width + n for n, gram in enumerate(set().union(*grams))})
            starts.append(width)
            width += len(orders[-1]) + 1  # a column of zeros: no order is without columns
        matrix = np.zeros((len(texts), width), dtype=np.int32)
        for row, grams in zip(matrix, counts, strict=True):
            for places, count in zip(orders, grams, strict=True):
                row[list(map(places.__getitem__, count))] = list(count.values())
        shared = [np.add.reduceat(np.minimum(row, matrix), starts, axis=1).tolist() for row in matrix]
        sizes = [row[n] for n, row in enumerate(shared)]
        return [
            [self._score(sizes[i], sizes[j], row[j][:]) for j in range(len(texts))]
            for i, row in enumerate(shared)
        ]

    def _rows(self, outputs: Sequence[str], references: Sequence[str]) -> Rows:
        """Counts [n, 3, orders] of each output: its own, its reference's, and what they share."""
        import numpy as np

        _check(outputs, references)
        rows = []
        for output, reference in zip(outputs, references, strict=True):
            had, wanted = self._counts(output), self._counts(reference)
            shared = [_shared(ours, theirs) for ours, theirs in zip(had, wanted, strict=True)]
            rows.append([[count.total() for count in had], [count.total() for count in wanted], shared])
        return np.array(rows or np.zeros((0, 3, 1)), dtype=np.int64)


def _shared(ours: Counter[Any], theirs: Counter[Any]) -> int:
    both = ours.keys() & theirs.keys()
    return sum(map(min, map(ours.__getitem__, both), map(theirs.__getitem__, both)))


class _Bleu(_NGrams):
    """BLEU of up to four words, or of one or two as NLTK has it."""

    def __init__(self, name: str) -> None:
        from sacrebleu.metrics.bleu import BLEU

        super().__init__(name)
        if name == "bleu":
            self._bleu = BLEU()
        else:
            order = int(name.removeprefix("bleu-"))
            self._bleu = BLEU(
                max_ngram_order=order, tokenize="none", smooth_method="floor", smooth_value=0.1, force=True
            )

    def _count(self, text: str) -> tuple[Counter[Any], ...]:
        words = self._bleu.tokenizer(text.rstrip()).split()
        orders = range(1, self._bleu.max_ngram_order + 1)
        return tuple(Counter(zip(*(words[start:] for start in range(n)), strict=False)) for n in orders)

    def _score(self, had: list[int], wanted: list[int], shared: list[int]) -> float:
        bleu = self._bleu
        return float(
            bleu.compute_bleu(
                shared,
                had,
                had[0],
                wanted[0],
                smooth_method=bleu.smooth_method,
                smooth_value=bleu.smooth_value,
                max_ngram_order=bleu.max_ngram_order,
            ).score
        )


class _Chrf(_NGrams):
    """chrF++, by what sacreBLEU computes it from."""

    def __init__(self, name: str) -> None:
        from sacrebleu.metrics.chrf import CHRF

        super().__init__(name)
        self._chrf = CHRF(word_order=2)

    def _count(self, text: str) -> tuple[Counter[Any], ...]:
        return tuple(self._chrf._extract_reference_info([text])["ref_ngrams"][0])

    def _score(self, had: list[int], wanted: list[int], shared: list[int]) -> float:
        counts = [n for order in zip(had, wanted, shared, strict=True) for n in order]
        return float(self._chrf._compute_f_score(counts))


class _Rouge(Metric):
    """F1 of ROUGE on stemmed words; of many outputs the mean."""

    def __init__(self, name: str) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self.name = name
        self._type = name.replace("-", "").replace("rougel", "rougeL")
        self._scorer = RougeScorer([self._type], tokenizer=_stems())

    def sentences(self, outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        _check(outputs, references)
        return [
            100 * float(self._scorer.score(reference, output)[self._type].fmeasure)
            for output, reference in zip(outputs, references, strict=True)
        ]

    def over(self, outputs: Sequence[str], references: Sequence[str]) -> Callable[[Sequence[int]], float]:
        return _mean_of(self.sentences(outputs, references))

    def pairwise(self, texts: Sequence[str]) -> list[list[float]]:
        return [self.sentences([text] * len(texts), texts) for text in texts]


@cache
def _stems() -> Any:
    """rouge-score's words, stemmed, kept for texts that are scored more than once."""
    from rouge_score.tokenizers import DefaultTokenizer

    tokenizer = DefaultTokenizer(use_stemmer=True)
    tokenizer.tokenize = lru_cache(REMEMBERED)(tokenizer.tokenize)
    return tokenizer


class _Distinct(Metric):
    """Different n-grams by all of them, of one output or of all together; without a reference.

    The words of a candidate are its own: its variety says nothing of how alike the candidates are.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._order = int(name.removeprefix("distinct-"))

    def sentences(self, outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        _check(outputs, references)
        return [_distinct([self._grams(output)]) for output in outputs]

    def over(self, outputs: Sequence[str], references: Sequence[str]) -> Callable[[Sequence[int]], float]:
        _check(outputs, references)
        grams = [self._grams(output) for output in outputs]
        return lambda rows: _distinct([grams[row] for row in rows])

    def pairwise(self, texts: Sequence[str]) -> list[list[float]]:  # noqa: ARG002 - cannot be
        raise ConfigurationError(f"{self.name} compares nothing: take bleu, chrf or rouge for a consensus.")

    def _grams(self, text: str) -> list[tuple[str, ...]]:
        words = text.split()
        return list(zip(*(words[start:] for start in range(self._order)), strict=False))


def _distinct(texts: Sequence[Sequence[tuple[str, ...]]]) -> float:
    total = sum(map(len, texts))
    return 100 * len({gram for text in texts for gram in text}) / total if total else 0.0


class _Mix(Metric):
    """The mean of several metrics."""

    def __init__(self, name: str, parts: Sequence[Metric]) -> None:
        self.name = name
        self._parts = parts

    def sentences(self, outputs: Sequence[str], references: Sequence[str]) -> list[float]:
        each = [part.sentences(outputs, references) for part in self._parts]
        return [sum(scores) / len(scores) for scores in zip(*each, strict=True)]

    def over(self, outputs: Sequence[str], references: Sequence[str]) -> Callable[[Sequence[int]], float]:
        each = [part.over(outputs, references) for part in self._parts]
        return lambda rows: sum(score(rows) for score in each) / len(each)

    def pairwise(self, texts: Sequence[str]) -> list[list[float]]:
        each = [part.pairwise(texts) for part in self._parts]
        return [
            [sum(cells) / len(cells) for cells in zip(*rows, strict=True)] for rows in zip(*each, strict=True)
        ]


def _mean_of(scores: Sequence[float]) -> Callable[[Sequence[int]], float]:
    return lambda rows: sum(scores[row] for row in rows) / len(rows) if len(rows) else 0.0


def _check(outputs: Sequence[str], references: Sequence[str]) -> None:
    if len(outputs) != len(references):
        raise ConfigurationError(f"There are {len(outputs)} outputs, but {len(references)} references.")
