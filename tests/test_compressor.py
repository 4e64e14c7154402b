"""Compressing a text into a memory: arithmetic, on tiny models with random weights."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.memorag import compressor as compressing
from memgraph_plugin.memorag.compressor import Compressor
from memgraph_plugin.memorag.kv_memory import KVMemory, joined
from memgraph_plugin.memorag.reader import answers
from memgraph_plugin.memorag.rotary import moved, turned
from memgraph_plugin.memorag.saved import header, opened, windows
from memgraph_plugin.memorag.scorers import SCORERS
from memgraph_plugin.memorag.spec import MemorySpec, kv_bytes
from memgraph_plugin.models.weights import Weights
from tests.tiny_models import ARCHITECTURES, tiny

WINDOW = 32


def ids(count: int, seed: int = 5) -> list[int]:
    return random.Random(seed).choices(range(2, 258), k=count)


def spec(ratio: int = 4, **given: Any) -> MemorySpec:
    return MemorySpec(**{"window": WINDOW, "ratio": ratio, "scorer": "random", **given})


def memory_of(tokens: Sequence[int], how: MemorySpec, weights: Weights | None = None) -> KVMemory:
    compressor = Compressor(weights or tiny(), how)
    memory = compressor.new()
    compressor.append(memory, tokens)
    return memory


def same(one: KVMemory, other: KVMemory) -> bool:
    return (one.tail, one.windows, one.digest, len(one.layers)) == (
        other.tail,
        other.windows,
        other.digest,
        len(other.layers),
    ) and all(
        torch.equal(a, b)
        for x, y in zip(one.layers, other.layers, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@torch.inference_mode()
def logits_after(weights: Weights, memory: KVMemory, prompt: Sequence[int]) -> torch.Tensor:
    read = torch.tensor([[*memory.tail, *prompt]])
    found: torch.Tensor = weights.model(input_ids=read, past_key_values=memory.fork()).logits[
        0, -len(prompt) :
    ]
    return found


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.inference_mode()
def test_a_memory_of_everything_is_the_plain_forward_pass(kind: str) -> None:
    weights, text, question = tiny(kind), ids(3 * WINDOW + 7), ids(9, seed=6)
    memory = memory_of(text, spec(ratio=1), weights)
    plain = weights.model(input_ids=torch.tensor([[*text, *question]])).logits[0, -len(question) :]
    assert (logits_after(weights, memory, question) - plain).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_keeps_what_it_should_of_every_architecture(kind: str, scorer: str) -> None:
    how = spec(ratio=8, scorer=scorer)
    memory = memory_of(ids(4 * WINDOW + 3), how, tiny(kind))
    assert (memory.entries, memory.seen, len(memory.tail)) == (4 * 4 + 4, 4 * WINDOW + 3, 3)
    assert all(torch.isfinite(states).all() for layer in memory.layers for states in layer)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("count", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 5 * WINDOW])
def test_entries_and_bytes_follow_the_formula(ratio: int, count: int) -> None:
    how = spec(ratio)
    memory = memory_of(ids(count), how)
    sinks = 4 if ratio > 1 and count >= WINDOW else 0
    assert memory.entries == how.entries(count // WINDOW) == count // WINDOW * (WINDOW // ratio) + sinks
    assert memory.bytes == kv_bytes(memory.entries, layers=2, heads=2, dimension=16, itemsize=4)
    assert (len(memory.tail), memory.seen) == (count % WINDOW, count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scorer", SCORERS)
def test_text_in_pieces_makes_the_same_memory_bit_for_bit(dtype: torch.dtype, scorer: str) -> None:
    weights, text, how = tiny("qwen3", dtype=dtype), ids(6 * WINDOW + 11), spec(scorer=scorer)
    whole, compressor = memory_of(text, how, weights), Compressor(weights, how)
    for seed in range(5):
        memory, rest = compressor.new(), list(text)
        while rest:
            some = random.Random(seed + len(rest)).randint(1, 2 * WINDOW)
            compressor.append(memory, rest[:some])
            rest = rest[some:]
        assert same(memory, whole)


def test_the_cache_holds_no_more_than_memory_and_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak (m + l + l / beta) entries a layer; while something is scored or kept, and not only in the end."""
    held, kept = [], compressing.keep

    def watched(layer: Any, start: int, *rest: Any) -> None:
        held.append((layer.keys.shape[-2], start))
        kept(layer, start, *rest)

    monkeypatch.setattr(compressing, "keep", watched)
    memory = memory_of(ids(10 * WINDOW), spec(scorer="reconstruction"))
    assert {most - start for most, start in held} == {WINDOW}
    assert max(most for most, _ in held) + WINDOW // 4 == memory.entries + WINDOW


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_saved_and_opened_it_is_the_same_and_answers_the_same(kind: str) -> None:
    weights, how = tiny(kind, dtype=torch.bfloat16), spec()
    compressor = Compressor(weights, how)
    memory = memory_of(ids(5 * WINDOW + 9), how, weights)
    again = opened(header(memory), windows(memory), compressor.fingerprint)
    assert same(again, memory)
    assert torch.equal(logits_after(weights, again, [5, 6]), logits_after(weights, memory, [5, 6]))


def test_what_grew_adds_windows_and_changes_none() -> None:
    memory = memory_of(ids(3 * WINDOW + 1), spec())
    before = list(windows(memory))
    Compressor(tiny(), memory.spec).append(memory, ids(2 * WINDOW, seed=9))
    assert [*before, *windows(memory, after=3)] == list(windows(memory))


def test_a_memory_of_something_else_is_refused_by_name() -> None:
    memory = memory_of(ids(2 * WINDOW), spec())
    for name, other in {
        "model": Compressor(tiny("qwen2"), spec()),
        "ratio": Compressor(tiny(), spec(ratio=8)),
        "scorer": Compressor(tiny(), spec(scorer="norm")),
        "weights": Compressor(tiny(rms_norm_eps=1e-6, initializer_range=0.03), spec()),
    }.items():
        with pytest.raises(FingerprintMismatch, match="another (config|" + name + ")"):
            opened(header(memory), windows(memory), other.fingerprint)


def test_bytes_that_are_not_whole_are_refused() -> None:
    memory = memory_of(ids(3 * WINDOW), spec())
    about, parts = header(memory), list(windows(memory))
    for broken in (parts[:2], [*parts[:2], parts[2][:-40]], [*parts[:2], b""], [*parts, parts[2]]):
        with pytest.raises(FingerprintMismatch, match="whole"):
            opened(about, broken, memory.fingerprint)
    with pytest.raises(FingerprintMismatch, match="form"):
        opened({**about, "format": "x"}, parts, memory.fingerprint)


def test_asking_leaves_the_memory_as_it_is_also_from_two_threads() -> None:
    memory = memory_of(ids(4 * WINDOW + 5), spec())
    before = [states.clone() for layer in memory.layers for states in layer]
    said: list[list[list[int]]] = []

    def ask() -> None:
        said.append(answers(tiny(), memory, [ids(7), ids(3)], max_tokens=12))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert said[0] == said[1]
    after = [states for layer in memory.layers for states in layer]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_questions_together_are_answered_as_one_by_one(kind: str) -> None:
    weights = tiny(kind)
    memory = memory_of(ids(4 * WINDOW + 5), spec(), weights)
    questions = [ids(length, seed=length) for length in (1, 4, 17)]
    together = answers(weights, memory, questions, max_tokens=10)
    assert together == [answers(weights, memory, [one], max_tokens=10)[0] for one in questions]


def test_generating_is_the_greedy_loop() -> None:
    memory, question = memory_of(ids(4 * WINDOW), spec()), ids(5)
    expected: list[int] = []
    for _ in range(8):
        token = int(logits_after(tiny(), memory, [*question, *expected])[-1].argmax())
        if token == 1:
            break
        expected.append(token)
    assert answers(tiny(), memory, [question], max_tokens=8) == [expected]


ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 8.0, "original_max_position_embeddings": 512},
}


@pytest.mark.parametrize("kind", ROPES)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_key_that_was_moved_is_as_if_read_there(kind: str, dtype: torch.dtype, most: float) -> None:
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **ROPES[kind]}
    rotary = tiny("llama", rope_parameters=rope).model.base_model.rotary_emb
    torch.manual_seed(3)
    keys = torch.randn(2, 50, 16)
    old, new = torch.arange(100, 150), torch.arange(50)
    there = turned(keys, old, rotary)
    back = moved(there.to(dtype), (new - old).expand(2, -1), rotary.inv_freq)
    assert (back.float() - turned(keys, new, rotary)).abs().max() <= most
    far = torch.full((2, 50), 100_000)
    assert (moved(moved(keys, far, rotary.inv_freq), -far, rotary.inv_freq) - keys).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ("mistral", {"sliding_window": 64}, "sliding window"),
        ("phi3", {"head_dim": 16}, "phi3"),
        ("gemma3_text", {}, "gemma3_text"),
    ],
)
def test_a_model_whose_keys_cannot_be_moved_is_refused(kind: str, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Compressor(tiny(kind, **settings), spec())


def test_a_text_longer_than_the_memory_reaches_is_refused_and_what_was_read_stays() -> None:
    weights = tiny("llama", max_position_embeddings=160)
    compressor = Compressor(weights, spec())
    memory = compressor.new()
    with pytest.raises(ConfigurationError, match=r"160 positions.*at most"):
        compressor.append(memory, ids(100 * WINDOW))
    assert memory.seen == compressor.spec.reach(160) == memory.windows * WINDOW > 0
    with pytest.raises(ConfigurationError, match="too many"):
        answers(weights, memory, [ids(5)], max_tokens=200)


def test_ctrl_c_leaves_whole_windows_to_go_on_from() -> None:
    text, compressor = ids(5 * WINDOW + 3), Compressor(tiny(), spec())
    memory = compressor.new()

    def stop(done: int, total: int) -> None:
        if done == 3 * WINDOW:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compressor.append(memory, text, stop)
    assert (memory.seen, memory.tail) == (3 * WINDOW, [])
    compressor.append(memory, text[memory.seen :])
    assert same(memory, memory_of(text, spec()))


def test_an_error_while_a_window_is_read_leaves_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_of(ids(3 * WINDOW), spec())
    before = memory_of(ids(3 * WINDOW), spec())

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(compressing, "keep", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        Compressor(tiny(), spec()).append(memory, ids(WINDOW, seed=8))
    assert same(memory, before)


@pytest.mark.parametrize(
    "text", ["", "x", "日本語のテキスト 🫖", "<end><pad><|im_start|>system", "\x00\x01\x02"]
)
def test_any_text_is_only_text(text: str) -> None:
    compressor = Compressor(tiny(), spec())
    memory = compressor.memorize(text * 20)
    tokenizer = compressor.weights.tokenizer
    assert 1 not in compressor.frame.text(text)
    assert 0 not in compressor.frame.text(text)
    assert tokenizer.decode(compressor.frame.text(text * 20)) == text * 20
    assert memory.seen == len(compressor.frame.text(text * 20))
    if memory.seen:
        assert answers(compressor.weights, memory, [[7]], max_tokens=3)


def test_what_was_just_said_is_read_word_for_word() -> None:
    """The newest sentence is in the tail, which is not compressed."""
    memory = memory_of([*ids(3 * WINDOW), 99, 98, 97], spec())
    assert memory.tail == [99, 98, 97]
    with_tail, without = logits_after(tiny(), memory, [5]), KVMemory(spec(), {}, memory.layers)
    assert not torch.allclose(with_tail, logits_after(tiny(), without, [5]), atol=1e-4)


def test_memories_formed_apart_are_read_together_and_stay_as_they_are() -> None:
    one, two = memory_of(ids(3 * WINDOW + 2), spec()), memory_of(ids(2 * WINDOW + 1, seed=8), spec())
    stored = list(windows(two))
    frequencies = tiny().model.base_model.rotary_emb.inv_freq
    both, turned_round = joined([one, two], frequencies), joined([two, one], frequencies)
    assert both.entries == turned_round.entries == one.entries + two.entries - 4
    assert both.tail == [*one.tail, *two.tail]
    for (keys, values), (own, own_values) in zip(both.layers, one.layers, strict=True):
        assert torch.equal(keys[:, :, : one.entries], own)
        assert torch.equal(values[:, :, : one.entries], own_values)
    back = torch.full((2, two.entries - 4), 4 - one.entries)
    for (keys, _), (own, _) in zip(both.layers, two.layers, strict=True):
        assert torch.allclose(moved(keys[0, :, one.entries :], back, frequencies), own[0, :, 4:], atol=1e-5)
    assert list(windows(two)) == stored
    assert same(joined([one], frequencies), KVMemory(one.spec, {}, one.layers, one.tail, one.windows))
    with pytest.raises(ConfigurationError, match="different"):
        joined([one, memory_of(ids(WINDOW), spec(ratio=8))], frequencies)
    with pytest.raises(ConfigurationError, match="no memories"):
        joined([], frequencies)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(st.integers(0, 70), st.sampled_from(["save", "fork"])), max_size=8))
def test_whatever_is_done_in_between_the_memory_is_the_same(steps: list[int | str]) -> None:
    compressor = Compressor(tiny(), spec(scorer="keydiff"))
    memory, text = compressor.new(), []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            compressor.append(memory, more := ids(step, seed=number))
            text += more
        elif step == "save":
            memory = opened(header(memory), windows(memory), compressor.fingerprint)
        else:
            answers(tiny(), memory, [[5, 6]], max_tokens=2)
    assert same(memory, memory_of(text, compressor.spec))


@pytest.mark.parametrize(
    "wrong", [{"ratio": 0}, {"ratio": 3}, {"window": 0}, {"sinks": WINDOW}, {"sinks": -1}]
)
def test_a_window_that_cannot_be_divided_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        spec(**wrong)
