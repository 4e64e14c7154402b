"""Files of one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memgraph_plugin.errors import ConfigurationError


def read_jsonl(path: Path, fields: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The objects of a file, each of which has these fields; empty lines are passed over.

    Raises:
        ConfigurationError: the file cannot be read, or a line is none; it says which line, and why.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no JSONL: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(f"{path} is no JSONL: line {number}: {error}") from error
        missing = [field for field in fields if not isinstance(item, dict) or field not in item]
        if missing or not isinstance(item, dict):
            lacks = ", ".join(f'"{field}"' for field in missing)
            raise ConfigurationError(
                f"{path}: line {number} is no object{f' with {lacks}' if missing else ''}"
            )
        found.append(item)
    return found
