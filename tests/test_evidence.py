"""Whether clues find the evidence: tasks, arithmetic and command, on small pieces made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.evaluation.bootstrap import interval
from memgraph_plugin.evaluation.evidence import (
    SYSTEMS,
    Task,
    books,
    evaluate,
    evidence_table,
    hotpotqa,
    qmsum,
    reward,
)
from memgraph_plugin.memorag.clues import Ask
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Clue
from tests.tiny_models import tiny

HOTPOT = {
    "id": "q1",
    "question": "In which country does the founder of Acme live?",
    "titles_gold": ["Ada", "Acme"],
    "supporting_sentence_idx": [[1], [0]],
    "passages": [
        {"title": "Acme", "sentences": ["Acme was founded by Ada."], "supporting": True},
        {"title": "Tea", "sentences": ["Tea is a drink."], "supporting": False},
        {"title": "Ada", "sentences": ["Ada paints.", " She moved to Norway."], "supporting": True},
    ],
}


def lines(path: Path, *items: object) -> Path:
    path.write_text("\n".join(json.dumps(item) for item in items), "utf-8")
    return path


@pytest.fixture
def hotpot(tmp_path: Path) -> Task:
    return hotpotqa(lines(tmp_path / "hotpot.jsonl", HOTPOT, {**HOTPOT, "id": "q2"}), 1)


def test_hotpotqa_needs_its_gold_paragraphs(hotpot: Task) -> None:
    (case,) = hotpot.cases
    assert case.needs == (frozenset({"q1:0"}), frozenset({"q1:2"}))
    assert case.evidence == ("Acme was founded by Ada.", "She moved to Norway.")
    assert hotpot.documents["q1"].startswith("Acme: Acme was founded by Ada.\n\nTea:")
    assert len(hotpot.passages) == 3
    assert reward(case, ["q1:0", "q1:1"]) == 0.5


def test_qmsum_needs_a_turn_of_each_span(tmp_path: Path) -> None:
    meeting = {
        "id": "m",
        "turns": [{"speaker": "Ann", "content": f"point {n}"} for n in range(5)],
        "specific": [{"query": "Why?", "answer": "Because.", "relevant_text_span": [["1", "2"], ["4", "9"]]}],
    }
    task = qmsum(lines(tmp_path / "qmsum.jsonl", meeting), 9)
    assert task.cases[0].needs == (frozenset({"m:1", "m:2"}), frozenset({"m:4"}))
    assert task.documents["m"].splitlines()[1] == "Ann: point 1"


def test_books_need_a_passage_with_each_string(tmp_path: Path) -> None:
    pytest.importorskip("llama_index.core", reason="needs the extra documents")
    (tmp_path / "book.txt").write_text(
        "The Demeter sailed.\n\n" + "Rain. " * 300 + "\n\nBoxes of earth.", "utf-8"
    )
    probe = {"book": "book.txt", "scenario": "vague_intent", "question": "How?"}
    probes = lines(
        tmp_path / "probes.jsonl",
        {**probe, "evidence_strings": ["Demeter", "of earth"]},
        {
            **probe,
            "scenario": "conversational",
            "question": ["Ship?", "Cargo?"],
            "evidence_strings": ["D", "B"],
        },
    )
    task = books(probes, 2)
    assert [case.scenario for case in task.cases] == ["vague", "conversation", "conversation"]
    assert [len(case.needs) for case in task.cases] == [2, 1, 1]
    assert task.cases[0].needs[0] != task.cases[0].needs[1]
    assert task.cases[0].evidence == ("The Demeter sailed.", "Boxes of earth.")


class Drafter:
    name = "test"

    def draft(self, ask: Ask) -> list[Clue]:
        return [Clue("span", "She moved to Norway long ago.")]

    async def adraft(self, ask: Ask) -> list[Clue]:
        return self.draft(ask)


def test_every_system_is_measured_on_the_same_budget(hotpot: Task) -> None:
    asked: list[tuple[str | None, tuple[str, ...]]] = []

    def drafter(document: str | None, kinds: tuple[str, ...]) -> Drafter:
        asked.append((document, kinds))
        return Drafter()

    store = InMemoryMemoryStore(embeddings=HashingEmbeddings())
    report = evaluate(store, hotpot, SYSTEMS, drafter, budget=40)
    assert list(report.found) == list(SYSTEMS)
    assert all(0 <= found.recall[0] <= 1 for found in report.found.values())
    assert report.found["query"].clues == 0
    assert report.found["oracle"].clues >= 1
    assert asked[0] == ("q1", ("span", "question", "draft"))
    assert (None, ("draft",)) in asked
    # What was said serves all who ask the same.
    assert asked.count(("q1", ("span", "question"))) <= 1
    assert report.found["draft"].seconds >= report.found["spans"].seconds
    assert len(evidence_table(report).rows) == len(SYSTEMS)
    assert report.to_json()["systems"]["both"]["cases"] == 1


def test_the_interval_is_of_the_mean() -> None:
    low, high = interval([0.0, 1.0] * 50, fmean)
    assert 0.35 < low < 0.5 < high < 0.65


def test_what_is_no_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{", "utf-8")
    with pytest.raises(ConfigurationError, match="no JSONL"):
        hotpotqa(tmp_path / "x.jsonl", 1)


def test_the_command_measures_and_writes(
    tmp_path: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMGRAPH_PLUGIN_DSN", empty_dsn)
    monkeypatch.setenv("MEMGRAPH_PLUGIN_EMBEDDINGS", "none")
    data, model, output = lines(tmp_path / "h.jsonl", HOTPOT), tmp_path / "model", tmp_path / "out.json"
    tiny().model.save_pretrained(model)
    tiny().tokenizer.save_pretrained(model)
    command = f"evaluate clues --data {data} --model local:{model} --window 32 --systems query,both,oracle"
    done = CliRunner().invoke(app, f"{command} --output {output}".split())
    assert done.exit_code == 0, done.output
    assert list(json.loads(output.read_text("utf-8"))["systems"]) == ["query", "both", "oracle"]
    for wrong, why in (("--task x", "no 'x'"), ("--systems x", "no 'x'")):
        refused = CliRunner().invoke(app, f"{command} {wrong}".split())
        assert (refused.exit_code, why in refused.output) == (1, True)
