"""The weights of a local language model: loaded once a process, on the best device that there is."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import llguidance.hf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from memgraph_plugin.errors import ConfigurationError

_loaded: dict[str, Weights] = {}
_lock = threading.Lock()

SAMPLED = 64
"""Numbers of each tensor that go into the hash of a model's weights."""


@dataclass(frozen=True)
class Weights:
    """A causal language model of transformers and its tokenizer; shared, so neither may be changed."""

    name: str
    model: Any
    tokenizer: Any

    @property
    def max_tokens(self) -> int:
        """Tokens of prompt and reply together that the model reads."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The ids that end a reply."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(int(i) for i in [*ids, self.tokenizer.eos_token_id] if i is not None)

    @cached_property
    def grammar_tokenizer(self) -> Any:
        """llguidance's view of the tokenizer; about a second to make."""
        width = self.model.get_output_embeddings().weight.shape[0]
        return llguidance.hf.from_tokenizer(self.tokenizer, n_vocab=width, eos_token=sorted(self.end_tokens))


def load_weights(path: str) -> Weights:
    """The model in a directory, or of a name on the Hugging Face hub; the same object for the same path.

    On CUDA where there is one. In bfloat16 where the processor computes in it, else in float32.

    Raises:
        ConfigurationError: there is no such model, or transformers cannot load it.
    """
    with _lock:
        if path not in _loaded:
            _loaded[path] = _load(path)
        return _loaded[path]


def weights_hash(module: Any, *, without: str = "") -> str:
    """A hash of the names, shapes and first numbers of every tensor; `without` those that have this in their
    name."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if without and without in name:
            continue
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        some = tensor.detach().flatten()[:SAMPLED].to("cpu", torch.float32)
        found.update(some.numpy().tobytes())
    return found.hexdigest()


def _load(path: str) -> Weights:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(path)
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=_dtype(device))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"no language model could be loaded from {path!r}: {reason}") from error
    return Weights(Path(path).name, model.to(device).eval(), tokenizer)  # type: ignore[arg-type]


def _dtype(device: str) -> torch.dtype:
    if fast_bf16(device):
        return torch.bfloat16
    return torch.float16 if device == "cuda" else torch.float32


def fast_bf16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself; a processor that does not is six times slower in it."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    native: Callable[[], bool] = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return native()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars and warnings that transformers writes to stderr while it loads."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
