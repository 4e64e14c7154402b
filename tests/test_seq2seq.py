"""Trained generators: the decoder's arithmetic, the search, what is read, what is kept in a folder."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra local")

from memgraph_plugin.errors import ConfigurationError, FingerprintMismatch  # noqa: E402
from memgraph_plugin.selfmem.beams import search  # noqa: E402
from memgraph_plugin.selfmem.network import Network, Written  # noqa: E402
from memgraph_plugin.selfmem.seq2seq import (  # noqa: E402
    Decoding,
    DualSeq2Seq,
    JointSeq2Seq,
    load_generator,
    padded,
)
from memgraph_plugin.types import Request  # noqa: E402
from tests.tiny_generators import tiny, tiny_marian  # noqa: E402

KINDS = ("joint", "dual")
MAKES = {"bart": tiny, "marian": tiny_marian}
PAIRS = [
    ("file not found", "Datei nicht gefunden"),
    ('row "%s" is locked', ""),
    ("view", "Sicht »%s« ist %s" * 3),
]
REQUESTS = [Request(source=source, memory=memory) for source, memory in PAIRS]


@pytest.fixture(params=[(make, kind) for make in MAKES for kind in KINDS], ids="-".join)
def generator(request) -> Any:
    make, kind = request.param
    return MAKES[make](kind)


def outputs(generator: Any, seed: int = 0) -> torch.Tensor:
    """Three outputs for each of the pairs, drawn at random."""
    torch.manual_seed(seed)
    return torch.randint(2, len(generator.tokens.tokenizer), (9, 20))


@torch.inference_mode()
def test_what_is_written_token_by_token_is_what_is_read_at_once(generator) -> None:
    readings = generator._read([generator.inputs(*pair) for pair in PAIRS])
    ids = outputs(generator)
    whole = generator.network.logits(generator.network.states(ids, readings))
    written, rows = Written(), torch.arange(9)
    for place in range(ids.shape[1]):
        step = generator.network.states(ids[:, place : place + 1], readings, written)
        torch.testing.assert_close(
            generator.network.logits(step)[:, 0], whole[:, place], atol=1e-4, rtol=1e-4
        )
        written.rows(rows)


@pytest.mark.parametrize("make", MAKES)
@torch.inference_mode()
def test_a_joint_network_computes_what_transformers_computes(make) -> None:
    generator = MAKES[make]("joint")
    texts = [generator.inputs(*pair)[0] for pair in PAIRS]
    ids, mask = padded(texts, generator.network.base.config.pad_token_id, "cpu")
    said = outputs(generator)[::3]
    stock = generator.network.base(input_ids=ids, attention_mask=mask, decoder_input_ids=said).logits
    ours = generator.network.logits(generator.network.states(said, generator.network.read([(ids, mask)])))
    torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_dual_network_reads_its_memory_and_a_joint_one_too(generator) -> None:
    ids = outputs(generator)[:1]
    logits = [
        generator.network.logits(
            generator.network.states(ids, generator._read([generator.inputs("view", memory)]))
        )
        for memory in ("", "Sicht", "Datei")
    ]
    assert not logits[0].allclose(logits[1])
    assert not logits[1].allclose(logits[2])


def test_a_beam_of_one_is_greedy_search(generator) -> None:
    config = generator.network.base.config
    with torch.inference_mode():
        readings = generator._read([generator.inputs(*PAIRS[0])])
        ids = [config.decoder_start_token_id]
        for _ in range(12):
            logits = generator.network.logits(generator.network.states(torch.tensor([ids]), readings))[0, -1]
            logits[config.pad_token_id] = -inf
            if len(ids) == 1:
                logits[config.eos_token_id] = -inf
            ids.append(int(logits.argmax()))
            if ids[-1] == config.eos_token_id:
                break
    (found,) = generator._search([generator.inputs(*PAIRS[0])], 1, inf)
    assert found[0].ids == [token for token in ids[1:] if token != config.eos_token_id]


def test_a_wide_beam_finds_what_enumeration_finds() -> None:
    """With three tokens and all outputs under way, search is exhaustive."""
    generator = tiny("joint")
    end, others = generator.network.base.config.eos_token_id, (5, 9)
    banned = [token for token in range(len(generator.tokens.tokenizer)) if token not in (end, *others)]
    with torch.inference_mode():
        readings = generator._read([generator.inputs(*PAIRS[0])])
        expected = {}
        for text in ([a, *rest] for a in others for rest in ([], *([b] for b in others))):
            ids = torch.tensor([[end, *text]])
            logits = generator.network.logits(generator.network.states(ids, readings))[0]
            logits[:, banned] = -inf
            logits[0, end] = -inf
            logprobs = logits.log_softmax(-1)
            expected[tuple(text)] = sum(float(logprobs[i, token]) for i, token in enumerate([*text, end]))
    (found,) = search(generator.network, readings, 50, [3], start=end, end=end, banned=banned)
    assert {tuple(output.ids): output.total for output in found} == pytest.approx(expected, abs=1e-4)


def test_padding_and_company_have_no_influence(generator) -> None:
    together = generator.candidates(REQUESTS, 6)
    alone = [generator.candidates([request], 6)[0] for request in REQUESTS]
    assert [[each.text for each in pool] for pool in together] == [
        [each.text for each in pool] for pool in alone
    ]
    for pool, same in zip(together, alone, strict=True):
        assert [each.logprob for each in pool] == pytest.approx([each.logprob for each in same], abs=1e-4)


def test_a_pool_is_of_different_texts_likeliest_first_and_equal_requests_get_equal_pools(generator) -> None:
    pools = generator.candidates([REQUESTS[0], REQUESTS[1], REQUESTS[0]], 8, seed=5)
    assert pools[0] == pools[2]
    assert pools[0] is not pools[2]
    for pool in pools:
        assert 0 < len(pool) <= 8
        assert len({each.text for each in pool}) == len(pool)
        assert [each.logprob for each in pool] == sorted((each.logprob for each in pool), reverse=True)
    assert generator.candidates([], 8) == []
    assert generator.hypotheses([]) == []


def test_a_margin_gives_up_the_unlikely() -> None:
    generator = tiny("joint")
    pool = generator.candidates(REQUESTS[:1], 20)[0]
    generator.decoding = Decoding(max_tokens=12, margin=0.5)
    few = generator.candidates(REQUESTS[:1], 20)[0]
    assert 0 < len(few) < len(pool)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_that_are_too_long_are_cut_the_longer_side_first(kind) -> None:
    generator = tiny(kind)
    long, short = "table " * 300, "row"
    for source, memory in ((long, long), (long, short), (short, long), ("", ""), (long, "")):
        texts = generator.inputs(source, memory)
        assert all(0 < len(text) <= 96 for text in texts)
        assert all(text[-1] == generator.network.base.config.eos_token_id for text in texts)
        assert generator.hypotheses([Request(source=source, memory=memory)])[0].logprob is not None
    kept = generator.inputs(long, short)
    assert generator.tokens.source(short) == kept[-1][-1 - len(generator.tokens.source(short)) : -1]
    assert Decoding(max_tokens=10_000).max_tokens == 10_000  # the model's places are the limit then
    generator.decoding = Decoding(max_tokens=10_000, stretch=0, beams=1)
    assert generator.hypotheses(REQUESTS[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded_bit_for_bit(kind, tmp_path) -> None:
    generator = tiny(kind, length_penalty=0.6)
    generator.save(tmp_path)
    loaded = load_generator(tmp_path)
    assert type(loaded) is type(generator)
    assert loaded.fingerprint == generator.fingerprint
    assert loaded.decoding == generator.decoding
    for name, tensor in generator.network.state_dict().items():
        assert loaded.network.state_dict()[name].equal(tensor), name
    assert loaded.candidates(REQUESTS, 5) == generator.candidates(REQUESTS, 5)
    narrow = load_generator(tmp_path, Decoding(beams=1))
    assert narrow.fingerprint != generator.fingerprint


def test_a_folder_that_is_not_what_was_saved_is_refused(tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(ConfigurationError, match="holds no generator"):
        load_generator(tmp_path)
    tiny("dual").save(tmp_path)
    with pytest.raises(ConfigurationError, match="dual generator, not a joint"):
        JointSeq2Seq.load(tmp_path)
    weights = load_file(tmp_path / "memory_attention.safetensors")
    weights["0.q_proj.bias"] += 1
    save_file(weights, tmp_path / "memory_attention.safetensors")
    with pytest.raises(FingerprintMismatch, match="weights"):
        load_generator(tmp_path)
    (tmp_path / "memory_attention.safetensors").write_bytes(b"x")
    with pytest.raises(FingerprintMismatch, match="not whole"):
        load_generator(tmp_path)
    about = json.loads((tmp_path / "selfmem.json").read_text())
    (tmp_path / "selfmem.json").write_text(json.dumps({**about, "kind": "odd"}))
    with pytest.raises(ConfigurationError, match="unknown kind"):
        load_generator(tmp_path)


def test_a_pretrained_model_is_taken_by_its_path(tmp_path) -> None:
    tiny("joint").save(tmp_path)
    dual = DualSeq2Seq.from_pretrained(str(tmp_path), Decoding(max_tokens=8))
    assert dual.network.dual
    assert dual.hypotheses(REQUESTS)
    with pytest.raises(ConfigurationError, match="could be loaded"):
        JointSeq2Seq.from_pretrained(str(tmp_path / "nothing"))


def test_settings_and_models_that_cannot_work_are_refused() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    with pytest.raises(ConfigurationError, match="t5"):
        Network(
            T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_ff=8, num_layers=1, num_heads=1))
        )
    with pytest.raises(ConfigurationError, match="at least one"):
        tiny("joint").candidates(REQUESTS, 0)
    for wrong in ({"beams": 0}, {"margin": -1.0}, {"max_source": 0}):
        with pytest.raises(ConfigurationError):
            Decoding(**wrong)


@pytest.mark.parametrize("text", ['  %s: "%d"\n\tx ', "größe »%s«", "日本語 🙂", "", "</s> <pad>"])
def test_texts_come_back_letter_by_letter(text) -> None:
    tokens = tiny("joint").tokens
    ids = tokens.source(text)
    assert tokens.text(ids) == text
    assert ids == tokens.target(text)
