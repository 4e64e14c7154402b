"""Selectors that need no network to learn: what they pick, what they refuse, and how well on real pools."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.messages import BaseMessage

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch, ModelReplyError
from memgraph_plugin.evaluation.oracle import OracleSelector
from memgraph_plugin.selfmem.linear_kl import FEATURES, LinearKLSelector, features, loss
from memgraph_plugin.selfmem.llm_selector import LLMSelector
from memgraph_plugin.selfmem.metrics import metric
from memgraph_plugin.selfmem.pools import Pool, build, cross_fitted, folds, quality, read, target, write
from memgraph_plugin.selfmem.saved import load_selector
from memgraph_plugin.selfmem.selectors import ConsensusSelector, LikelihoodSelector, best
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.types import Candidate, Example, Request
from tests.test_selfmem_metrics import jsonl, needs_data

pytest.importorskip("sacrebleu", reason="metrics are in the extra selfmem")

ASKED = Request(source="The cat has 2 tails: %s", memory="Der Hund hat 2 Schwänze: %s")


def pool_of(*texts: str) -> list[Candidate]:
    return [Candidate(text, -0.1 * n) for n, text in enumerate(texts, 1)]


def learnable(count: int = 12) -> list[Pool]:
    """The right candidate keeps the number of the source."""
    return [
        Pool(
            Request(source=f"give me {n} apples"),
            tuple(pool_of("gib mir einen Apfel", f"gib mir {n} Äpfel", "geh fort")[:: 1 if n % 2 else -1]),
            f"gib mir {n} Äpfel",
        )
        for n in range(10, 10 + count)
    ]


def test_the_first_of_the_best_is_chosen_and_never_what_is_no_number() -> None:
    nan = math.nan
    assert best([1.0, 3.0, 3.0]) == 1
    assert best([nan, -math.inf, nan]) == 1
    assert best([nan, nan]) == 0
    with pytest.raises(ConfigurationError, match="no candidate"):
        best([])


@pytest.mark.parametrize("by", ["chrf", "bleu", HashingEmbeddings(64)])
def test_a_consensus_is_most_like_the_others(by: str | HashingEmbeddings) -> None:
    pool = pool_of("something else entirely", "the cat sat on the mat", "the cat sat on a mat", "the cat lay")
    selector = ConsensusSelector(by)
    (scores,) = selector.scores([ASKED], [pool])
    assert best(scores) in (1, 2)
    assert selector.scores([ASKED] * 3, [[], pool[:1], [pool[0]] * 3])[:2] == [[], [0.0]]
    (equal,) = selector.scores([ASKED], [[pool[0]] * 3])
    assert best(equal) == 0


def test_likelihood_needs_likelihoods() -> None:
    assert LikelihoodSelector().scores([ASKED], [pool_of("a", "b")]) == [[-0.1, -0.2]]
    with pytest.raises(ConfigurationError, match="no likelihoods"):
        LikelihoodSelector().scores([ASKED], [[Candidate("a")]])
    (scores,) = LikelihoodSelector().scores([ASKED], [[Candidate("retrieved"), *pool_of("a", "b")]])
    assert best(scores) == 1
    with pytest.raises(ConfigurationError, match="1 requests, but 0 pools"):
        LikelihoodSelector().scores([ASKED], [])


def test_the_oracle_knows_and_says_when_it_does_not() -> None:
    oracle = OracleSelector({ASKED.source: "die Katze"}, "chrf")
    assert oracle.scores([ASKED], [pool_of("der Hund", "die Katze")])[0][1] == pytest.approx(100)
    with pytest.raises(ConfigurationError, match="no reference for 'other'"):
        oracle.scores([replace(ASKED, source="other")], [[]])


def test_a_target_is_the_softmax_of_labels_spread_over_the_pool() -> None:
    goal = target([0.2, 0.4, 0.3], 0.5)
    assert goal is not None
    assert goal == pytest.approx([each / (1 + math.e**2 + math.e) for each in (1, math.e**2, math.e)])
    plain = target([0.2, 0.4], 0.1, "none")
    assert plain == pytest.approx([1 / (1 + math.e**2), 1 / (1 + math.e**-2)])
    assert target([0.5, 0.5], 0.5) is target([], 0.5) is target([0.1, math.nan], 0.5) is None


def test_the_linear_loss_is_the_divergence_by_hand() -> None:
    import numpy as np

    goals, scores = np.array([0.75, 0.25, 0.5, 0.5]), np.array([math.log(3.0), 0.0, 1.0, 1.0])
    assert loss(scores, goals, [0, 2]) == pytest.approx(0)
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert loss(np.zeros(4), goals, [0, 2]) == pytest.approx(by_hand / 2)


def test_the_linear_selector_learns_what_tells_good_from_bad(tmp_path: Path) -> None:
    pools = learnable()
    selector = LinearKLSelector.fit(pools, task="translation", language="en-de")
    scores = selector.scores([pool.request for pool in pools], [pool.candidates for pool in pools])
    assert quality(pools, scores, metric("bleu")).rank == 1
    selector.save(tmp_path / "s")
    again = load_selector(tmp_path / "s", task="translation", language="en-de")
    assert again.scores([pools[0].request], [pools[0].candidates]) == [scores[0]]
    assert again.training == selector.training
    assert selector.scores([ASKED, ASKED], [[], pool_of("one")])[0] == []
    assert all(map(math.isfinite, features(ASKED, [Candidate("", math.nan), Candidate("x")])[0]))


def test_a_selector_of_another_task_or_language_is_refused_by_name(tmp_path: Path) -> None:
    LinearKLSelector.fit(learnable(), task="translation", language="en-de").save(tmp_path)
    with pytest.raises(FingerprintMismatch, match="language 'en-de', and here it is 'en-es'"):
        load_selector(tmp_path, task="translation", language="en-es")
    with pytest.raises(FingerprintMismatch, match="task 'translation', and here it is 'summary'"):
        load_selector(tmp_path, task="summary")
    with pytest.raises(ConfigurationError, match="no trained selector"):
        load_selector(tmp_path / "nowhere")
    (tmp_path / "selector.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="no trained selector"):
        load_selector(tmp_path)
    with pytest.raises(ConfigurationError, match=f"{len(FEATURES)} weights"):
        LinearKLSelector([math.nan], LinearKLSelector.fit(learnable()).training)


def test_nothing_is_learned_from_pools_that_are_all_alike() -> None:
    with pytest.raises(ConfigurationError, match="Nothing to learn"):
        LinearKLSelector.fit([Pool(ASKED, tuple(pool_of("a", "a")), "a"), Pool(ASKED, (), "a")])


@needs_data
def test_the_linear_selector_is_above_the_consensus_on_real_pools() -> None:
    """Five systems' outputs for each source of JRC-Acquis; five folds, seed 1. The oracle has 63.72."""
    systems = ("dual_retrieval", "joint_retrieval", "dual_selfmem", "joint_selfmem")
    pools = []
    rows = zip(jsonl("jrc_ende_test_pairs.jsonl"), jsonl("jrc_ende_official_outputs.jsonl"), strict=True)
    for pair, outputs in rows:
        memory = pair["bm25_memory_de"]
        texts = (memory, *(outputs[system] for system in systems))
        pools.append(
            Pool(Request(source=pair["en"], memory=memory), tuple(map(Candidate, texts)), pair["de"])
        )
    scores: list[list[float]] = [[] for _ in pools]
    for part in folds([Example(source=pool.request.source, target="") for pool in pools], 5, seed=1):
        held_out = set(part)
        selector = LinearKLSelector.fit([pool for n, pool in enumerate(pools) if n not in held_out])
        told = selector.scores([pools[n].request for n in part], [pools[n].candidates for n in part])
        for n, row in zip(part, told, strict=True):
            scores[n] = row
    found = quality(pools, scores, metric("bleu"))
    assert found.random < 56
    assert found.picked > 60.1
    assert found.oracle > 63.6


class Echo:
    """A generator that writes what it was trained on, to tell who wrote what."""

    fingerprint: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __init__(self, name: str = "") -> None:
        self.name = name

    def candidates(self, requests: list[Request], n: int, *, seed: int = 0) -> list[list[Candidate]]:
        return [pool_of(f"{self.name}{request.source}", "b")[:n] for request in requests]

    def hypotheses(self, requests: list[Request], *, seed: int = 0) -> list[Candidate]:
        return [Candidate(request.source) for request in requests]


def test_pools_are_kept_whole(tmp_path: Path) -> None:
    example = Example(source="x", target="ü", key="7")
    asked = [Request(source=f"{n}", memory="m", examples=(example,), round=1) for n in range(5)]
    pools = build(Echo(), asked, list("abcde"), n=3)
    assert write(pools, tmp_path / "pools.jsonl") == 5
    assert read(tmp_path / "pools.jsonl") == pools
    with (tmp_path / "pools.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ConfigurationError, match="line 6"):
        read(tmp_path / "pools.jsonl")


def test_no_pool_is_written_by_a_generator_that_saw_its_source() -> None:
    examples = [Example(source=f"s{n % 6}", target="t") for n in range(9)]
    requests = [Request(source=example.source) for example in examples]
    taught: dict[str, set[str]] = {}

    def trained(places: list[int], number: int) -> Echo:
        taught[f"{number}:"] = {examples[place].source for place in places}
        return Echo(f"{number}:")

    pools = list(cross_fitted(examples, requests, trained, parts=3))
    assert sorted(pool.request.source for pool in pools) == sorted(example.source for example in examples)
    for pool in pools:
        writer = pool.candidates[0].text.removesuffix(pool.request.source)
        assert pool.request.source not in taught[writer]
    with pytest.raises(ConfigurationError, match="7 parts"):
        folds(examples, 7)


def picking(wanted: str) -> object:
    """A judge that names the text wanted, wherever it stands."""

    def reply(messages: list[BaseMessage]) -> str:
        lines = str(messages[1].content).splitlines()
        number = next(line.partition(".")[0] for line in lines if wanted in line)
        return json.dumps({"best": int(number)})

    return reply


def test_a_judge_is_asked_in_two_orders_and_not_about_one_text() -> None:
    model = ScriptedChatModel(replies=[picking("Katze")], repeat_last=True)
    judge = LLMSelector(model, task="Translate from English to German.")
    pools = [pool_of("ein Hund", "eine Katze", "eine Katze"), pool_of("x"), [], pool_of("y", "y")]
    scores = judge.scores([ASKED] * 4, pools)
    assert scores == [[0.0, 1.0, 1.0], [0.0], [], [0.0, 0.0]]
    assert model.calls == 2
    one, other = (str(prompt[1].content).splitlines()[3:] for prompt in model.prompts)
    assert [line[3:] for line in one] == [line[3:] for line in other][::-1]
    assert "Translate from English to German." in str(model.prompts[0][0].content)


async def test_a_judge_that_always_names_the_first_gives_both_a_half() -> None:
    model = ScriptedChatModel(replies=['{"best": 1}'], repeat_last=True)
    assert await LLMSelector(model).ascores([ASKED], [pool_of("a", "b")]) == [[0.5, 0.5]]


def test_a_judge_that_cannot_be_read_is_asked_again_and_then_replaced() -> None:
    def stubborn(messages: list[BaseMessage]) -> str:
        return "The first." if len(messages) == 2 else '{"best": 9}'

    pools = [pool_of("the cat", "the cat sat", "no")]
    model = ScriptedChatModel(replies=[stubborn], repeat_last=True)
    scores = LLMSelector(model, fallback=ConsensusSelector()).scores([ASKED], pools)
    assert scores == ConsensusSelector().scores([ASKED], pools)
    assert model.calls == 4
    with pytest.raises(ModelReplyError, match="from 1 to 3") as caught:
        LLMSelector(model).scores([ASKED], pools)
    assert "9" in caught.value.raw
    mended = ScriptedChatModel(
        replies=[lambda messages: "?" if len(messages) == 2 else '{"best": 1}'], repeat_last=True
    )
    assert sum(LLMSelector(mended).scores([ASKED], pools)[0]) == 1


def test_a_judge_that_fails_is_replaced_or_says_so() -> None:
    model = ScriptedChatModel(replies=[TimeoutError("late")], repeat_last=True)
    pools = [pool_of("a b", "a")]
    assert len(LLMSelector(model, fallback=LikelihoodSelector()).scores([ASKED], pools)[0]) == 2
    assert model.calls == 2
    with pytest.raises(ModelReplyError, match="TimeoutError: late"):
        LLMSelector(model).scores([ASKED], pools)
