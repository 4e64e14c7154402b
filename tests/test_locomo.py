from __future__ import annotations

import json
from pathlib import Path

import pytest

from memgraph_plugin.evaluation import locomo, locomo_memories
from memgraph_plugin.memalpha.rules import RulePolicy
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from tests.test_ingestion import LOCOMO, write

DATA = Path(__file__).parents[2] / "shared" / "data" / "locomo" / "locomo_dev6.json"


def answer(evidence: set[str], found: list[str], category: int = 1, conversation: str = "c") -> locomo.Answer:
    question = locomo.Question(conversation, "?", category, frozenset(evidence))
    return locomo.Answer(question, tuple(found), {b: frozenset(found[:1]) for b in locomo.BUDGETS})


def test_recall_is_the_share_of_the_evidence_and_the_rank_that_of_its_first() -> None:
    one = answer({"a", "b"}, ["x", "a", "y", "z", "b"])
    assert [locomo.recall_at([one], k) for k in (1, 2, 5)] == [0, 50, 100]
    assert one.reciprocal_rank() == 0.5
    assert answer({"a"}, []).reciprocal_rank() == 0
    assert locomo.reward(one, k=2) == 0.5


def test_main_figures_leave_out_category_five() -> None:
    report = locomo.Report((answer({"a"}, ["a"]), answer({"a"}, ["b"], category=5)), 1.0, {})
    figures = report.to_json()
    assert figures["n_questions"] == 1
    assert figures["recall"] == {"1": 100, "5": 100, "10": 100, "20": 100}
    assert figures["recall_by_category"] == {"1": 100, "5": 0}


def test_the_interval_is_over_conversations() -> None:
    good = [answer({"a"}, ["a"], conversation="good")] * 50
    bad = [answer({"a"}, ["b"], conversation="bad")] * 50
    assert locomo.interval(good + bad, lambda answers: locomo.recall_at(answers, 10)) == (0, 100)


def test_evidence_that_names_no_turn_is_dropped(tmp_path: Path) -> None:
    sample = {**LOCOMO[0], "qa": [
        {"question": "one", "evidence": ["D1:1; D2:1", "D9:9"], "category": 1},
        {"question": "none", "evidence": ["D"], "category": 1},
    ]}  # fmt: skip
    report = locomo.evaluate(InMemoryMemoryStore(), write(tmp_path / "c.json", [sample]))
    assert [sorted(a.question.evidence) for a in report.answers] == [["D1:1", "D2:1"]]


def test_a_conversation_is_stored_asked_and_reported(tmp_path: Path, dsn: str) -> None:
    steps: list[tuple[int, int]] = []
    path = write(tmp_path / "c.json", LOCOMO)
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        report = locomo.evaluate(store, path, progress=lambda done, total: steps.append((done, total)))
    assert report.answers[0].found[0] == "D2:1"
    assert steps[-1] == (4, 4)
    assert json.loads(json.dumps(report.to_json()))["recall"]["10"] == 100
    assert locomo.table(report).row_count == 2


@pytest.mark.skipif(not DATA.exists(), reason="the LoCoMo development conversations are not here")
def test_words_alone_reach_their_floor_on_a_real_conversation(tmp_path: Path, dsn: str) -> None:
    path = write(tmp_path / "one.json", json.loads(DATA.read_text())[:1])
    with PostgresMemoryStore(dsn) as store:
        assert locomo.evaluate(store, path).to_json()["recall"]["10"] > 60


def test_a_memory_that_is_found_stands_for_the_turns_it_was_learnt_from(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", LOCOMO)
    path.write_text(path.read_text().replace('"session_2": [', '"session_2_date_time": "1:56 pm on 9 May, 2023", "session_2": ['))  # fmt: skip # noqa: E501
    steps: list[tuple[int, int]] = []
    store = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    compared = locomo_memories.evaluate(
        store, path, RulePolicy(), progress=lambda done, total: steps.append((done, total))
    )
    (memory,) = store.recall(("locomo", "conv-1"), "", kinds=("semantic",))
    assert memory.memory.text == "Ann lives in Porto."
    assert compared.both.answers[0].found[0] == "D2:1"
    assert len(compared.both.answers[0].found) == len(set(compared.both.answers[0].found))
    assert set(compared.both.answers[0].found) <= {"D1:1", "D1:2", "D2:1"}
    assert compared.memories == 1
    assert 0 < compared.tokens_kept < compared.tokens_read
    assert compared.gain(1) == (0, 0, 0)
    assert json.loads(json.dumps(compared.to_json()))["gain"]["10"] == [0, 0, 0]
    assert steps[-1] == (4, 4)
