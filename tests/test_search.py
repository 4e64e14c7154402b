"""How `search` ranks, by the store's configuration: over every store, as LangGraph's callers would ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Insert

ADA = ("acme", "ada")
EMBED = {"embed": HashingEmbeddings(), "dims": 256}
Maker = Callable[..., MemoryStore]


@pytest.fixture(params=["in memory", "postgres"])
def make(request: pytest.FixtureRequest) -> Iterator[Maker]:
    if request.param == "in memory":
        yield InMemoryMemoryStore
        return
    dsn = request.getfixturevalue("dsn")
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(PostgresMemoryStore(dsn, **options))


def say(store: MemoryStore) -> None:
    other = HashingEmbeddings().embed_query("granite marble") if store.embeddings else None
    texts = ("red tea", "the museum", "he paints fences", "basil needs water", "a code")
    store.apply(ADA, [Insert(text=text) for text in texts])
    store.apply(ADA, [Insert(key="k", text="code XK-4471", embedding=other)])


def test_search_is_by_cosine_unless_it_is_to_rank_as_recall_does(make: Maker) -> None:
    plain, hybrid = make(index={**EMBED}), make(index={**EMBED, "search": "hybrid"})
    say(plain)
    if isinstance(hybrid, InMemoryMemoryStore):
        say(hybrid)
    assert plain.search(ADA, query="code XK-4471")[0].key != "k"
    assert plain.recall(ADA, "code XK-4471")[0].memory.key == "k"
    found, hits = hybrid.search(ADA, query="code XK-4471"), hybrid.recall(ADA, "code XK-4471")
    assert found[0].key == "k"
    assert [item.score for item in found] == [hit.score for hit in hits]


def test_without_embeddings_search_is_by_words(make: Maker) -> None:
    store = make()
    say(store)
    (item,) = store.search(ADA, query="XK-4471")
    (hit,) = store.recall(ADA, "XK-4471")
    assert (item.key, item.score) == (hit.memory.key, hit.score)


def test_another_way_to_rank_is_refused(make: Maker) -> None:
    with pytest.raises(ConfigurationError, match=r'"vector" or "hybrid", not .keywords.'):
        make(index={**EMBED, "search": "keywords"})


def test_recall_is_quick_on_tables_that_nobody_has_looked_at(dsn: str) -> None:
    """Without statistics a planner takes thousands of rows for a few; as nested loops that took seconds."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE memgraph_plugin.memory SET (autovacuum_enabled = off)")
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        for start in range(0, 6_000, 1_000):
            turns = [
                Insert(text=f"tea and note {start + n}", session=str(start), position=n) for n in range(1_000)
            ]
            store.apply(ADA, turns)
        began = time.perf_counter()
        assert store.recall(ADA, "tea note 77")[0].memory.text == "tea and note 77"
        assert time.perf_counter() - began < 1
