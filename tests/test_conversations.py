"""Whether clues bring the words that a question leaves out: cases, arithmetic and command, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.evaluation.conversations import (
    SEARCHED,
    cast,
    conversations_table,
    evaluate,
    words,
)
from memgraph_plugin.memorag.clues import Ask
from memgraph_plugin.testing.openai_server import OpenAIServer
from memgraph_plugin.types import Clue
from tests.test_evidence import lines

TURNS = [
    ("What is throat cancer?", "What is throat cancer?"),
    ("Is it treatable?", "Is throat cancer treatable?"),
    ("What are its symptoms?", "What are lung cancer's symptoms?"),
]


def conversation(name: str = "c1") -> dict[str, Any]:
    turns = [{"n": n, "raw": raw, "resolved": whole} for n, (raw, whole) in enumerate(TURNS, 1)]
    return {"id": name, "title": "cancer", "turns": turns}


class Drafter:
    name = "test"

    def __init__(self) -> None:
        self.asked: list[Ask] = []

    def draft(self, ask: Ask) -> list[Clue]:
        self.asked.append(ask)
        if "symptoms" in ask.query:
            raise ConnectionError("gone")
        return [Clue("question", "Can throat cancer be cured today?"), Clue("span", ask.query)]

    async def adraft(self, ask: Ask) -> list[Clue]:
        return self.draft(ask)


def test_added_words_are_found_by_what_is_searched_for(tmp_path: Path, caplog) -> None:
    cases = cast(lines(tmp_path / "cast.jsonl", conversation(), conversation("c2")), 1)
    assert [case.raw for case in cases] == ["Is it treatable?", "What are its symptoms?"]
    assert cases[0].added == {"throat", "cancer"}
    assert cases[1].added == {"lung", "cancer"}
    drafter, told = Drafter(), list[tuple[int, int]]()
    report = evaluate(cases, SEARCHED, lambda _: drafter, progress=lambda *each: told.append(each))
    recall = {name: found.recall for name, found in report.found.items()}
    assert recall == {
        "raw": (0, 0), "last": (1, 0), "all": (1, 0.5), "clues": (1, 0), "oracle": (1, 1),
    }  # fmt: skip
    assert report.found["clues"].precision == (3 / 5, 1), "cured and today are not asked for"
    assert report.found["clues"].texts[0] == ("Is it treatable?", "Can throat cancer be cured today?")
    assert (report.failed, told) == (1, [(1, 2), (2, 2)])
    assert drafter.asked[1].turns == ("user: What is throat cancer?", "user: Is it treatable?")
    assert drafter.asked[0].scenario == "conversation"
    assert "ConnectionError" in caplog.text
    figures = report.to_json()
    assert figures["searched"]["all"]["recall"] == {"%": 75.0, "interval": [75.0, 75.0]}
    assert figures["drafted"][0]["clues"] == ["Can throat cancer be cured today?"]
    assert len(conversations_table(report).rows) == 5
    assert "of 1, where the drafter failed" in str(conversations_table(report).caption)


def test_words_are_those_that_say_what_it_is_about() -> None:
    assert words("What's the U.S. doing about lung_cancer's cause?") == {"u", "lung", "cancer", "cause"}
    assert words("¿Dónde está? 黛玉") == {"dónde", "está", "黛玉"}
    assert words("") == frozenset()


@pytest.mark.parametrize("wrong", ["{}", "[1]", "{", '{"id": 1}'])
def test_what_is_no_task_is_refused_by_line(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(conversation())}\n\n{wrong}\n", "utf-8")
    with pytest.raises(ConfigurationError, match="line 3"):
        cast(tmp_path / "x.jsonl", 1)


def test_the_command_measures_any_chat_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, output = lines(tmp_path / "cast.jsonl", conversation()), tmp_path / "out.json"
    reply = json.dumps(
        {"spans": [], "questions": ["Can throat cancer be treated?"], "entities": [], "time": []}
    )
    with OpenAIServer(lambda body: reply if "Question" in str(body) else "About cancer.") as server:
        monkeypatch.setenv("MEMGRAPH_PLUGIN_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        command = f"evaluate clues --task cast --data {data} --mode gist --model openai:test --lines"
        done = CliRunner().invoke(app, f"{command} --systems raw,clues --output {output}".split())
        assert done.exit_code == 0, done.output
        assert "2 of 2 questions" in done.output
        refused = CliRunner().invoke(app, f"{command} --systems query".split())
        assert "there are raw, last, all, clues, oracle" in refused.output
    written = json.loads(output.read_text("utf-8"))
    assert written["failed"] == 0
    assert written["searched"]["clues"]["recall"]["%"] == 75.0
