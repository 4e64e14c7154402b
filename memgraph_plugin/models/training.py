"""How far a training has come, told to whoever watches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback


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
