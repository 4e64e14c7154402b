"""What each layer's attention is given while a model reads; the model is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any

import torch


@contextmanager
def recorded(decoder: Any) -> Iterator[list[torch.Tensor]]:
    """A list that gets, layer by layer, what the attention was given [T, hidden] as this thread reads."""
    hidden: list[torch.Tensor] = []
    reader = get_ident()  # others may use the same weights meanwhile

    def note(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        if get_ident() == reader:
            hidden.append((given["hidden_states"] if "hidden_states" in given else args[0])[0])

    with ExitStack() as undone:
        for layer in decoder.layers:
            undone.callback(layer.self_attn.register_forward_pre_hook(note, with_kwargs=True).remove)
        yield hidden
