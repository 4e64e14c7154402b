import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from memgraph_plugin import __version__
from memgraph_plugin.cli import app
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.openai_server import OpenAIServer

TURNS = [
    {
        "id": "t1",
        "speaker": "Ana",
        "text": "I live in Faro, near the lagoon.",
        "at": "2026-05-08T10:00:00+00:00",
    },
    {"id": "t2", "speaker": "Rui", "text": "I play the accordion."},
]


def environment(dsn: str, **more: str) -> dict[str, str]:
    return {"MEMGRAPH_PLUGIN_DSN": dsn, "MEMGRAPH_PLUGIN_EMBEDDINGS": "none", **more}


def call(dsn: str, *words: str, stdin: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(app, words, input=stdin, env=environment(dsn, **env))


def conversation(folder: Path) -> str:
    path = folder / "talk.jsonl"
    path.write_text("\n".join(map(json.dumps, TURNS)))
    return str(path)


def process(dsn: str, *words: str, **env: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "memgraph_plugin.cli", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, **environment(dsn, **env)}, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def test_the_help_of_every_command_teaches_by_an_example() -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["--help"]).stdout.partition("Commands:")[2]
    names = re.findall(r"^\s{2}(\w+)\s", listed, re.MULTILINE)
    assert {"demo", "chat", "ingest", "search", "history", "migrate", "doctor"} <= set(names)
    groups = {
        "models": ["list", "pull"],
        "db": ["status", "stop"],
        "evaluate": ["locomo", "compression", "clues", "selfmem", "memory-writing"],
        "train": ["memorag", "selfmem-generator", "selfmem-selector", "memalpha"],
        "quarantine": ["list", "release", "discard"],
        "worker": ["failed", "replay"],
    }
    for words in [[name] for name in names if name not in groups] + [
        [g, c] for g in groups for c in groups[g]
    ]:
        assert "Example: " in runner.invoke(app, [*words, "--help"]).stdout, words


def test_the_help_loads_neither_torch_nor_psycopg_nor_langchain() -> None:
    code = (
        "import sys, memgraph_plugin.cli\n"
        "sys.exit(bool({'torch', 'psycopg', 'langchain_core', 'langgraph'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_says_its_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"memgraph-plugin {__version__}\n"


def test_an_error_is_one_line_without_a_password_and_a_traceback_only_with_debug() -> None:
    dsn = "postgresql://ana:s3cret@127.0.0.1:1/none"
    result = call(dsn, "migrate")
    assert result.exit_code == 1
    assert result.stderr.startswith("memgraph-plugin: Postgres: ")
    assert "s3cret" not in result.output
    assert "Traceback" not in result.output
    assert "DatabaseUnavailable" in repr(call(dsn, "--debug", "migrate").exception)


def test_a_setting_that_cannot_work_is_named(dsn: str) -> None:
    result = call(dsn, "search", "--user", "ana", "x", MEMGRAPH_PLUGIN_K="many")
    assert result.exit_code == 1
    assert "MEMGRAPH_PLUGIN_K: " in result.stderr


def test_a_user_that_cannot_be_a_namespace_is_refused_with_advice(dsn: str, tmp_path: Path) -> None:
    for words in (["search", "x"], ["history", "x"], ["ingest", conversation(tmp_path)], ["chat"]):
        result = call(dsn, *words, "--user", " ")
        assert result.exit_code == 1, words
        assert "user id" in result.stderr


def test_a_conversation_is_ingested_once_and_found(dsn: str, tmp_path: Path) -> None:
    path = conversation(tmp_path)
    assert "ana: 2 turns, 2 of them new" in call(dsn, "ingest", path, "--user", "ana").stdout
    assert "ana: 2 turns, 0 of them new" in call(dsn, "ingest", path, "--user", "ana").stdout
    shown = call(dsn, "search", "--user", "ana", "who plays the accordion?", "-k", "1").stdout
    assert "Rui: I play the accordion." in shown
    assert "Faro" not in shown
    found = json.loads(call(dsn, "search", "--user", "ana", "lagoon", "--json", "-k", "1").stdout)
    assert found[0]["memory"]["key"] == "t1"
    assert call(dsn, "search", "--user", "bob", "lagoon").stdout == "Nothing is remembered of bob.\n"


def test_each_of_several_conversations_gets_a_user_of_its_own(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_text(json.dumps([locomo_sample("conv-1", "Faro"), locomo_sample("conv-2", "Bergen")]))
    assert call(dsn, "ingest", str(path), "--user", "x").exit_code == 0
    assert "Bergen" in call(dsn, "search", "--user", "x-conv-2", "").stdout
    assert "Bergen" not in call(dsn, "search", "--user", "x-conv-1", "").stdout


def test_an_unreadable_file_is_refused_by_line(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "fine"}\nnot json\n')
    result = call(dsn, "ingest", str(path), "--user", "ana")
    assert result.exit_code == 1
    assert "line 2" in result.stderr


def test_search_by_kind(dsn: str, tmp_path: Path) -> None:
    call(dsn, "ingest", conversation(tmp_path), "--user", "ana")
    only = ("search", "--user", "ana", "lagoon", "--kind")
    assert "Faro" in call(dsn, *only, "semantic", "--kind", "turn").stdout
    assert "Nothing" in call(dsn, *only, "semantic").stdout
    assert "there are: core, semantic" in call(dsn, *only, "fact").stderr


def test_what_is_stored_cannot_command_the_terminal(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"text": "[bold]hi[/bold] \x1b[31mred \x1b]0;title\x07"}))
    call(dsn, "ingest", str(path), "--user", "ana")
    shown = call(dsn, "search", "--user", "ana", "hi").stdout
    assert "\x1b" not in shown
    assert "[bold]hi[/bold]" in shown


def test_the_history_of_a_memory_and_of_none(dsn: str, tmp_path: Path) -> None:
    call(dsn, "ingest", conversation(tmp_path), "--user", "ana")
    assert "insert" in call(dsn, "history", "--user", "ana", "t2").stdout
    missing = call(dsn, "history", "--user", "ana", "t9")
    assert missing.exit_code == 1
    assert "'t9'" in missing.stderr


def test_migrate_makes_the_tables_once(empty_dsn: str) -> None:
    assert "took 1" in call(empty_dsn, "migrate").stdout
    assert "nothing to do" in call(empty_dsn, "migrate").stdout


def test_migrate_says_beforehand_what_it_would_do(empty_dsn: str) -> None:
    assert "would take 1" in call(empty_dsn, "migrate", "--dry-run", "--partitions", "2").stdout
    assert "PARTITION OF memory" in call(empty_dsn, "migrate", "--sql", "--partitions", "2").stdout
    assert "took 1" in call(empty_dsn, "migrate", "--partitions", "2", "--vector-type", "vector").stdout
    assert "nothing to do" in call(empty_dsn, "migrate", "--dry-run").stdout
    refused = call(empty_dsn, "migrate", "--partitions", "4")
    assert refused.exit_code == 1
    assert "2 partitions, vectors as vector, which stays" in refused.stderr


def test_migrate_gives_memories_vectors_of_the_configured_model(dsn: str) -> None:
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        store.put(("memories", "ana"), "k", {"text": "likes tea"})
    model = {"MEMGRAPH_PLUGIN_EMBEDDINGS": "local:minilm"}
    planned = call(dsn, "migrate", "--reembed", "--dry-run", **model).stdout
    assert "of hashing:256 (256 dimensions) until now; would make 1, of local:minilm" in planned
    done = call(dsn, "migrate", "--reembed", **model).stdout
    assert "of local:minilm (384 dimensions), before of hashing:256; 1 made now" in done
    assert "likes tea" in call(dsn, "search", "--user", "ana", "tea", **model).stdout
    refused = call(dsn, "migrate", "--reembed", MEMGRAPH_PLUGIN_EMBEDDINGS="none")
    assert "rank by words alone" in refused.stderr


def test_the_private_postgres_is_looked_at_started_and_stopped(tmp_path: Path) -> None:
    env: dict[str, str | None] = {
        "MEMGRAPH_PLUGIN_DSN": None,
        "MEMGRAPH_PLUGIN_DATA_DIR": str(tmp_path / "data"),
    }

    def say(*words: str) -> str:
        return CliRunner().invoke(app, words, env=env).stdout

    assert "There is none yet" in say("db", "status")
    try:
        assert "took 1" in say("migrate")
        assert " runs (process " in say("db", "status")
        assert say("db", "stop") == "Stopped.\n"
    finally:
        assert say("db", "stop") == "It did not run.\n"
    assert " does not run" in say("db", "status")


def test_models_are_listed_with_size_and_licence(tmp_path: Path) -> None:
    env = {"MEMGRAPH_PLUGIN_CACHE_DIR": str(tmp_path)}
    shown = CliRunner().invoke(app, ["models", "list"], env=env).stdout
    assert "qwen2.5-coder-0.5b-instruct" in shown
    assert "491 MB" in shown
    assert "Apache-2.0" in shown
    unknown = CliRunner().invoke(app, ["models", "pull", "gpt-17"], env=env)
    assert unknown.exit_code == 1
    assert "there are: qwen2.5" in unknown.stderr


def test_locomo_is_evaluated_written_and_cleaned_up(dsn: str, tmp_path: Path) -> None:
    data, output = tmp_path / "locomo.json", tmp_path / "figures.json"
    data.write_text(json.dumps([locomo_sample("conv-1", "Faro")]))
    result = call(dsn, "evaluate", "locomo", "--data", str(data), "--output", str(output))
    assert result.exit_code == 0, result.output
    figures = json.loads(output.read_text())
    assert figures["recall"]["1"] == 100
    assert figures["settings"]["embeddings"] == "none"
    with psycopg.connect(dsn) as conn:
        schemas = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'memgraph%'").fetchall()
    assert schemas == [("memgraph_plugin",)]


def test_chat_remembers_across_runs(dsn: str) -> None:
    told = call(dsn, "chat", "--user", "ana", stdin="My name is Ana and I live in Faro.\n")
    assert told.exit_code == 0
    assert "+ The user lives in Faro." in told.stdout
    asked = call(dsn, "chat", "--user", "ana", stdin="Where do I live?\n/memories\n/quit\nnot read\n")
    assert "“The user lives in Faro.”" in asked.stdout
    assert "not read" not in asked.stdout


def test_chat_forgets_on_request_and_shows_history(dsn: str) -> None:
    lines = "I am allergic to peanuts.\n/forget that I am allergic to peanuts\n/memories\n/history nothing\n"
    shown = call(dsn, "chat", "--user", "ana", stdin=lines).stdout
    assert "- one memory is forgotten\n" in shown
    assert "> /memories\nNothing yet." in shown
    assert "There never was a memory 'nothing'" in shown
    assert "peanuts" not in call(dsn, "search", "--user", "ana", "").stdout


def test_chat_streams_from_a_hosted_model_which_is_given_what_is_remembered(dsn: str) -> None:
    with OpenAIServer(["Noted, Faro it is.", "You live in Faro."]) as server:
        env = hosted(server)
        call(dsn, "chat", "--user", "ana", stdin="I live in Faro.\n", **env)
        shown = call(dsn, "chat", "--user", "ana", stdin="Where do I live?\n", **env).stdout
        assert "You live in Faro." in shown
        assert "The user lives in Faro." in json.dumps(server.requests[-1].body)


def test_what_was_said_is_kept_where_the_model_fails(dsn: str) -> None:
    with OpenAIServer([]) as server:
        shown = call(dsn, "chat", "--user", "ana", stdin="I live in Faro.\nI have a cat.\n", **hosted(server))
    assert shown.exit_code == 0
    assert "(no answer: " in shown.stdout
    assert "+ The user lives in Faro." in shown.stdout
    assert "I have a cat." in call(dsn, "search", "--user", "ana", "").stdout


def test_ctrl_c_in_an_answer_leaves_cleanly_and_keeps_what_was_said(dsn: str) -> None:
    with OpenAIServer(lambda _: "word\n" * 20_000) as server:
        chat = process(dsn, "chat", "--user", "ana", **hosted(server))
        assert chat.stdin
        assert chat.stdout
        chat.stdin.write("I live in Faro.\n")
        chat.stdin.flush()
        while "word" not in chat.stdout.readline():
            pass
        chat.send_signal(signal.SIGINT)
        out, err = chat.communicate(timeout=60)
    assert chat.returncode == 0, err
    assert "+ The user lives in Faro." in out
    assert err == ""


def test_ctrl_c_at_the_prompt_leaves(dsn: str) -> None:
    chat = process(dsn, "chat", "--user", "ana")
    assert chat.stdout
    assert "/quit" in chat.stdout.readline()
    chat.send_signal(signal.SIGINT)
    _, err = chat.communicate(timeout=60)
    assert (chat.returncode, err) == (0, "")


def hosted(server: OpenAIServer) -> dict[str, str]:
    return {
        "MEMGRAPH_PLUGIN_CHAT_MODEL": "openai:gpt-test",
        "MEMGRAPH_PLUGIN_BASE_URL": server.base_url,
        "OPENAI_API_KEY": "none",
    }


def locomo_sample(name: str, town: str) -> dict[str, object]:
    turns = [
        {"speaker": "Ana", "dia_id": "D1:1", "text": f"I live in {town}."},
        {"speaker": "Rui", "dia_id": "D1:2", "text": "I play the accordion."},
    ]
    return {
        "sample_id": name,
        "conversation": {"session_1_date_time": "1:56 pm on 8 May, 2023", "session_1": turns},
        "qa": [
            {"question": "Who plays the accordion?", "evidence": ["D1:2"], "category": 4, "answer": "Rui"}
        ],
    }


@pytest.fixture(autouse=True)
def _wide_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
