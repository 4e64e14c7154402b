import asyncio

import pytest
from langgraph.store.base import PutOp

from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.conformance import TTL
from memgraph_plugin.testing.store_contract import StoreContract
from memgraph_plugin.types import Insert

ADA = ("acme", "ada")


class TestInMemoryMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> InMemoryMemoryStore:
        return InMemoryMemoryStore(embeddings=HashingEmbeddings(), ttl=TTL)


def test_words_alone_find_what_has_them_and_nothing_else() -> None:
    store = InMemoryMemoryStore()
    store.apply(ADA, [Insert(text="likes tea"), Insert(text="owns a borzoi")])
    assert [hit.memory.text for hit in store.recall(ADA, "teas")] == ["likes tea"]
    assert store.recall(ADA, "violin") == []


def test_langgraph_s_index_configuration_names_the_model_and_the_fields() -> None:
    store = InMemoryMemoryStore(
        index={"dims": 256, "embed": HashingEmbeddings(), "fields": ["bio", "tags[*]"]}
    )
    store.put(ADA, "a", {"bio": "a sailor", "tags": ["zebra", "okapi"], "text": "unread"})
    store.put(ADA, "b", {"bio": "a cook", "tags": []})
    assert store.search(ADA, query="okapi")[0].key == "a"
    assert not any(hit.bm25 for hit in store.recall(ADA, "unread"))


def test_a_model_given_as_an_async_function_serves_the_async_methods() -> None:
    async def embed(texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    async def work() -> list[str]:
        store = InMemoryMemoryStore(index={"dims": 2, "embed": embed})
        await store.abatch([PutOp(ADA, "k", {"text": "tea"})])
        await store.aapply(ADA, [Insert(key="i", text="mate")])
        return [hit.memory.key for hit in await store.arecall(ADA, "tea")]

    assert asyncio.run(work()) == ["k", "i"]


def test_another_language_has_its_own_stems() -> None:
    store = InMemoryMemoryStore(language="german")
    store.apply(ADA, [Insert(text="Sie liebt alte Häuser"), Insert(text="runs daily", language="english")])
    assert store.recall(ADA, "Haus")[0].memory.text == "Sie liebt alte Häuser"
