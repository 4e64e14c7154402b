"""A memory as bytes, window by window: safetensors, never pickle. A window that was saved never changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from memgraph_plugin.errors import FingerprintMismatch
from memgraph_plugin.memorag.fingerprint import check
from memgraph_plugin.memorag.kv_memory import KVMemory
from memgraph_plugin.memorag.spec import MemorySpec

FORMAT = "memgraph-kv/1"


def header(memory: KVMemory) -> dict[str, Any]:
    """What is known of a memory beside its tensors, as JSON."""
    return {
        "format": FORMAT,
        "fingerprint": dict(memory.fingerprint),
        "spec": asdict(memory.spec),
        "windows": memory.windows,
        "entries": memory.entries,
        "seen": memory.seen,
        "tail": memory.tail,
        "digest": memory.digest,
    }


def windows(memory: KVMemory, *, after: int = 0) -> Iterator[bytes]:
    """The bytes of each window from the one numbered `after` on, in order."""
    for number in range(after, memory.windows):
        begin, end = memory.spec.entries(number), memory.spec.entries(number + 1)
        tensors = {
            f"layers.{layer}.{name}": states[0, :, begin:end].contiguous()
            for layer, pair in enumerate(memory.layers)
            for name, states in zip("kv", pair, strict=True)
        }
        yield save(tensors, {FORMAT: str(number)})  # one name alone: safetensors orders several by chance


def opened(
    about: Mapping[str, Any], parts: Iterable[bytes], expected: Mapping[str, str], device: Any = "cpu"
) -> KVMemory:
    """The memory of a `header` and its `windows`, bit for bit.

    Raises:
        FingerprintMismatch: it is of another model, tokenizer or settings, or its bytes are not whole.
    """
    if about.get("format") != FORMAT:
        raise FingerprintMismatch(f"This is no memory of the form {FORMAT}: {about.get('format')!r}.")
    check(about["fingerprint"], expected)
    memory = KVMemory(
        MemorySpec(**about["spec"]),
        dict(about["fingerprint"]),
        tail=list(about["tail"]),
        windows=about["windows"],
        digest=about["digest"],
    )
    try:
        found = [load(part) for part in parts]
        if len(found) != memory.windows:
            raise FingerprintMismatch(
                f"A memory of {memory.windows} windows has {len(found)}: it is not whole."
            )
        if found:
            memory.layers = [
                (_joined(found, f"layers.{layer}.k", device), _joined(found, f"layers.{layer}.v", device))
                for layer in range(len(found[0]) // 2)
            ]
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise FingerprintMismatch(f"A memory's bytes are not whole: {error}") from error
    if memory.entries != about["entries"]:
        raise FingerprintMismatch(f"A memory of {about['entries']} entries has {memory.entries}.")
    return memory


def _joined(found: list[dict[str, torch.Tensor]], name: str, device: Any) -> torch.Tensor:
    return torch.cat([window[name] for window in found], dim=1)[None].to(device)
