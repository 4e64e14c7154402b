"""search with a query, by vectors; part of `StoreConformance`.

A store is asked which comes first, not what its scores are, where its vectors may be of other texts.
"""

# ruff: noqa: S101

from __future__ import annotations

from collections.abc import Sequence

import pytest
from langgraph.store.base import BaseStore, PutOp, SearchItem

from memgraph_plugin.testing.embeddings import HashingEmbeddings

ADA = ("acme", "ada")
HOSTILE = ("'; DROP TABLE store; --", '"quoted" $$dollar$$ $1', "%s %(name)s 100%", "a & b | !c <-> (d):*")


def found(items: Sequence[SearchItem]) -> list[str]:
    """The keys of what the query found: some stores fill up with what it did not, without a score."""
    return [item.key for item in items if item.score is not None]


class SemanticConformance:
    semantic = True

    @pytest.fixture(autouse=True)
    def _semantic(self, request: pytest.FixtureRequest) -> None:
        if not self.semantic and request.function.__qualname__.startswith(SemanticConformance.__name__):
            pytest.skip("the store has no vectors")

    async def test_the_nearest_comes_first(self, store: BaseStore) -> None:
        texts = {"tea": "she drinks green tea", "dog": "he owns a borzoi", "sea": "they sail at dawn"}
        await store.abatch([PutOp(ADA, key, {"text": text}) for key, text in texts.items()])
        items = await store.asearch(ADA, query="green tea")
        assert items[0].key == "tea"
        scores = [item.score for item in items if item.score is not None]
        assert scores == sorted(scores, reverse=True)

    async def test_a_query_keeps_to_its_prefix(self, store: BaseStore) -> None:
        for space in (("acme",), ADA, ("acme-corp",), ("acme_",), ("b", "acme")):
            await store.aput(space, "k", {"text": "who sees this"})
        assert {item.namespace for item in await store.asearch(("acme",), query="sees")} == {("acme",), ADA}

    async def test_a_filter_goes_before_the_ranking(self, store: BaseStore) -> None:
        await store.abatch([PutOp(ADA, f"{n}", {"text": "tea " * (n + 1), "n": n % 10}) for n in range(40)])
        items = await store.asearch(ADA, query="tea", filter={"n": 3}, limit=4)
        assert {item.key for item in items} == {"3", "13", "23", "33"}

    async def test_pages_of_a_query_are_disjoint_and_complete(self, store: BaseStore) -> None:
        await store.abatch([PutOp(ADA, f"{n}", {"text": f"note {n} on tea"}) for n in range(40)])
        pages = [await store.asearch(ADA, query="tea", limit=5, offset=n) for n in range(0, 45, 5)]
        assert [len(page) for page in pages] == [5] * 8 + [0]
        assert len({item.key for page in pages for item in page}) == 40

    async def test_an_update_replaces_what_search_reads(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "zebra"})
        await store.aput(ADA, "other", {"text": "a zebra and an okapi"})
        await store.aput(ADA, "k", {"text": "harbour"})
        assert found(await store.asearch(ADA, query="zebra"))[0] == "other"
        assert found(await store.asearch(ADA, query="harbour"))[0] == "k"

    async def test_an_update_with_fewer_texts_forgets_the_others(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"tags": ["harbour", "zebra"]}, index=["tags[*]"])
        await store.aput(ADA, "other", {"tags": ["zebra and okapi"]}, index=["tags[*]"])
        await store.aput(ADA, "k", {"tags": ["harbour"]}, index=["tags[*]"])
        assert found(await store.asearch(ADA, query="zebra"))[0] == "other"

    async def test_an_update_that_is_not_indexed_forgets_what_was(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "zebra"})
        await store.aput(ADA, "k", {"text": "secret"}, index=False)
        assert found(await store.asearch(ADA, query="zebra")) == []

    async def test_what_is_not_indexed_is_not_found(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "a secret garden"})
        await store.aput(ADA, "hidden", {"text": "a secret garden"}, index=False)
        assert found(await store.asearch(ADA, query="secret garden")) == ["k"]
        assert {item.key for item in await store.asearch(ADA)} == {"k", "hidden"}

    async def test_what_was_deleted_is_not_found(self, store: BaseStore) -> None:
        await store.aput(ADA, "k", {"text": "zebra"})
        await store.adelete(ADA, "k")
        assert await store.asearch(ADA, query="zebra") == []
        await store.aput(ADA, "k", {"text": "harbour"}, index=False)
        assert found(await store.asearch(ADA, query="zebra")) == []

    async def test_a_put_names_the_fields_that_search_reads(self, store: BaseStore) -> None:
        value = {"deep": {"er": "okapi"}, "tags": ["heron", "ibis"], "unread": "zebra"}
        await store.aput(ADA, "k", value, index=["deep.er", "tags[*]"])
        await store.aput(ADA, "okapi", {"text": "a zebra met an okapi, a heron or an ibis somewhere else"})
        assert found(await store.asearch(ADA, query="okapi"))[0] == "k"
        assert found(await store.asearch(ADA, query="ibis"))[0] == "k"
        assert found(await store.asearch(ADA, query="zebra"))[0] == "okapi"

    async def test_equal_texts_of_one_batch_are_both_found(self, store: BaseStore) -> None:
        await store.abatch([PutOp(ADA, key, {"text": "green tea"}) for key in ("one", "two")])
        assert sorted(found(await store.asearch(ADA, query="tea"))) == ["one", "two"]

    async def test_a_query_may_hold_any_text(self, store: BaseStore) -> None:
        await store.abatch([PutOp(ADA, str(n), {"text": text}) for n, text in enumerate(HOSTILE)])
        for n, query in enumerate(HOSTILE):
            assert found(await store.asearch(ADA, query=query))[0] == str(n)

    async def test_a_score_is_the_cosine(self, store: BaseStore) -> None:
        model = HashingEmbeddings()
        await store.aput(ADA, "k", {"text": "green tea"}, index=["text"])
        await store.aput(ADA, "other", {"text": "black tea, no sugar"}, index=["text"])
        asked, *vectors = (model.embed_query(text) for text in ("tea", "green tea", "black tea, no sugar"))
        items = {item.key: item.score for item in await store.asearch(ADA, query="tea")}
        cosines = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
        assert [items["k"], items["other"]] == pytest.approx(cosines, abs=1e-3)
