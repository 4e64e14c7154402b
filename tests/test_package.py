"""What holds for the package as a whole: its size, its weight, and that generated files are current."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memgraph_plugin

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "memgraph_plugin").rglob("*.py"))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import memgraph_plugin, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "psycopg", "langchain", "langgraph", "numpy", "openai"}
    assert heavy.isdisjoint(json.loads(done.stdout))


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(memgraph_plugin, name) for name in memgraph_plugin.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        memgraph_plugin.no_such_name  # noqa: B018


def test_the_version_is_that_of_the_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == memgraph_plugin.__version__


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


def test_the_sync_store_is_generated_from_the_async_one() -> None:
    pytest.importorskip("ruff", reason="ruff formats the generated file; install the extra dev")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_sync.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
