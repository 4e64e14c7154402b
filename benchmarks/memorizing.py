"""What it costs to memorize a long text, beside reading it whole: time, and keys and values at their most.

    python -m benchmarks.memorizing --data book.txt --lengths 4096 16384 32768
    python -m benchmarks.memorizing --random 7b --lengths 32768 131072 262144 --window 4096   # needs a GPU

`plain` reads the text in one forward pass of the stock model (without its head), as a prompt is read.
`--random` builds a model of a known shape with random weights: what it computes is worthless, what it costs
is not. A model reads a `plain` text past its positions all the same; only the cost of that means something.

Beside each figure stands what the design foretells: m + l entries at most while a window is read (m + 2 l
+ 64 where the scorer reads it twice), l / ratio for each window in the end, and attention over
n * l + n^2 / (2 ratio) pairs where the whole reads n^2 / 2.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from benchmarks.measure import WIDTH, machine, report, table
from memgraph_plugin.memorag.compressor import Compressor
from memgraph_plugin.memorag.kv_memory import KVMemory
from memgraph_plugin.memorag.spec import MemorySpec, kv_bytes
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.models.weights import Weights

SHAPES: dict[str, dict[str, int]] = {
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
    },
}
"""Of Qwen2's make; "7b" is that of Qwen2-7B."""


def main() -> None:
    asked = _arguments()
    weights = _random(asked.random) if asked.random else _local(asked.model)
    ids = _ids(weights, asked.data, max(asked.lengths))
    spec = MemorySpec(window=asked.window, ratio=asked.ratio, scorer=asked.scorer)
    measured: list[dict[str, Any]] = []
    for length in asked.lengths:
        ways: dict[str, Callable[[], int]] = {"memorize": lambda n=length: _memorize(weights, spec, ids[:n])}
        if length <= asked.plain:
            ways["plain"] = lambda n=length: _plain(weights, ids[:n])
        for way, run in ways.items():
            found = _measured(weights, run, asked.rounds)
            measured.append({"way": way, "tokens": length, **found, **_foretold(weights, spec, way, length)})
    result = {
        "machine": {**machine(("torch", "transformers")), "device": _device()},
        "server": "none",
        "data": f"{asked.data or 'random ids'}; {weights.name}, {weights.model.dtype}, {spec}",
        "measured": measured,
    }
    report(Console(width=WIDTH), result, [_table(measured)], asked.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="local:smollm2-135m-instruct")
    parser.add_argument("--random", choices=SHAPES, help="instead of a model's weights")
    parser.add_argument("--data", type=Path, help="a text, UTF-8; without it, ids are drawn")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4_096, 16_384, 32_768])
    parser.add_argument("--plain", type=int, default=1 << 30, help="the longest text that is read whole, too")
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--ratio", type=int, default=8)
    parser.add_argument("--scorer", default="expected_attention")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def _local(name: str) -> Weights:
    model: Any = load_chat_model(name)
    weights: Weights = model.weights()
    return weights


def _random(shape: str) -> Weights:
    config = AutoConfig.for_model("qwen2", **SHAPES[shape], max_position_embeddings=1 << 20)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return Weights(f"random {shape}", model.eval(), None)


def _ids(weights: Weights, data: Path | None, length: int) -> list[int]:
    if data is None:
        torch.manual_seed(0)
        drawn: list[int] = torch.randint(weights.model.config.vocab_size, (length,)).tolist()
        return drawn
    ids: list[int] = weights.tokenizer(data.read_text("utf-8"), verbose=False).input_ids
    if len(ids) < length:
        raise SystemExit(f"{data} has {len(ids):,} tokens; {length:,} are needed")
    return ids[:length]


def _memorize(weights: Weights, spec: MemorySpec, ids: Sequence[int]) -> int:
    """Memorize; the bytes of keys and values that stay."""
    memory = KVMemory(spec, {})
    Compressor(weights, spec).append(memory, ids)
    return memory.bytes


@torch.inference_mode()
def _plain(weights: Weights, ids: Sequence[int]) -> int:
    cache = DynamicCache()
    read = torch.tensor([ids], device=weights.model.device)
    weights.model.base_model(input_ids=read, past_key_values=cache, use_cache=True)
    return sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))


def _measured(weights: Weights, run: Callable[[], int], rounds: int) -> dict[str, Any]:
    seconds, kept, most, held = [], 0, 0, 0.0
    for _ in range(rounds):
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        with _watched(weights) as entries:
            began = time.perf_counter()
            try:
                kept = run()
            except torch.cuda.OutOfMemoryError:
                return {"seconds": None, "note": "out of memory"}
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                held = torch.cuda.max_memory_allocated() - before
            seconds.append(time.perf_counter() - began)
        most = max(entries)
    return {"seconds": statistics.median(seconds), "most_entries": most, "bytes": kept, "device_bytes": held}


@contextmanager
def _watched(weights: Weights) -> Iterator[list[int]]:
    """Entries in the first layer's cache after each time that it attends."""
    seen = [0]

    def look(_module: Any, _args: Any, given: dict[str, Any], _output: Any) -> None:
        seen.append(given["past_key_values"].layers[0].keys.shape[-2])

    handle = weights.model.base_model.layers[0].self_attn.register_forward_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _foretold(weights: Weights, spec: MemorySpec, way: str, length: int) -> dict[str, float]:
    """Most entries, bytes in the end, and millions of pairs that attention goes over."""
    config = weights.model.config
    dimension = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (config.num_hidden_layers, config.num_key_value_heads, dimension, weights.model.dtype.itemsize)
    if way == "plain":
        return {
            "foretold_entries": length,
            "foretold_bytes": kv_bytes(length, *shape),
            "pairs": length**2 / 2e6,
        }
    windows = length // spec.window
    return {
        "foretold_entries": spec.entries(windows - 1) + spec.needed,
        "foretold_bytes": kv_bytes(spec.entries(windows), *shape),
        "pairs": sum(spec.window * (spec.entries(n) + spec.window / 2) for n in range(windows)) / 1e6,
    }


def _table(measured: Sequence[dict[str, Any]]) -> Any:
    columns = [
        "",
        "tokens",
        "s",
        "tokens/s",
        "most entries",
        "foretold",
        "MB kept",
        "foretold",
        "pairs (M)",
        "device MB",
    ]
    rows = []
    for each in measured:
        if each["seconds"] is None:
            rows.append([each["way"], f"{each['tokens']:,}", each["note"], *[""] * 7])
            continue
        rows.append(
            [
                each["way"],
                f"{each['tokens']:,}",
                f"{each['seconds']:.1f}",
                f"{each['tokens'] / each['seconds']:,.0f}",
                f"{each['most_entries']:,}",
                f"{each['foretold_entries']:,}",
                f"{each['bytes'] / 1e6:.1f}",
                f"{each['foretold_bytes'] / 1e6:.1f}",
                f"{each['pairs']:,.0f}",
                f"{each['device_bytes'] / 1e6:,.0f}" if each["device_bytes"] else "",
            ]
        )
    return table("Memorizing, beside reading whole", columns, rows)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
