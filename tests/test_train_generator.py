"""Training: it learns, stops and goes on to the same weights, and wastes little on padding."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra local")

from memgraph_plugin.errors import ConfigurationError  # noqa: E402
from memgraph_plugin.selfmem.retriever import BM25Retriever  # noqa: E402
from memgraph_plugin.selfmem.seq2seq import load_generator  # noqa: E402
from memgraph_plugin.selfmem.train_generator import (  # noqa: E402
    Recipe,
    _Rows,
    data_digest,
    train,
)
from memgraph_plugin.types import Request  # noqa: E402
from tests.tiny_generators import EXAMPLES, tiny  # noqa: E402

RETRIEVER = BM25Retriever(EXAMPLES)
SHORT = Recipe(epochs=4, tokens=400, warmup=5, check_every=4, seed=2)


def exact(outputs: Any, references: Any) -> float:
    """The share of outputs that are their references."""
    return sum(map(str.__eq__, outputs, references)) / len(references)


@pytest.mark.parametrize("kind", ["joint", "dual"])
def test_training_that_was_broken_off_goes_on_to_the_same_weights(kind, tmp_path: Path) -> None:
    losses: list[float] = []
    whole = train(
        tiny(kind),
        EXAMPLES,
        RETRIEVER,
        tmp_path / "whole",
        SHORT,
        progress=lambda *told: losses.append(told[2]),
    )
    assert losses

    def interrupt(outputs: Any, references: Any) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.0

    calls: list[int] = []
    dev = EXAMPLES[:2]
    with pytest.raises(KeyboardInterrupt):
        train(tiny(kind), EXAMPLES, RETRIEVER, tmp_path / "cut", SHORT, dev=dev, score=interrupt)
    assert len(list((tmp_path / "cut").glob("checkpoint-*"))) == 1
    resumed = train(tiny(kind), EXAMPLES, RETRIEVER, tmp_path / "cut", SHORT)
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], tensor, msg=name)
    assert resumed.trained_on["data"] == data_digest(EXAMPLES)


def test_a_tiny_model_learns_its_examples_and_the_best_checkpoint_stays(tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=90, tokens=800, warmup=30, check_every=60, rate=5e-3, memories=1, strays=0.0, drafts=0.0
    )
    trained = train(
        tiny("joint", seed=3, max_tokens=24),
        EXAMPLES,
        RETRIEVER,
        tmp_path / "run",
        recipe,
        dev=EXAMPLES[:8],
        score=exact,
    )
    requests = [
        Request(
            source=each.source, memory=RETRIEVER.retrieve([each.source], 1, exclude=[each.key])[0][0].target
        )
        for each in EXAMPLES[:8]
    ]
    outputs = [each.text for each in trained.hypotheses(requests)]
    assert exact(outputs, [each.target for each in EXAMPLES[:8]]) > 0.5
    trained.save(tmp_path / "kept")
    assert load_generator(tmp_path / "kept").trained_on == trained.trained_on


@pytest.mark.parametrize("kind", ["joint", "dual"])
def test_batches_hold_each_row_once_an_epoch_with_little_padding(kind) -> None:
    generator = tiny(kind)
    rows = _Rows(generator, EXAMPLES, RETRIEVER, Recipe(tokens=300, memories=3))
    first, again, second = (list(rows.epoch(number)) for number in (0, 0, 1))
    assert first == again != second
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row, _ in batch) == list(range(len(EXAMPLES)))
    cells = tokens = 0
    for batch in first:
        made = rows.tensors(batch)
        masks = [*(mask for _, mask in made["read"]), (made["labels"] != -100).long()]
        cells += sum(mask.numel() for mask in masks)
        tokens += sum(int(mask.sum()) for mask in masks)
        assert sum(mask.numel() for mask in masks) <= 300 + 4 * len(batch)
    assert tokens / cells > 0.8


def test_a_row_is_never_its_own_memory(tmp_path: Path) -> None:
    rows = _Rows(tiny("joint"), EXAMPLES, RETRIEVER, Recipe(memories=5, strays=0.0))
    for number, each in enumerate(EXAMPLES):
        assert each.target not in rows._memories[number]


def test_a_part_of_the_rows_reads_its_own_target_spoilt() -> None:
    rows = _Rows(tiny("joint"), EXAMPLES, RETRIEVER, Recipe(strays=0.0, drafts=1.0))
    read = {row: memory for batch in rows.epoch(0) for row, memory in batch}
    kept = [
        len(set(read[row].split()) & set(words)) / len(set(words))
        for row, each in enumerate(EXAMPLES)
        if (words := each.target.split())
    ]
    assert 0.4 < fmean(kept) < 1


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no examples"):
        train(tiny("joint"), [], RETRIEVER, tmp_path, SHORT)
    (tmp_path / "training.sha256").write_text("something else")
    with pytest.raises(ConfigurationError, match="another training"):
        train(tiny("joint"), EXAMPLES, RETRIEVER, tmp_path, SHORT)


def test_a_new_network_tells_near_places_from_far_ones() -> None:
    model = tiny("joint").network.base.model
    words = float(model.shared.weight.detach().std()) * model.config.d_model**0.5
    for side in (model.encoder, model.decoder):
        places = side.embed_positions.weight.detach()
        assert float(places.std()) == pytest.approx(words / 2**0.5, rel=0.2)
        near, far = (torch.cosine_similarity(places[:-20], places[n : n - 20 or None]) for n in (1, 20))
        assert near.min() > far.max()
