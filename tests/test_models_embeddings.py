import importlib.util
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.models import embeddings as module
from memgraph_plugin.models.embeddings import embedding_name, load_embeddings
from memgraph_plugin.testing import HashingEmbeddings

TEXTS = [
    "The user likes tea.",
    "THE USER LIKES TEA!",
    "Café, naïve, 日本語, ünïcode",
    "",
    "word " * 2000,
    *(f"Fact number {i}: " + "and so on " * (i % 40) for i in range(100)),
]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def minilm():
    return load_embeddings("local:minilm")


def test_it_embeds_as_sentence_transformers_does(minilm):
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(minilm.path, device="cpu").encode(TEXTS, normalize_embeddings=True)
    ours = minilm.embed_documents(TEXTS)
    assert abs(reference - ours).max() < 1e-5


def test_a_search_finds_what_is_meant(minilm):
    tea, dog = minilm.embed_documents(["Her favourite drink is green tea.", "The dog is called Rex."])
    query = minilm.embed_query("What does she like to drink?")
    assert cosine(query, tea) > cosine(query, dog) + 0.2
    assert len(tea) == 384
    assert math.isclose(cosine(tea, tea), 1.0, abs_tol=1e-5)


async def test_empty_lists_and_empty_strings_work(minilm):
    assert minilm.embed_documents([]) == []
    assert await minilm.aembed_documents([]) == []
    assert len(await minilm.aembed_query("")) == 384


def test_progress_counts_up_to_all_texts(minilm):
    seen = []
    minilm.embed_documents(["a"] * 100, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 100), (100, 100)]


def test_many_threads_load_the_weights_once(monkeypatch):
    loads = []
    monkeypatch.setattr(module, "_encoders", {})
    load = module._load
    monkeypatch.setattr(module, "_load", lambda path: loads.append(path) or load(path))
    model = load_embeddings("local:minilm")
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(model.embed_query, ["tea"] * 8))
    assert len(loads) == 1
    assert all(vector == pytest.approx(vectors[0], abs=1e-6) for vector in vectors)


def test_an_encoder_of_another_make_goes_through_sentence_transformers(minilm, monkeypatch):
    monkeypatch.setattr("memgraph_plugin.models.bert.BertEncoder.fits", lambda directory: False)
    monkeypatch.setattr(module, "_encoders", {})
    other = load_embeddings(f"local:{minilm.path}")
    assert other.embed_query("tea") == pytest.approx(minilm.embed_query("tea"), abs=1e-5)
    assert embedding_name(other) == "local:model"


def test_names_are_stable():
    assert embedding_name(load_embeddings("local:minilm")) == "local:minilm"
    hosted = load_embeddings("openai:text-embedding-3-small", base_url="http://127.0.0.1:9/v1")
    assert embedding_name(hosted) == "openai:text-embedding-3-small"
    assert embedding_name(HashingEmbeddings(64)) == "hashing:64"
    assert embedding_name(DeterministicFakeEmbedding(size=3)) == "DeterministicFakeEmbedding"


def test_a_model_passes_through():
    model = HashingEmbeddings()
    assert load_embeddings(model) is model


@pytest.mark.parametrize("spec", ["minilm", "local:", "nobody:model"])
def test_what_names_no_model_is_a_configuration_error(spec):
    with pytest.raises(ConfigurationError):
        load_embeddings(spec)


def test_a_local_model_that_is_not_there_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing"):
        load_embeddings(f"local:{tmp_path}/nothing").embed_query("tea")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "memgraph-plugin\[local\]"'):
        load_embeddings("local:minilm")
