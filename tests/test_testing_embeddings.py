import math

import pytest

from memgraph_plugin.testing import HashingEmbeddings


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.fixture
def embedder() -> HashingEmbeddings:
    return HashingEmbeddings()


def test_nearby_texts_are_near_and_others_are_not(embedder):
    tea, more_tea, dogs = embedder.embed_documents(["user likes tea", "user likes tea a lot", "my dog barks"])
    assert cosine(tea, more_tea) > 0.6
    assert cosine(tea, dogs) < 0.2
    assert cosine(embedder.embed_query("She liked hiking"), embedder.embed_query("she likes hikes")) > 0.3


@pytest.mark.parametrize("text", ["", "  ...", "one", "Ünï cødé 日本語", "word " * 1000])
def test_every_vector_is_of_length_one(embedder, text):
    vector = embedder.embed_query(text)
    assert len(vector) == 256
    assert math.isclose(cosine(vector, vector), 1.0, abs_tol=1e-9)


async def test_the_same_text_always_gives_the_same_vector(embedder):
    assert embedder.embed_query("tea") == HashingEmbeddings().embed_query("tea")
    assert await embedder.aembed_documents(["tea"]) == [await embedder.aembed_query("tea")]
    assert len(HashingEmbeddings(dimensions=32).embed_query("tea")) == 32
    assert embedder.embed_documents([]) == []
