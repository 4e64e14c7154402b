"""`memorize` and `ask`, as somebody types them."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="needs the extra documents")

from memgraph_plugin.models.pull import pulled_path
from memgraph_plugin.settings import Settings
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing.openai_server import Fault, OpenAIServer
from tests.files import HANDBOOK, write_pdf
from tests.test_cli import _wide_and_plain as _wide_and_plain
from tests.test_cli import call, hosted, process
from tests.tiny_models import tiny

SMALL = "smollm2-135m-instruct"


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "handbook.md").write_text(HANDBOOK)
    write_pdf(
        folder / "bylaws.pdf", ["The keeper is elected for nine years.", "The seal is in a tin of herring."]
    )
    return folder


@pytest.fixture
def tiny_path(tmp_path: Path) -> str:
    weights = tiny()
    weights.model.save_pretrained(tmp_path / "tiny")
    weights.tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


def test_documents_are_memorized_and_asked_about(dsn: str, papers: Path) -> None:
    done = call(dsn, "memorize", str(papers), "--user", "ana")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "bylaws.pdf: 2 passages, 2 new, 0 gone"
    assert done.stdout.splitlines()[1].startswith("handbook.md: ")
    asked = call(dsn, "ask", "Where is the seal?", "--user", "ana")
    assert asked.exit_code == 0, asked.output
    assert "No model is configured" in asked.stdout
    assert "[1] bylaws.pdf, page 2" in asked.stdout
    again = call(dsn, "memorize", str(papers), "--user", "ana")
    assert "bylaws.pdf: 2 passages, 0 new, 0 gone" in again.stdout


def test_an_answer_is_streamed_with_its_sources(dsn: str, papers: Path) -> None:
    call(dsn, "memorize", str(papers), "--user", "ana")
    with OpenAIServer(["It is in a tin of herring [1].", "I do not know."]) as server:
        env = hosted(server)
        words = ("ask", "Where is the seal?", "--user", "ana")
        shown = call(dsn, *words, **env).stdout
        silent = call(dsn, *words, **env).stdout
    assert shown.splitlines()[0] == "It is in a tin of herring [1]."
    assert "[1] bylaws.pdf, page 2\nThe seal is in a tin of herring." in shown
    assert "I do not know." in silent
    assert "The answer cites no passage. It was given: bylaws.pdf, page 2" in silent


def test_an_answer_as_json(dsn: str, papers: Path) -> None:
    call(dsn, "memorize", str(papers / "bylaws.pdf"), "--user", "ana")
    told = json.loads(call(dsn, "ask", "the seal", "--user", "ana", "--json").stdout)
    assert told["answer"].startswith("No model is configured")
    assert told["citations"][0]["source"] == "bylaws.pdf, page 2"
    assert told["citations"][0]["document"] == str(papers / "bylaws.pdf")


def test_a_model_that_fails_is_one_line(dsn: str, papers: Path) -> None:
    call(dsn, "memorize", str(papers), "--user", "ana")
    env = {"MEMGRAPH_PLUGIN_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_API_KEY": "none"}
    failed = call(dsn, "ask", "seal", "--user", "ana", "--model", "openai:test", **env)
    assert failed.exit_code == 1
    assert failed.stderr.startswith("memgraph-plugin: no answer: ")
    assert len(failed.stderr.splitlines()) == 1


def test_what_cannot_be_memorized_is_told_and_the_rest_is(dsn: str, papers: Path) -> None:
    (papers / "logo.png").write_bytes(b"\x89PNG\0\0")
    (papers / "empty.txt").touch()
    done = call(dsn, "memorize", str(papers), "--user", "ana")
    assert done.exit_code == 1
    assert "logo.png is binary" in done.stderr
    assert "empty.txt has no text: the file is empty" in done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("memorize", "/nowhere/at/all.txt"), "cannot be read: No such file"),
        (("memorize", "/nowhere", "--forget"), "nothing is memorized of"),
        (("memorize", ".", "--model", "openai:gpt"), "any chat model makes gists: --mode gist"),
        (("memorize", ".", "--mode", "gist"), "gists need a chat model"),
        (("memorize", ".", "--mode", "short"), '--mode is "compressed" or "gist"'),
        (("memorize", ".", "--model", "local:"), "names no model"),
        (("memorize", ".", "--model", "local:/nowhere"), "no language model could be loaded"),
        (("ask", "Where?"), "no documents of ana are memorized yet"),
        (("ask", "  "), "the question is empty"),
    ],
)
def test_what_cannot_work_is_one_line_that_says_why(dsn: str, words: tuple[str, ...], said: str) -> None:
    failed = call(dsn, *words, "--user", "ana", HF_HUB_OFFLINE="1")
    assert failed.exit_code == 1
    assert said in failed.stderr
    assert "Traceback" not in failed.output


def test_a_file_that_is_gone_is_told_of_and_can_be_forgotten(dsn: str, papers: Path) -> None:
    call(dsn, "memorize", str(papers), "--user", "ana")
    gone = papers / "bylaws.pdf"
    gone.unlink()
    assert f"{gone} is gone" in call(dsn, "memorize", str(papers), "--user", "ana").stderr
    assert f"{gone} is forgotten" in call(dsn, "memorize", str(gone), "--forget", "--user", "ana").stdout
    assert "herring" not in call(dsn, "ask", "Where is the seal?", "--user", "ana").stdout
    assert call(dsn, "memorize", str(papers), "--user", "ana").stderr == ""


def test_forgetting_a_user_forgets_the_documents(dsn: str, papers: Path, tiny_path: str) -> None:
    call(dsn, "memorize", str(papers), "--user", "ana", "--model", f"local:{tiny_path}", "--window", "64")
    assert call(dsn, "forget", "--user", "ana", "--yes").exit_code == 0
    with PostgresMemoryStore(dsn) as store:
        assert store.count(()) == 0
        assert store.list_kv() == []


def test_a_compressed_memory_is_kept_of_each_document(dsn: str, papers: Path, tiny_path: str) -> None:
    words = ("memorize", str(papers), "--user", "ana", "--model", f"local:{tiny_path}", "--window", "64")
    done = call(dsn, *words, "--ratio", "8")
    assert done.exit_code == 0, done.output
    assert f"{len(HANDBOOK):,} tokens in a memory of " in done.stdout
    with PostgresMemoryStore(dsn) as store:
        records = store.list_kv(("memories", "ana"))
    assert [record.header["name"] for record in records] != []
    assert {record.header["memory_model"] for record in records} == {f"local:{tiny_path}"}


def test_ctrl_c_in_the_middle_loses_nothing(dsn: str, tmp_path: Path, tiny_path: str) -> None:
    (tmp_path / "book.txt").write_text(HANDBOOK * 5)
    words = ("memorize", str(tmp_path / "book.txt"), "--user", "ana", "--model", f"local:{tiny_path}")
    words += ("--window", "32", "--ratio", "8")
    with PostgresMemoryStore(dsn) as store:

        def windows() -> int:
            return sum(record.header["windows"] for record in store.list_kv(("memories", "ana")))

        with process(dsn, *words) as first:
            while windows() < 2:
                assert first.poll() is None, first.communicate()
                time.sleep(0.05)
            first.send_signal(signal.SIGINT)
            _, said = first.communicate(timeout=60)
        assert first.returncode == 130, said
        assert said.splitlines()[-1] == "Stopped. The same command goes on from here."
        there = windows()
        assert 2 <= there < len(HANDBOOK * 5) // 32
        done = call(dsn, *words)
        assert done.exit_code == 0, done.output
        assert windows() == len(HANDBOOK * 5) // 32


def gist_or_clues(body: dict[str, Any]) -> str:
    """What a hosted model says to each of its three tasks, by the words of the request."""
    asked = json.dumps(body)
    if "response_format" in body or body.get("tools"):
        return json.dumps({"spans": ["The seal is in a tin of herring."], "questions": [], "entities": []})
    return "It is in a tin of herring [1]." if "<passage number" in asked else "About seals and tins."


def test_gists_of_a_hosted_model_are_what_clues_are_drafted_from(dsn: str, papers: Path) -> None:
    with OpenAIServer(gist_or_clues) as server:
        env = hosted(server)
        words = ("memorize", str(papers), "--user", "ana", "--mode", "gist", "--model", "openai:gist-maker")
        done = call(dsn, *words, **env)
        assert done.exit_code == 0, done.output
        assert [line.rpartition("; ")[2] for line in done.stdout.splitlines()] == ["1 gists", "1 gists"]
        asked = len(server.requests)
        assert call(dsn, *words, **env).exit_code == 0
        assert len(server.requests) == asked == 2, "what was made is not asked for again"
        for more, drafter in (((), "gist-maker"), (("--clues", "openai:other"), "other")):
            asked = len(server.requests)
            shown = call(dsn, "ask", "What happened to that thing? The seal?", "--user", "ana", *more, **env)
            assert shown.stdout.startswith("It is in a tin of herring [1]."), shown.output
            first, last = server.requests[asked].body, server.requests[-1].body
            assert (first["model"], last["model"]) == (drafter, "gpt-test")
            assert "About seals and tins." in json.dumps(first)
        asked = len(server.requests)
        call(dsn, "ask", "What happened to that thing? The seal?", "--user", "ana", "--clues", "none", **env)
        assert [request.body["model"] for request in server.requests[asked:]] == ["gpt-test"]
    with PostgresMemoryStore(dsn) as store:
        assert {record.header["memory_model"] for record in store.list_kv()} == {"openai:gist-maker"}


def test_gists_are_gone_on_with_after_ctrl_c_and_after_a_failure(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("".join(f"Chapter {n}. " + "Rain. " * 90 for n in range(12)))
    words = ("memorize", str(tmp_path / "book.txt"), "--user", "ana", "--mode", "gist")
    words += ("--model", "openai:gpt-test", "--window", "128")
    hold = threading.Event()

    def slowly(_: dict[str, Any]) -> str:
        if len(server.requests) > 8:
            hold.wait(20)
        return "About rain."

    with OpenAIServer(slowly) as server, PostgresMemoryStore(dsn) as store:
        with process(dsn, *words, **hosted(server)) as first:
            while sum(record.windows for record in store.list_kv()) < 8:
                assert first.poll() is None, first.communicate()
                time.sleep(0.05)
            first.send_signal(signal.SIGINT)
            hold.set()
            _, said = first.communicate(timeout=60)
        assert first.returncode == 130, said
        assert said.splitlines()[-1] == "Stopped. The same command goes on from here."
        server.faults = [Fault(status=400)]
        failed = call(dsn, *words, **hosted(server))
        assert failed.exit_code == 1
        assert "out of order; the same command goes on from here" in failed.stderr
        asked = len(server.requests)
        done = call(dsn, *words, **hosted(server))
        (record,) = store.list_kv()
        assert done.stdout.endswith(f"; {record.windows} gists\n")
        assert record.windows == len(record.header["digests"]) > 8
        assert len(server.requests) - asked <= record.windows - 8


@pytest.mark.local_model
@pytest.mark.skipif(not pulled_path(SMALL, Settings().cache_dir), reason="the model was not pulled")
def test_a_real_model_memorizes_and_answers(dsn: str, papers: Path) -> None:
    env = {"MEMGRAPH_PLUGIN_CACHE_DIR": str(Settings().cache_dir), "HOME": os.environ.get("HOME", "")}
    words = (
        "memorize",
        str(papers / "handbook.md"),
        "--user",
        "ana",
        "--model",
        f"local:{SMALL}",
        "--window",
        "64",
    )
    assert call(dsn, *words, **env).exit_code == 0
    asked = call(
        dsn, "ask", "How long is the notice period?", "--user", "ana", "--model", f"local:{SMALL}", **env
    )
    assert asked.exit_code == 0, asked.output
    assert re.search("(six|6) weeks", asked.stdout)
    assert "handbook.md" in asked.stdout
