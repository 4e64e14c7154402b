"""Other layouts of the tables: the whole contract over them, and what is chosen once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import conninfo, sql

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store import schema
from memgraph_plugin.store.layout import Layout
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.conformance import TTL
from memgraph_plugin.testing.store_contract import StoreContract
from memgraph_plugin.types import Insert
from tests.conftest import empty

ADA = ("memories", "ada")


@pytest.fixture(scope="module")
def laid_out(postgres: str) -> Iterator[str]:
    """The connection string of a database whose tables have partitions and whole vectors."""
    name = f"layout_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        dsn = conninfo.make_conninfo(postgres, dbname=name)
        schema.migrate(dsn, "memgraph_plugin", 3, "vector")
        yield dsn
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class TestPartitionedWithWholeVectors(StoreContract):
    @pytest.fixture
    def store(self, laid_out: str) -> Iterator[PostgresMemoryStore]:
        empty(laid_out)
        with PostgresMemoryStore(laid_out, embeddings=HashingEmbeddings(), ttl=TTL) as store:
            yield store

    def test_rows_of_several_partitions_are_told_apart(self, store: PostgresMemoryStore) -> None:
        for i in range(40):
            store.put(("many", str(i)), "k", {"text": f"likes tea number {i}"})
        found = store.search(("many",), query="tea", limit=100)
        assert len({item.namespace for item in found}) == len(found) == 40
        assert store.search(("many",), query="number 17", limit=1)[0].namespace == ("many", "17")


@pytest.mark.parametrize("vector_type", ["halfvec", "vector"])
@pytest.mark.parametrize("partitions", [None, 2, 12])
def test_a_layout_is_chosen_once_and_read_back(
    empty_dsn: str, partitions: int | None, vector_type: str
) -> None:
    with PostgresMemoryStore(empty_dsn, embeddings=HashingEmbeddings()) as store:
        store.setup(partitions=partitions, vector_type=vector_type)  # type: ignore[arg-type]
        assert store.setup() == []
        many = [Insert(text=f"note {i}", key=str(i)) for i in range(60)]
        store.apply(ADA, many)
        store.put(ADA, "k", {"text": "likes tea"})
    with PostgresMemoryStore(empty_dsn, embeddings=HashingEmbeddings()) as store:
        assert store.recall(ADA, "tea", k=1)[0].memory.key == "k"
        assert store.recall(ADA, "note 33", k=1)[0].cosine == pytest.approx(1, abs=1e-3)
    with psycopg.connect(empty_dsn) as conn:
        assert schema.current_layout(conn, "memgraph_plugin") == Layout(partitions or 0, vector_type)  # type: ignore[arg-type]


def test_another_layout_than_the_tables_have_is_refused(dsn: str, empty_dsn: str) -> None:
    with PostgresMemoryStore(dsn) as store:
        for asked in ({"partitions": 4}, {"vector_type": "vector"}):
            with pytest.raises(ConfigurationError, match=r"no partitions, .*which stays.*export"):
                store.setup(**asked)  # type: ignore[arg-type]
        assert store.setup(vector_type="halfvec") == []
    for asked in ({"partitions": 1}, {"partitions": -4}, {"vector_type": "bit"}):
        with pytest.raises(ConfigurationError):
            schema.migrate(empty_dsn, "memory", **asked)  # type: ignore[arg-type]


def test_partitions_are_not_read_past_the_policies_of_their_table(empty_dsn: str) -> None:
    schema.migrate(empty_dsn, "memory", partitions=2)
    with psycopg.connect(empty_dsn) as conn:
        bare = conn.execute(
            "SELECT count(*) FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid "
            "WHERE relkind = 'r' AND NOT (relrowsecurity AND relforcerowsecurity)"
        ).fetchone()
        assert bare == (0,)
