"""Whose memory it is: the model, tokenizer and settings without which its keys and values mean nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from memgraph_plugin.errors import FingerprintMismatch
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.models.weights import Weights, weights_hash

VOLATILE = ("_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
"""Fields of a configuration that change nothing of what is computed."""


def fingerprint(weights: Weights, spec: MemorySpec, adapter: str = "") -> dict[str, str]:
    """Names and hashes by which a memory is known. `adapter`: the hash of the memory tokens' projections."""
    config = {k: v for k, v in weights.model.config.to_dict().items() if k not in VOLATILE}
    tokenizer = weights.tokenizer
    return {
        "model": weights.name,
        "config": _sha(json.dumps(config, sort_keys=True, default=str)),
        "weights": weights_hash(weights.model),
        "tokenizer": _sha(tokenizer.backend_tokenizer.to_str() if tokenizer is not None else ""),
        "chat_template": _sha(str(getattr(tokenizer, "chat_template", "") or "")),
        "dtype": str(weights.model.dtype).removeprefix("torch."),
        "adapter": adapter,
        **{name: str(value) for name, value in asdict(spec).items()},
    }


def check(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Make sure that a stored memory is one of this model and these settings.

    Raises:
        FingerprintMismatch: it names the first thing that differs, and both.
    """
    for name, wanted in expected.items():
        if (had := found.get(name, "")) != wanted:
            raise FingerprintMismatch(
                f"This memory was made with another {name}: {had[:24] or 'none'!r}, and here it is "
                f"{wanted[:24] or 'none'!r}. Memorize the text anew, or open it with what it was made with."
            )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
