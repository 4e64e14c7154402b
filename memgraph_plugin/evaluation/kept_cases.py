"""The file in which an evaluation keeps the cases that are done, and what they were done with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import memgraph_plugin
from memgraph_plugin.errors import ConfigurationError


def code_mark() -> str:
    """Of the package's files: other code may count otherwise, or write otherwise."""
    package = Path(memgraph_plugin.__file__).parent
    files = sorted(each for each in package.rglob("*") if each.suffix in (".py", ".sql"))
    mark = hashlib.sha256(b"".join(each.read_bytes() for each in files))
    return mark.hexdigest()[:16]


def kept_rows(resume: Path, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What stands in a file below `head`, which is written if there is none. The last line may have been half
    written when the run was killed; it is cut off.

    Raises:
        ConfigurationError: it begins with another head.
    """
    first = json.dumps(head, sort_keys=True)
    text = resume.read_text("utf-8") if resume.exists() else ""
    begun, *rows = text[: text.rfind("\n") + 1].splitlines() or [""]
    if begun not in ("", first):
        raise ConfigurationError(
            f"{resume} is of other settings or of another version: remove it, or give another --output."
        )
    whole = "".join(f"{line}\n" for line in (first, *rows))
    if text != whole:
        resume.write_text(whole, "utf-8")
    return [json.loads(row) for row in rows]
