"""What every training needs: to go on where it was stopped, and to tell how far it has come."""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from memgraph_plugin.errors import ConfigurationError

MARK = "training.sha256"
"""The file that says which training a folder's checkpoints are of."""


def last_checkpoint(folder: Path, training: str) -> str | None:
    """Where this training goes on: its last checkpoint in the folder, made where there is none; None anew.

    Args:
        training: what decides its outcome: the data, the recipe, what it begins with.

    Raises:
        ConfigurationError: the folder has the checkpoints of another training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine, mark = sha256(training.encode()).hexdigest(), folder / MARK
    if mark.exists() and mark.read_text("utf-8") != mine:
        raise ConfigurationError(
            f"{folder} has the checkpoints of another training: other data, another recipe or another start. "
            "Remove it to begin anew."
        )
    mark.write_text(mine, "utf-8")
    last: str | None = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
    return last


class Told(TrainerCallback):
    """Passes on updates done, all of them, and the loss that is logged."""

    def __init__(self, progress: Callable[[int, int, float], None]) -> None:
        self._progress = progress
        self._loss = math.nan

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002 - its form
        if "loss" in (logs := given.get("logs") or {}):
            self._loss = logs["loss"]
            self._tell(state)

    def _tell(self, state: Any) -> None:
        self._progress(state.global_step, state.max_steps, self._loss)


class SavedOnce(nn.Module):
    """A module whose checkpoints have each tensor once: safetensors refuses embeddings that are tied."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        seen: set[int] = set()
        state = super().state_dict(*args, **kwargs)
        return {
            name: tensor
            for name, tensor in state.items()
            if not (tensor.data_ptr() in seen or seen.add(tensor.data_ptr()))  # type: ignore[func-returns-value]
        }

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What is tied to a tensor that was loaded is not missing."""
        found = super().load_state_dict(*args, **kwargs)
        found.missing_keys[:] = [name for name in found.missing_keys if name in self.state_dict()]
        return found
