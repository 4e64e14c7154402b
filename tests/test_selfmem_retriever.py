"""Examples found: the index in memory and the stores agree; nothing leaks from a row to itself."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy", reason="needs the extra local")

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.nodes.examples import StoreRetriever, example_of, insert_of
from memgraph_plugin.selfmem.corpus import read, same, split
from memgraph_plugin.selfmem.retriever import BM25Retriever
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Example, Insert

DATA = Path(__file__).parents[2] / "shared" / "data" / "selfmem" / "pg15_messages_en_de.jsonl"
HERE = ("corpus", "en-de")
CORPUS = [
    Example(source="file not found", target="Datei nicht gefunden", key="1"),
    Example(source="File  not found", target="Datei fehlt", key="2"),
    Example(source="table not found", target="Tabelle nicht gefunden", key="3"),
    Example(source="table was dropped", target="Tabelle wurde gelöscht", key="4"),
    Example(source="file was dropped", target="Entwurf", key="5", origin="self"),
]


def test_the_nearest_come_first_and_what_shares_no_word_does_not_come() -> None:
    retriever = BM25Retriever(CORPUS)
    near, none, empty = retriever.retrieve(["the table", "anything else", ""], 2)
    assert [each.key for each in near] == ["3", "4"]
    assert none == empty == []
    assert BM25Retriever([]).retrieve(["file"], 3) == [[]]
    assert retriever.retrieve(["file"], 0) == [[]]
    assert BM25Retriever(CORPUS, side="target", language="german").retrieve(["Tabelle"], 1)[0][0].key in "34"


def stores(dsn: str) -> Any:
    yield InMemoryMemoryStore()
    yield InMemoryMemoryStore(embeddings=HashingEmbeddings(8))
    with PostgresMemoryStore(dsn) as store:
        yield store


def test_in_training_neither_a_row_nor_its_equals_nor_drafts_are_found(dsn: str) -> None:
    retrievers: list[Any] = [BM25Retriever(CORPUS)]
    for store in stores(dsn):
        store.apply(HERE, [insert_of(each) for each in CORPUS])
        store.apply(HERE, [Insert(text="file of another kind", kind="semantic")])
        retrievers.append(StoreRetriever(store, HERE))
        live, training = (retrievers[-1].retrieve([CORPUS[0].source], 5, exclude=x) for x in (None, ["1"]))
        assert asyncio.run(retrievers[-1].aretrieve([CORPUS[0].source], 5, exclude=["1"])) == training
        assert {each.key for each in live[0]} == {"1", "2", "3", "5"}
        assert [each.key for each in training[0]] == ["3"]
        assert retrievers[-1].retrieve([" "], 5) == [[]]
    assert [each.key for each in retrievers[0].retrieve([CORPUS[0].source], 5, exclude=["1"])[0]] == ["3"]


def test_an_example_is_remembered_as_it_is() -> None:
    store = InMemoryMemoryStore()
    store.apply(HERE, [insert_of(each) for each in CORPUS])
    found = [example_of(hit) for hit in store.recall(HERE, "file table", k=9, words_only=True)]
    assert sorted((each for each in found if each), key=lambda each: each.key) == CORPUS
    store.apply(HERE, [Insert(text="file", kind="self", value={"target": 3}, key="odd")])
    assert "odd" not in {each.key for each in StoreRetriever(store, HERE).retrieve(["file"], 9)[0]}


def test_words_only_leaves_vectors_out(dsn: str) -> None:
    for store in (InMemoryMemoryStore(embeddings=HashingEmbeddings(8)),):
        store.apply(HERE, [Insert(text="red house", key="a"), Insert(text="old tree", key="b")])
        assert len(store.recall(HERE, "house")) == 2
        (hit,) = store.recall(HERE, "house", words_only=True)
        assert (hit.memory.key, hit.cosine) == ("a", None)
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(8)) as store:
        store.apply(HERE, [Insert(text="red house", key="a"), Insert(text="old tree", key="b")])
        assert len(store.recall(HERE, "house")) == 2
        (hit,) = store.recall(HERE, "house", words_only=True)
        assert (hit.memory.key, hit.cosine) == ("a", None)


def test_files_are_read_and_equal_sources_never_cross_a_split(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"id": 7, "en": " a %s\\n", "de": "b %s"}\n\n{"en": "c", "de": " "}\n{"en": "d", "de": "e"}\n'
    )
    assert [(each.key, each.source, each.target) for each in read(path, "en", "de")] == [
        *(("7", "a %s", "b %s"), ("4", "d", "e"))
    ]
    path.write_text('{"en": 3, "de": "e"}')
    with pytest.raises(ConfigurationError, match="line 1"):
        read(path, "en", "de")
    parts = split(CORPUS, dev=1, test=1)
    assert (len(parts.train), len(parts.dev), len(parts.test)) == (2, 1, 1)
    assert split(CORPUS, dev=1, test=1) == parts
    with pytest.raises(ConfigurationError, match="4 different"):
        split(CORPUS, dev=2, test=2)


@pytest.mark.skipif(not DATA.exists(), reason="PostgreSQL's messages are not here")
def test_the_store_and_the_index_agree_on_the_nearest_message(dsn: str) -> None:
    pairs = read(DATA, "en", "de")
    parts = split(pairs, dev=900, test=900)
    assert len(parts.train) > 7000
    sources: defaultdict[str, int] = defaultdict(int)
    for part in (parts.train, parts.dev, parts.test):
        for source in {same(each.source) for each in part}:
            sources[source] += 1
    assert set(sources.values()) == {1}
    asked = random.Random(1).sample(parts.test, 200)
    index = BM25Retriever(parts.train)
    with PostgresMemoryStore(dsn) as store:
        store.apply(HERE, [insert_of(each) for each in parts.train])
        live = StoreRetriever(store, HERE).retrieve([each.source for each in asked], 1)
    near = index.retrieve([each.source for each in asked], 5)
    agree = sum(
        (found[0] in close[:1] or tied(index, each.source, found[0], close[0]))
        if found and close
        else found == close
        for each, found, close in zip(asked, live, near, strict=True)
    )
    assert agree >= 0.99 * len(asked)


def tied(index: BM25Retriever, source: str, one: Example, other: Example) -> bool:
    """Whether both are equally near."""
    scores = index.scores(source)
    first, second = (float(scores[index.examples.index(each)]) for each in (one, other))
    return first == pytest.approx(second, rel=1e-6)
