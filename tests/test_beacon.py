"""Memory tokens: arithmetic and training, on tiny models with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch
from memgraph_plugin.memorag.beacon import MemoryTokens, load
from memgraph_plugin.memorag.compressor import Compressor
from memgraph_plugin.memorag.framing import Frame
from memgraph_plugin.memorag.saved import header, opened, windows
from memgraph_plugin.memorag.spec import MemorySpec
from memgraph_plugin.memorag.train_beacon import IGNORED, Recipe, clue_samples, text_samples, train
from tests.test_compressor import WINDOW, ids, same
from tests.tiny_models import ARCHITECTURES, tiny

SPEC = MemorySpec(window=WINDOW, ratio=4, mode="beacon", sinks=0)


def tokens(kind: str = "llama", rank: int = 0) -> MemoryTokens:
    torch.manual_seed(4)
    made = MemoryTokens(tiny(kind).model, rank)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made.eval()


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("rank", [0, 4])
def test_only_the_memory_tokens_entries_stay(kind: str, rank: int) -> None:
    compressor = Compressor(tiny(kind), SPEC, tokens(kind, rank))
    memory = compressor.new()
    compressor.append(memory, ids(5 * WINDOW + 3))
    assert (memory.entries, memory.seen, len(memory.tail)) == (5 * WINDOW // 4, 5 * WINDOW + 3, 3)
    in_pieces = compressor.new()
    for start in range(0, 5 * WINDOW + 3, 17):
        compressor.append(in_pieces, ids(5 * WINDOW + 3)[start : start + 17])
    assert same(in_pieces, memory)
    assert same(opened(header(memory), windows(memory), compressor.fingerprint), memory)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.inference_mode()
def test_without_a_mask_the_base_model_is_left_bit_for_bit(kind: str) -> None:
    model, read = tiny(kind).model, torch.tensor([ids(20)])
    before = model(input_ids=read).logits
    made = tokens(kind)
    nowhere = torch.zeros(20, dtype=torch.bool)
    with made.at(model.base_model, nowhere):
        assert torch.equal(model(input_ids=read).logits, before)
    assert torch.equal(model(input_ids=read).logits, before)
    somewhere = nowhere.clone()
    somewhere[7] = True
    with made.at(model.base_model, somewhere):
        changed = model(input_ids=read).logits
    assert torch.equal(changed[:, :7], before[:, :7])
    assert not torch.allclose(changed[:, 7:], before[:, 7:])


def test_memory_tokens_stand_after_every_ratio_of_raw_ones() -> None:
    _, mask = tokens().read(
        tiny().model, Compressor(tiny(), MemorySpec()).new().fork(), torch.tensor([ids(32)]), 8
    )
    assert mask.nonzero()[:, 0].tolist() == [8, 17, 26, 35]


@pytest.mark.parametrize("rank", [0, 4])
def test_they_are_saved_and_known_again(tmp_path: Path, rank: int) -> None:
    made = tokens(rank=rank)
    made.save(tmp_path / "tokens.safetensors")
    found = load(tmp_path / "tokens.safetensors", tiny().model)
    assert found.digest == made.digest
    assert not [
        name
        for name, tensor in made.state_dict().items()
        if not torch.equal(tensor, found.state_dict()[name])
    ]
    with pytest.raises(FingerprintMismatch, match="another model"):
        load(tmp_path / "tokens.safetensors", tiny("llama", initializer_range=0.05).model)
    (tmp_path / "tokens.safetensors").write_bytes(b"not these")
    with pytest.raises(ConfigurationError, match="no memory tokens"):
        load(tmp_path / "tokens.safetensors", tiny().model)
    with pytest.raises(ConfigurationError, match="no memory tokens"):
        load(tmp_path / "nothing", tiny().model)


def test_a_memory_of_other_tokens_is_refused_and_none_are_made_up() -> None:
    memory = Compressor(tiny(), SPEC, tokens()).new()
    other = tokens()
    with torch.no_grad():
        other.embedding.add_(1)
    with pytest.raises(FingerprintMismatch, match="another adapter"):
        opened(header(memory), [], Compressor(tiny(), SPEC, other).fingerprint)
    with pytest.raises(ConfigurationError, match=r"trained memory tokens.*evict"):
        Compressor(tiny(), SPEC)


def recipe(**given: Any) -> Recipe:
    return Recipe(**{"window": WINDOW, "windows": 2, "ratios": (2, 4), "steps": 4, "batch": 2, **given})


def samples(how: Recipe) -> list[Any]:
    text = "the cat sat on the mat and the dog sat on the log, said the fox in the box. " * 30
    return list(text_samples(Frame.of(tiny().tokenizer), [text], how))


def test_samples_are_windows_and_what_is_read_behind_them() -> None:
    going_on, repeating = samples(recipe(copies=0.0))[0], samples(recipe(copies=1.0))[0]
    assert going_on["labels"] == [IGNORED] * WINDOW + going_on["input_ids"][WINDOW:]
    assert len(going_on["input_ids"]) == 3 * WINDOW
    said = [label for label in repeating["labels"] if label != IGNORED]
    assert repeating["input_ids"][-WINDOW:] == said
    assert len(repeating["labels"]) == len(repeating["input_ids"])


@pytest.mark.parametrize("rank", [0, 4])
def test_training_lowers_the_loss_and_changes_nothing_but_the_tokens(tmp_path: Path, rank: int) -> None:
    weights = tiny()
    before = {name: tensor.clone() for name, tensor in weights.model.state_dict().items()}
    losses: list[float] = []
    how = recipe(rank=rank, steps=30, rate=5e-3, distill=0.0, copies=0.0)
    made = train(weights, samples(how), tmp_path, how, progress=lambda _, __, loss: losses.append(loss))
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.model.state_dict().items())
    assert all(parameter.grad is None for parameter in weights.model.parameters())
    moved = MemoryTokens(weights.model, rank).state_dict()
    assert any(not torch.equal(tensor, moved[name]) for name, tensor in made.state_dict().items())
    memory = Compressor(weights, SPEC, made).memorize("the cat sat on the mat " * 20)
    assert memory.windows > 5


def test_a_training_that_was_stopped_goes_on(tmp_path: Path) -> None:
    steps: list[int] = []

    def stop(step: int, *_: Any) -> None:
        steps.append(step)
        if step == 3:
            raise KeyboardInterrupt

    how = recipe(steps=4, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), samples(how), tmp_path, how, progress=stop)
    train(tiny(), samples(how), tmp_path, how, progress=lambda step, *_: steps.append(step))
    assert steps == [1, 2, 3, 3, 4]
    with pytest.raises(ConfigurationError, match="another training"):
        train(tiny(), samples(how)[1:], tmp_path, how)


def test_clues_are_trained_on_the_sentences_that_are_the_evidence(tmp_path: Path) -> None:
    record = {"context": "The fox lives in the box. " * 5, "question": "Where?", "clues": ["in the box"]}
    how, frame = recipe(steps=1, batch=1), Frame.of(tiny().tokenizer)
    made = list(clue_samples(frame, [record, {**record, "context": "short"}], "Clues for: {}".format, how))
    (sample,) = made
    assert frame.reply([i for i in sample["labels"] if i != IGNORED]) == "in the box"
    assert sample["windows"] == len(frame.text(record["context"])) // WINDOW
    assert train(tiny(), made, tmp_path, how).digest


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to train on"):
        train(tiny(), [], tmp_path, recipe())
