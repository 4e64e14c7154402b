"""The deployable graph under LangGraph's own server, for real; no network, no key."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client

from memgraph_plugin.integrations.server import generate_store
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Insert

ROOT = Path(__file__).parents[1]
LANGGRAPH = Path(sys.executable).with_name("langgraph")


@pytest.fixture
def environment(dsn: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    settings = {
        "MEMGRAPH_PLUGIN_DSN": dsn,
        "MEMGRAPH_PLUGIN_EMBEDDINGS": "none",
        "LANGSMITH_TRACING": "false",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **settings}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The repository's graph and configuration, where the server may leave its files."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("langgraph.json", "graphs", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def server(project: Path, environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (project / "server.log").open("w")
    process = subprocess.Popen(
        [LANGGRAPH, "dev", "--no-browser", "--no-reload", "--port", str(port)],
        cwd=project,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        log.close()


async def is_up(url: str) -> bool:
    for _ in range(240):
        try:
            await get_client(url=url).assistants.search()
        except Exception:  # noqa: BLE001 - whatever a server says while it starts
            await asyncio.sleep(0.25)
        else:
            return True
    return False


def test_the_configuration_is_valid(environment: dict[str, str]) -> None:
    done = subprocess.run([LANGGRAPH, "validate"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 graphs" in done.stdout


def test_the_graph_is_built_without_loading_a_model() -> None:
    code = (
        "import sys, graphs.lifelong_assistant as it; it.graph.compile();"
        "print(sorted({'torch', 'transformers', 'psycopg', 'langchain'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "MEMGRAPH_PLUGIN_CHAT_MODEL": "local:nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert json.loads(done.stdout or "0") == [], done.stderr


@pytest.mark.usefixtures("environment")
async def test_the_servers_store_is_ours() -> None:
    async with generate_store() as store:
        assert isinstance(store, MemoryStore)
        await store.aapply(("memories", "ann"), [Insert(text="The user lives in Lisbon.")])
        (hit,) = await store.arecall(("memories", "ann"), "Lisbon")
        assert hit.memory.text == "The user lives in Lisbon."


async def test_both_graphs_remember_in_a_second_thread_of_the_same_user(server: str, project: Path) -> None:
    assert await is_up(server), (project / "server.log").read_text()
    client = get_client(url=server)

    async def say(text: str, user: str) -> str:
        thread = await client.threads.create()
        result = await client.runs.wait(
            thread["thread_id"],
            "assistant",
            input={"messages": [{"role": "user", "content": text}]},
            context={"user_id": user},
        )
        assert "messages" in result, (result, (project / "server.log").read_text())
        return str(result["messages"][-1]["content"])

    assert "nothing is remembered" in await say("I live in Lisbon.", "ann")
    assert "Lisbon" in await say("Where do I live?", "ann")
    assert "Lisbon" not in await say("Where do I live?", "bob")
    items = await client.store.search_items(("memories", "ann"))
    assert items["items"]

    async def ask(question: str, user: str, *documents: dict[str, str]) -> Any:
        asked = {"messages": [{"role": "user", "content": question}], "documents": list(documents)}
        return await client.runs.wait(None, "memorag", input=asked, context={"user_id": user})

    tides = {"name": "tides.txt", "text": "High water at the customs house is at noon."}
    told = await ask("When is high water?", "ann", tides)
    assert told["memorized"][0]["new"] == 1, (told, (project / "server.log").read_text())
    again = await ask("When is high water?", "ann")
    assert [cited["source"] for cited in again["citations"]] == ["tides.txt"]
    assert (await ask("When is high water?", "bob"))["citations"] == []
