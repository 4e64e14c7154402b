"""What a selector was trained for and on: kept beside its weights, and asked before it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch

FILE = "selector.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a selector came to be.

    Args:
        kind: what it is.
        task, language: what it is for, in words of the user's ("translation", "en-de"); "" for unsaid.
        metric, tau, normalize: of its labels.
        pools: hash of what it learned from.
        base: name of the model it began as, for one that has a model.
    """

    kind: Literal["linear", "kl"]
    task: str = ""
    language: str = ""
    metric: str = "bleu"
    tau: float = 0.5
    normalize: Literal["minmax", "none"] = "minmax"
    pools: str = ""
    base: str = ""


def write_training(folder: Path, training: Training, **more: Any) -> None:
    """Keep it in the folder, made where there is none, with what else is JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**asdict(training), **more}, ensure_ascii=False, indent=2)
    partial = folder / f"{FILE}.partial"
    partial.write_text(text + "\n", "utf-8")
    partial.replace(folder / FILE)


def read_training(
    folder: Path, kind: str | None = None, *, task: str = "", language: str = ""
) -> tuple[Training, Mapping[str, Any]]:
    """What the selector of a folder was trained for, and what else was kept.

    Raises:
        ConfigurationError: there is none, or one of another kind.
        FingerprintMismatch: it was trained for another task or language; it names both.
    """
    try:
        record = json.loads((folder / FILE).read_text("utf-8"))
        names = {field.name for field in fields(Training)}
        training = Training(**{name: record.pop(name) for name in names & record.keys()})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"There is no trained selector in {folder}: {error}") from error
    if kind and training.kind != kind:
        raise ConfigurationError(f"The selector in {folder} is of kind {training.kind!r}, not {kind!r}.")
    check_use(training, task=task, language=language)
    return training, record


def check_use(training: Training, *, task: str = "", language: str = "") -> None:
    """Make sure that a selector was trained for what it is wanted for; "" for what is left open.

    Raises:
        FingerprintMismatch: it was not; it names both.
    """
    for name, wanted in (("task", task), ("language", language)):
        had = getattr(training, name)
        if wanted and had != wanted:
            raise FingerprintMismatch(
                f"This selector was trained for the {name} {had or 'unsaid'!r}, and here it is {wanted!r}: "
                "each task has its own. Train one on pools of this task."
            )
