"""Examples from files, and their division into what is learned from and what is not. Pure but for `read`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.types import Example


@dataclass(frozen=True, slots=True)
class Splits:
    """Examples to train on, to choose settings by, and to report."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]


def read(path: Path, source: str = "source", target: str = "target") -> list[Example]:
    """The pairs of a JSONL file, by the names of their fields; the key is its "id", else the line's number.

    The spaces around a text are left off; what is empty without them, too.

    Raises:
        ConfigurationError: a line is no JSON object with both fields as text.
    """
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            pair = record[source].strip(), record[target].strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{path}, line {number}: not a JSON object with {source!r} and {target!r} as text ({error!r})"
            ) from error
        if all(pair):
            found.append(Example(source=pair[0], target=pair[1], key=str(record.get("id", number))))
    return found


def same(source: str) -> str:
    """What equal sources have in common: everything but space and case."""
    return " ".join(source.split()).casefold()


def split(examples: Sequence[Example], *, dev: int, test: int, seed: int = 1) -> Splits:
    """Draw `dev` and `test` examples at random; the rest is to train on.

    Of examples with an equal source (`same`) the first stays: none stands in two parts.

    Raises:
        ConfigurationError: there are too few.
    """
    once: dict[str, Example] = {}
    for each in examples:
        once.setdefault(same(each.source), each)
    left = list(once.values())
    if len(left) <= dev + test or min(dev, test) < 0:
        raise ConfigurationError(
            f"{len(left)} different sources cannot give {dev} for dev and {test} for test"
        )
    random.Random(seed).shuffle(left)  # noqa: S311 - a division, the same every time
    return Splits(tuple(left[dev + test :]), tuple(left[:dev]), tuple(left[dev : dev + test]))
