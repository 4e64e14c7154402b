"""README and guide do not lie: their code runs, their commands parse, the files they name are there."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.settings import Settings
from memgraph_plugin.testing import OpenAIServer
from tests.test_examples import ROOT, environment, run_python

README = "\n".join((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/store.md"))
BLOCKS = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
TREES = [
    text
    for language, text in BLOCKS
    if language in ("", "text") and re.search(r"^\W*memgraph_plugin/", text, re.MULTILINE)
]
OUR_COMMAND = "memgraph-plugin"


def command_lines() -> Iterator[str]:
    """Every line of shell; where a block shows prompts, its other lines are output."""
    for language, text in BLOCKS:
        if language in ("bash", "console"):
            lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
            prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            yield from prompted or lines


def simple_commands(line: str) -> Iterator[list[str]]:
    """A line's commands, apart from pipes, `&&` and variables set for them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if re.fullmatch(r"[();<>|&]+", token):
            if words:
                yield words
            words = []
        elif words or not re.match(r"[A-Za-z_]\w*=", token):
            words.append(token)


COMMANDS = [words for line in command_lines() for words in simple_commands(line)]
OURS = [words[1:] for words in COMMANDS if Path(words[0]).name == OUR_COMMAND]


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: f"python-{PYTHON.index(code) + 1}")
def test_the_code_runs(code: str, dsn: str, tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text(code, "utf-8")
    with OpenAIServer(lambda _: "I will remember that.") as server:
        run_python(script, environment(dsn, server, tmp_path))


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_the_commands_parse(words: list[str]) -> None:
    command, path = get_command(app), []
    while words and words[0] in (known := getattr(command, "commands", {})):
        path.append(words[0])
        command, words = known[words[0]], words[1:]
    assert CliRunner().invoke(app, [*path, "--help"]).exit_code == 0
    if "--help" in words:
        return
    context = command.context_class(command, info_name=OUR_COMMAND)
    given, left, _ = command.make_parser(context).parse_args(words)  # an unknown option is raised
    assert not left
    assert not hasattr(command, "commands") or given, "a group of commands is not a command"
    assert [param.name for param in command.params if param.required and given.get(param.name) is None] == []


def named_in(tree: str) -> Iterator[Path]:
    """Every path of an indented tree: names, parted by one space, then a description after two."""
    above: list[tuple[int, Path]] = []
    for line in tree.splitlines():
        bare = re.sub(r"[│├└─]", " ", line)
        indent = len(bare) - len(bare.lstrip())
        above = [(depth, folder) for depth, folder in above if depth < indent]
        for name in re.split(r"\s{2,}|\s+#", bare.strip())[0].split():
            path = (above[-1][1] if above else ROOT) / name
            yield path
        if bare.strip():
            above.append((indent, path))


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"tree-{TREES.index(tree) + 1}")
def test_the_files_of_the_tree_are_there(tree: str) -> None:
    assert [path for path in named_in(tree) if not path.exists()] == []


def test_the_scripts_and_files_named_elsewhere_are_there() -> None:
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    scripts = [word for words in COMMANDS for word in words if word.endswith((".py", ".txt"))]
    assert [
        name
        for name in (*linked, *scripts)
        if not any((folder / name).exists() for folder in (ROOT, ROOT / "docs"))
    ] == []


def test_the_variables_named_are_settings() -> None:
    prefix = Settings.model_config["env_prefix"]
    known = {prefix + name.upper() for name in Settings.model_fields} | {f"{prefix}TEST_DSN"}
    assert set(re.findall(rf"\b{prefix}[A-Z_]*[A-Z]", README)) <= known


def test_the_checks_begin_with_the_first_commands_of_the_readme() -> None:
    reads = next(line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "README.md" in line)
    taken = subprocess.run(
        ["bash", "-euc", f'{reads}\nfor command in "${{commands[@]}}"; do echo "$command"; done'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    first = next((text for language, text in BLOCKS if language == "bash"), "")
    assert taken == first.splitlines()[:2]
