"""Metrics: the published outputs score what the paper says, and formulas are those of the libraries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.evaluation.bootstrap import paired
from memgraph_plugin.selfmem.metrics import metric

pytest.importorskip("sacrebleu", reason="metrics are in the extra selfmem")

DATA = Path(__file__).parents[2] / "shared" / "data" / "selfmem"
SHARED = next(
    (folder for up in Path(__file__).parents if (folder := up / "shared/data/selfmem").is_dir()), DATA
)
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")

TEXTS = ["the cat sat on the mat", "the cat is on the mat .", "a dog", "", "the the the", "Größe 3,5 %s (ok)"]


def jsonl(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SHARED / name).read_text("utf-8").splitlines()]


@needs_data
@pytest.mark.parametrize(
    ("by", "system", "score"),
    [
        ("bleu", "bm25", 38.89),
        ("bleu", "random_memory", 1.14),
        ("bleu", "dual_retrieval", 58.07),
        ("bleu", "joint_retrieval", 58.58),
        ("bleu", "dual_selfmem", 59.49),
        ("bleu", "joint_selfmem", 60.11),
        ("chrf", "dual_retrieval", 71.58),
        ("chrf", "joint_retrieval", 72.22),
        ("chrf", "dual_selfmem", 72.62),
        ("chrf", "joint_selfmem", 73.25),
    ],
)
def test_the_published_outputs_score_as_published(by: str, system: str, score: float) -> None:
    pairs = jsonl("jrc_ende_test_pairs.jsonl")
    outputs = (
        [pair["bm25_memory_de"] for pair in pairs]
        if system == "bm25"
        else [each[system] for each in jsonl("jrc_ende_official_outputs.jsonl")]
    )
    assert metric(by).corpus(outputs, [pair["de"] for pair in pairs]) == pytest.approx(score, abs=0.0101)


@needs_data
def test_self_memory_gains_on_the_published_outputs_beyond_chance() -> None:
    references = [pair["de"] for pair in jsonl("jrc_ende_test_pairs.jsonl")]
    outputs = jsonl("jrc_ende_official_outputs.jsonl")
    ours, theirs = (
        metric("bleu").over([each[system] for each in outputs], references)
        for system in ("joint_selfmem", "joint_retrieval")
    )
    gain = paired(len(outputs), ours, theirs, resamples=200)
    assert gain.gain == pytest.approx(1.53, abs=0.005)
    assert gain.low > 0
    assert gain.p == pytest.approx(1 / 201)


def test_a_sentence_scores_as_sacrebleu_scores_a_corpus_of_it() -> None:
    import sacrebleu

    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF(word_order=2)
    for output in TEXTS:
        for reference in TEXTS[:2] + TEXTS[5:]:
            (ours,) = metric("bleu").sentences([output], [reference])
            assert ours == pytest.approx(bleu.corpus_score([output], [[reference]]).score, abs=1e-9)
            (ours,) = metric("chrf").sentences([output], [reference])
            assert ours == pytest.approx(chrf.corpus_score([output], [[reference]]).score, abs=1e-9)


@pytest.mark.parametrize("by", ["bleu", "chrf", "bleu-1/2", "rouge"])
def test_pairwise_is_each_with_each(by: str) -> None:
    measure = metric(by)
    table = measure.pairwise(TEXTS)
    for output, row in zip(TEXTS, table, strict=True):
        assert row == pytest.approx(measure.sentences([output] * len(TEXTS), TEXTS), abs=1e-9)
    assert measure.pairwise([]) == []


def test_bleu_of_one_and_two_words_is_nltks() -> None:
    translate = pytest.importorskip("nltk.translate.bleu_score")
    outputs, references = ["the cat sat here", "a b c d"], ["the cat sat on it", "c x d"]
    for order, weights in ((1, (1.0,)), (2, (0.5, 0.5))):
        theirs = translate.corpus_bleu(
            [[each.split()] for each in references],
            [each.split() for each in outputs],
            weights=weights,
            smoothing_function=translate.SmoothingFunction().method1,
        )
        assert metric(f"bleu-{order}").corpus(outputs, references) == pytest.approx(100 * theirs)
    both = metric("bleu-1").corpus(outputs, references), metric("bleu-2").corpus(outputs, references)
    assert metric("bleu-1/2").corpus(outputs, references) == pytest.approx(sum(both) / 2)


def test_rouge_is_f1_on_stems_and_a_mix_is_the_mean() -> None:
    (first,) = metric("rouge-1").sentences(["cats sat"], ["the cat sat down"])
    assert first == pytest.approx(100 * 2 * 1.0 * 0.5 / 1.5)
    parts = [metric(f"rouge-{part}").sentences(TEXTS[:1], TEXTS[1:2])[0] for part in ("1", "2", "l")]
    assert metric("rouge").sentences(TEXTS[:1], TEXTS[1:2]) == [pytest.approx(sum(parts) / 3)]


def test_distinct_counts_a_candidates_own_words_and_those_of_all_outputs() -> None:
    one = metric("distinct-1")
    assert one.sentences(["a a b", "b", ""], ["", "", ""]) == pytest.approx([200 / 3, 100, 0])
    assert one.corpus(["a a b", "b"], ["", ""]) == 50
    assert metric("distinct").corpus(["a a b", "b"], ["", ""]) == 75
    with pytest.raises(ConfigurationError, match="consensus"):
        one.pairwise(["a"])


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="no metric 'blue'"):
        metric("blue")
    with pytest.raises(ConfigurationError, match="2 outputs, but 1 references"):
        metric("bleu").corpus(["a", "b"], ["a"])
    assert metric("bleu").corpus([], []) == metric("rouge").corpus([], []) == 0
