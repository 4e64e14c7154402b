"""What `recall` promises: whose memories it reads, and which come first; part of `StoreContract`."""

# ruff: noqa: S101

from __future__ import annotations

import math

import pytest

from memgraph_plugin.errors import InvalidValue
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Insert, Update

ADA = ("acme", "ada")
HOSTILE = (
    "'; DROP TABLE memory; --",
    '"quoted" $$dollar$$ $1',
    "%s %(name)s %% 100%",
    "{0} {name} {{}}",
    "a & b | !c <-> (d):*",
    "back\\slash \\u0000 \\x",
    "tab\tnewline\r\n\x01\x7f",
    "???",
    "to be or not to be",
    "😀👩‍👩‍👧 e\u0301 \u202eright to left",
)
FILLER = (
    "The train to Lyon leaves at noon",
    "Her violin lesson was cancelled",
    "Basil needs more water in summer",
    "The printer is out of paper",
    "He paints fences on weekends",
    "Granite is harder than marble",
    "The museum opens on Mondays",
    "They bought a red kayak",
)


class RecallContract:
    """recall, and search with a query."""

    async def test_the_memory_that_answers_comes_first(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(text=text) for text in (*FILLER, "Ada is allergic to peanuts")])
        hits = await store.arecall(ADA, "what is Ada allergic to?", k=3)
        assert len(hits) == 3
        assert hits[0].memory.text == "Ada is allergic to peanuts"
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert hits[0].cosine is not None
        assert -1.001 <= hits[0].cosine <= 1.001
        assert hits[0].bm25 is not None
        assert hits[0].bm25 > 0

    async def test_only_exactly_this_namespace_is_read(self, store: MemoryStore) -> None:
        for space in (("acme",), ADA, (*ADA, "work"), ("acme", "adam"), ("acme", "bob"), ("acme-ada",)):
            await store.aapply(space, [Insert(text=f"the secret of {'/'.join(space)}")])
        for query in ("secret", ""):
            assert [hit.memory.namespace for hit in await store.arecall(ADA, query)] == [ADA]

    async def test_nothing_is_recalled_from_an_empty_namespace(self, store: MemoryStore) -> None:
        assert await store.arecall(ADA, "anything") == []
        assert await store.arecall(ADA, "") == []

    async def test_only_the_asked_kinds_are_read(self, store: MemoryStore) -> None:
        await store.aapply(
            ADA,
            [
                Insert(key="s", text="tea in the morning", kind="semantic"),
                Insert(key="t", text="tea please", kind="turn"),
                Insert(key="p", text="tea is a drink", kind="passage"),
            ],
        )
        hits = await store.arecall(ADA, "tea", kinds=["semantic", "turn"])
        assert {hit.memory.key for hit in hits} == {"s", "t"}
        assert await store.arecall(ADA, "tea", kinds=["core"]) == []
        assert len(await store.arecall(ADA, "tea")) == 3

    async def test_a_filter_goes_before_the_ranking(self, store: MemoryStore) -> None:
        await store.aapply(
            ADA, [Insert(text=f"tea number {n}", value={"n": n, "even": n % 2 == 0}) for n in range(30)]
        )
        hits = await store.arecall(ADA, "tea", k=5, filter={"even": True, "n": {"$gt": 8, "$lt": 15}})
        assert sorted(hit.memory.value["n"] for hit in hits) == [10, 12, 14]

    async def test_what_cannot_be_asked_is_refused(self, store: MemoryStore) -> None:
        for query, kinds in (("nul\0", None), (None, None), ("x", ["nul\0"]), ("x", "turn")):
            with pytest.raises(InvalidValue):
                await store.arecall(ADA, query, kinds=kinds)  # type: ignore[arg-type]

    async def test_k_is_the_most_that_comes(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(text=text) for text in FILLER])
        assert len(await store.arecall(ADA, "the train", k=3)) == 3
        assert len(await store.arecall(ADA, "", k=2)) == 2
        assert len(await store.arecall(ADA, "the train", k=10**30)) <= len(FILLER)
        assert await store.arecall(ADA, "the train", k=0) == []

    async def test_a_token_budget_is_kept(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(text=f"tea {n} " + "leaf " * 20 * (1 + n % 3)) for n in range(9)])
        hits = await store.arecall(ADA, "tea leaf", token_budget=120)
        assert hits
        assert sum(hit.memory.tokens for hit in hits) <= 120
        assert await store.arecall(ADA, "tea leaf", token_budget=0) == []
        assert 0 < sum(hit.memory.tokens for hit in await store.arecall(ADA, "", token_budget=120)) <= 120

    async def test_a_hit_by_its_words_alone_can_come_first(self, store: MemoryStore) -> None:
        embedder = store.embeddings
        assert embedder is not None
        elsewhere = await embedder.aembed_query("granite marble kayak")
        await store.aapply(
            ADA,
            [Insert(text=text) for text in FILLER]
            + [Insert(key="k", text="code XK-4471", embedding=elsewhere)],
        )
        assert (await store.arecall(ADA, "XK-4471"))[0].memory.key == "k"

    async def test_a_hit_by_its_vector_alone_can_come_first(self, store: MemoryStore) -> None:
        embedder = store.embeddings
        assert embedder is not None
        near = await embedder.aembed_query("favourite drink")
        await store.aapply(
            ADA,
            [Insert(text=text) for text in FILLER] + [Insert(key="k", text="oolong", embedding=near)],
        )
        assert (await store.arecall(ADA, "favourite drink"))[0].memory.key == "k"

    async def test_a_vector_of_any_length_spoils_nothing(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(text=text) for text in FILLER])
        for scale in (0.0, 1e-320, 1e-9, 1e6, 1e300):
            await store.aapply(ADA, [Insert(text="of no use", embedding=[scale] * 256)])
        hits = await store.arecall(ADA, "red kayak", k=20)
        assert hits[0].memory.text == "They bought a red kayak"
        assert all(math.isfinite(hit.score) for hit in hits)
        assert all(hit.cosine is None or -1.001 <= hit.cosine <= 1.001 for hit in hits)

    async def test_a_reply_is_lifted_by_the_turn_it_answers(self, store: MemoryStore) -> None:
        said = ("Which breed is your puppy?", "Borzoi, since 2019", *FILLER)
        turns = [
            Insert(key=f"t{n}", text=text, kind="turn", session="s1", position=n)
            for n, text in enumerate(said)
        ]
        other = [Insert(text=f"unrelated {text}", session="s2", position=n) for n, text in enumerate(FILLER)]
        await store.aapply(ADA, [*reversed(turns), *other])
        hits = await store.arecall(ADA, "puppy breed", k=2)
        assert [hit.memory.key for hit in hits] == ["t0", "t1"]

    async def test_inflected_words_find_each_other(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(text=text) for text in FILLER])
        await store.aapply(ADA, [Insert(key="k", text="Running calms her")])
        hit = (await store.arecall(ADA, "who runs?"))[0]
        assert hit.memory.key == "k"
        assert hit.bm25 is not None
        assert hit.bm25 > 0

    @pytest.mark.parametrize(
        ("text", "query"),
        [
            ("她住在北京市朝阳区", "北京"),
            ("東京タワーが好きです", "タワー"),
            ("저는 한국어를 배워요", "한국어"),
        ],
    )
    async def test_text_without_spaces_is_found_by_its_words(
        self, store: MemoryStore, text: str, query: str
    ) -> None:
        others = ("他喜欢喝茶", "猫が庭にいる", "오늘은 비가 와요")
        await store.aapply(
            ADA, [Insert(text=other) for other in (*FILLER, *others)] + [Insert(key="k", text=text)]
        )
        hit = (await store.arecall(ADA, query))[0]
        assert hit.memory.key == "k"
        assert hit.bm25 is not None
        assert hit.bm25 > 0

    async def test_without_a_query_the_newest_come_first(self, store: MemoryStore) -> None:
        for key in ("a", "b", "c"):
            await store.aapply(ADA, [Insert(key=key, text=key)])
        await store.aapply(ADA, [Update(key="a", text="again")])
        for query in ("", "  \n"):
            assert [hit.memory.key for hit in await store.arecall(ADA, query)] == ["a", "c", "b"]

    async def test_a_changed_text_is_no_longer_found_by_its_old_words(self, store: MemoryStore) -> None:
        await store.aapply(
            ADA, [Insert(text=text) for text in FILLER] + [Insert(key="k", text="owns a zebra")]
        )
        await store.aapply(ADA, [Update(key="k", text="owns an okapi")])
        assert (await store.arecall(ADA, "okapi"))[0].memory.key == "k"
        assert not any(hit.bm25 for hit in await store.arecall(ADA, "zebra", k=20))

    async def test_callers_cannot_change_what_is_remembered(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(key="k", text="tea", value={"list": [1]})])
        for query in ("tea", ""):
            (await store.arecall(ADA, query))[0].memory.value["list"].append(2)
        version = (await store.ahistory(ADA, "k"))[0]
        assert version.memory is not None
        version.memory.value["list"].append(3)
        item = await store.aget(ADA, "k")
        assert item is not None
        assert item.value["list"] == [1]

    async def test_any_text_is_stored_and_any_query_answered(self, store: MemoryStore) -> None:
        for n, text in enumerate(HOSTILE):
            await store.aapply(
                ADA,
                [Insert(key=text, text=text, value={text: text}, session=text, source=text, reason=text)],
                actor=text,
                policy=text,
                idempotency_key=text,
            )
            hits = await store.arecall(ADA, text, k=50, filter={text: text})
            assert [(hit.memory.key, hit.memory.text) for hit in hits] == [(text, text)]
            assert len(await store.asearch(ADA, query=text, limit=50)) == n + 1
            assert (await store.ahistory(ADA, text))[0].reason == text

    async def test_a_label_may_be_any_text_without_a_dot(self, store: MemoryStore) -> None:
        for label in ("o'brien", '"', "a b", "100%", "under_score", "猫", "a/b", "a\\b", "*", "{0}"):
            await store.aapply((label, "x"), [Insert(key="k", text="mine")])
            assert [hit.memory.namespace for hit in await store.arecall((label, "x"), "mine")] == [
                (label, "x")
            ]
            assert [item.namespace for item in await store.asearch((label,))] == [(label, "x")]

    async def test_a_very_long_text_is_stored_whole_and_found(self, store: MemoryStore) -> None:
        text = "The axolotl report. " + " ".join(f"line{n}" for n in range(120_000))
        assert len(text) > 1_000_000
        await store.aapply(ADA, [Insert(text=words) for words in FILLER] + [Insert(key="long", text=text)])
        (hit,) = (hit for hit in await store.arecall(ADA, "axolotl", k=20) if hit.bm25)
        assert hit.memory.text == text
        assert await store.arecall(ADA, "axolotl " * 10_000, k=1)

    async def test_search_with_a_query_ranks_by_cosine_alone(self, store: MemoryStore) -> None:
        embedder = store.embeddings
        assert embedder is not None
        said = (*FILLER, "red tea", "a kayak, a kayak, a red red kayak")
        await store.aapply(
            ADA, [Insert(key=f"k{n}", text=text, session="s", position=n) for n, text in enumerate(said)]
        )
        query = await embedder.aembed_query("red kayak")
        vectors = await embedder.aembed_documents(list(said))
        cosines = {
            f"k{n}": sum(a * b for a, b in zip(query, vector, strict=True))
            for n, vector in enumerate(vectors)
        }
        items = await store.asearch(ADA, query="red kayak", limit=20)
        assert [item.key for item in items] == sorted(cosines, key=lambda key: -cosines[key])
        assert [item.score for item in items] == pytest.approx(
            [cosines[item.key] for item in items], abs=1e-3
        )

    async def test_search_with_a_query_finds_what_has_a_vector(self, store: MemoryStore) -> None:
        zero = Insert(key="zero", text="red kayak", embedding=[0.0] * 256)
        await store.aapply(ADA, [Insert(key="k", text="granite"), zero])
        assert [item.key for item in await store.asearch(ADA, query="red kayak")] == ["k"]
        assert {hit.memory.key for hit in await store.arecall(ADA, "red kayak")} == {"k", "zero"}

    async def test_search_pages_through_equal_scores(self, store: MemoryStore) -> None:
        spaces = (ADA, (*ADA, "x"))
        for space in spaces:
            await store.aapply(space, [Insert(key=f"k{n}", text="the same") for n in range(6)])
        pages = [await store.asearch(ADA, query="same", limit=5, offset=offset) for offset in (0, 5, 10)]
        found = [(item.namespace, item.key) for page in pages for item in page]
        assert found == [(space, f"k{n}") for space in spaces for n in range(6)]

    async def test_search_with_a_query_reads_the_namespaces_below(self, store: MemoryStore) -> None:
        await store.aapply(ADA, [Insert(text=text) for text in FILLER])
        await store.aapply((*ADA, "work"), [Insert(key="w", text="the quarterly budget")])
        await store.aapply(("acme", "adam"), [Insert(text="the quarterly budget of another")])
        found = await store.asearch(ADA, query="quarterly budget", limit=50)
        assert (found[0].namespace, found[0].key) == ((*ADA, "work"), "w")
        assert all(item.namespace[:2] == ADA for item in found)
