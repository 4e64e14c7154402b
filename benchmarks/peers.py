"""Who is measured beside us: four other ways to keep memories in Postgres, each through its own public API.

Each peer is taken as it comes, and in the settings that are best for it: "HNSW" (the index on vectors that
its documentation recommends, default parameters), "flat" (no index on vectors), "flat, user indexed" (and a
btree on the user, where the peer has none of itself: the best that exact search can be in it).

Filling is not timed. A peer writes the first session itself; the rest is copied in, row for row the same as
it would have written, which is compared on that session. Each setting has a table of its own.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import psycopg
from corpus import DIMENSION, Given, Question, Turn
from langgraph.store.base import PutOp
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Json, Jsonb
from psycopg_pool import ConnectionPool

from memgraph_plugin.types import Insert

K = 10
HNSW, FLAT, INDEXED = "HNSW", "flat", "flat, user indexed"

Answer = Callable[[Question], list[str]]
"""The keys that answer a question, best first."""


class Peer(ABC):
    """One package in one setting, in a schema of its own.

    `package` and `install` name it, `settings` are what it is measured in; `copied` says, table by table,
    what `rows` yields for it: columns and their types.
    """

    package: str
    install: str
    settings: tuple[str, ...] = (HNSW, FLAT)
    copied: Mapping[str, Mapping[str, str]]

    def __init__(self, dsn: str, schema: str, embeddings: Given, setting: str) -> None:
        self.dsn = dsn
        self.schema = schema
        self.embeddings = embeddings
        self.setting = setting
        self.opened = ExitStack()
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"CREATE SCHEMA {schema}".encode())
        self.create()

    @abstractmethod
    def create(self) -> None:
        """Connect, and make the tables without an index on vectors."""

    @abstractmethod
    def index(self) -> None:
        """Make the indexes of this setting."""

    @abstractmethod
    def prepare(self, turns: Sequence[Turn]) -> Any:
        """What `write` takes; not timed."""

    @abstractmethod
    def write(self, prepared: Any) -> None:
        """As its API writes one or many."""

    @abstractmethod
    def search(self, question: Question) -> list[str]: ...

    @abstractmethod
    def rows(self, table: str, turns: Iterable[Turn]) -> Iterator[tuple[Any, ...]]:
        """What it would have written to one of its tables."""

    def there(self) -> str:
        """The DSN whose first schema is its own."""
        return make_conninfo(self.dsn, options=f"-c search_path={self.schema},public")

    def url(self, driver: str) -> str:
        given = conninfo_to_dict(self.dsn)
        return (
            f"postgresql+{driver}://{given['user']}@/{given['dbname']}"
            f"?host={given['host']}&port={given.get('port', 5432)}"
        )

    def close(self) -> None:
        self.opened.close()

    def fill(self, turns: Sequence[Turn], own: int, like: Peer | None) -> None:
        """All rows, the first `own` by its API; copied from a peer in another setting where there is one."""
        with psycopg.connect(self.there(), autocommit=True) as conn:
            register_vector(conn)
            if like is None:
                self.write(self.prepare(turns[:own]))
                for table, columns in self.copied.items():
                    self._compare(conn, table, columns, turns[:own])
                    self._copy(conn, table, table, columns, turns[own:])
            else:
                for table, columns in self.copied.items():
                    names = ", ".join(columns)
                    theirs = f"SELECT {names} FROM {like.schema}.{table} ORDER BY ctid"
                    conn.execute(f"INSERT INTO {table} ({names}) {theirs}".encode())
        self.index()

    def _compare(
        self, conn: psycopg.Connection, table: str, columns: Mapping[str, str], turns: Sequence[Turn]
    ) -> None:
        names = ", ".join(columns)
        conn.execute(f"CREATE TEMP TABLE made AS SELECT {names} FROM {table} WITH NO DATA".encode())
        self._copy(conn, "made", table, columns, turns)
        rows = "SELECT to_jsonb(x) FROM (SELECT {} FROM {}) AS x"
        theirs, made = rows.format(names, f"{self.schema}.{table}"), rows.format(names, "pg_temp.made")
        different = conn.execute(f"SELECT count(*) FROM ({theirs} EXCEPT {made}) AS d".encode()).fetchone()
        conn.execute("DROP TABLE pg_temp.made")
        if different != (0,):
            raise SystemExit(f"{self.package}: what is copied into {table} is not what it writes.")

    def _copy(
        self,
        conn: psycopg.Connection,
        into: str,
        table: str,
        columns: Mapping[str, str],
        turns: Iterable[Turn],
    ) -> None:
        statement = f"COPY {into} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.set_types(list(columns.values()))
            for row in self.rows(table, turns):
                copy.write_row(row)


class LangGraph(Peer):
    """PostgresStore, pooled, `fields=["text"]`. HNSW is its default; a btree on the prefix is part of it."""

    package, install = "langgraph-checkpoint-postgres", "pip install langgraph-checkpoint-postgres"
    copied: ClassVar = {
        "store": {"prefix": "text", "key": "text", "value": "jsonb"},
        "store_vectors": {"prefix": "text", "key": "text", "field_name": "text", "embedding": "vector"},
    }

    def create(self) -> None:
        from langgraph.store.postgres import PostgresStore

        index: Any = {"dims": DIMENSION, "embed": self.embeddings, "fields": ["text"]}
        if self.setting == FLAT:
            index["ann_index_config"] = {"kind": "flat"}
        self.store = self.opened.enter_context(
            PostgresStore.from_conn_string(
                self.there(), index=index, pool_config={"min_size": 1, "max_size": 10}
            )
        )
        self.store.setup()
        with psycopg.connect(self.there(), autocommit=True) as conn:
            look = "SELECT indexdef FROM pg_indexes WHERE schemaname = %s AND indexdef LIKE '%%USING hnsw%%'"
            found = conn.execute(look, [self.schema]).fetchone()
            self.definition = found[0] if found else ""
            if found:
                conn.execute("DROP INDEX store_vectors_embedding_idx")

    def index(self) -> None:
        if self.definition:
            _execute(self.there(), self.definition)

    def prepare(self, turns: Sequence[Turn]) -> list[PutOp]:
        return [PutOp(turn.namespace, turn.key, {"text": turn.text, **_metadata(turn)}) for turn in turns]

    def write(self, prepared: list[PutOp]) -> None:
        self.store.batch(prepared)

    def search(self, question: Question) -> list[str]:
        return [item.key for item in self.store.search(question.namespace, query=question.text, limit=K)]

    def rows(self, table: str, turns: Iterable[Turn]) -> Iterator[tuple[Any, ...]]:
        for turn in turns:
            head = (".".join(turn.namespace), turn.key)
            if table == "store":
                yield (*head, Jsonb({"text": turn.text, **_metadata(turn)}))
            else:
                yield (*head, "text", Vector(turn.vector))


class LangChain(Peer):
    """PGVectorStore: no index by default; `apply_vector_index(HNSWIndex())`; a column with a btree."""

    package, install = "langchain-postgres", "pip install --no-deps langchain-postgres"
    settings = (HNSW, FLAT, INDEXED)
    table = "memories"

    def create(self) -> None:
        from langchain_postgres import PGEngine, PGVectorStore
        from langchain_postgres.v2.engine import Column

        column = [Column("namespace", "TEXT", nullable=False)] if self.setting == INDEXED else None
        engine = PGEngine.from_connection_string(self.url("psycopg"))
        self.opened.callback(lambda: engine._run_as_sync(engine.close()))
        engine.init_vectorstore_table(
            self.table, DIMENSION, schema_name=self.schema, metadata_columns=list(column or ())
        )
        self.store = PGVectorStore.create_sync(
            engine,
            self.embeddings,
            self.table,
            schema_name=self.schema,
            metadata_columns=["namespace"] if column else None,
        )
        self.copied = {
            self.table: {
                "langchain_id": "uuid",
                "content": "text",
                "embedding": "vector",
                **({"namespace": "text"} if column else {}),
                "langchain_metadata": "json",
            }
        }

    def index(self) -> None:
        from langchain_postgres.v2.indexes import HNSWIndex

        if self.setting == HNSW:
            self.store.apply_vector_index(HNSWIndex())
        elif self.setting == INDEXED:
            _execute(self.there(), f"CREATE INDEX ON {self.table} (namespace)")

    def prepare(self, turns: Sequence[Turn]) -> dict[str, list[Any]]:
        return {
            "texts": [turn.text for turn in turns],
            "embeddings": [turn.vector.tolist() for turn in turns],
            "metadatas": [{"namespace": ".".join(turn.namespace), **_metadata(turn)} for turn in turns],
            "ids": [_id(turn) for turn in turns],
        }

    def write(self, prepared: dict[str, list[Any]]) -> None:
        self.store.add_embeddings(**prepared)

    def search(self, question: Question) -> list[str]:
        where = {"namespace": ".".join(question.namespace)}
        found = self.store.similarity_search(question.text, k=K, filter=where)
        return [document.metadata["key"] for document in found]

    def rows(self, table: str, turns: Iterable[Turn]) -> Iterator[tuple[Any, ...]]:
        for turn in turns:
            metadata, namespace = _metadata(turn), ".".join(turn.namespace)
            column: tuple[str, ...] = (namespace,)
            if self.setting != INDEXED:
                metadata, column = {"namespace": namespace, **metadata}, ()
            yield (uuid.UUID(_id(turn)), turn.text, Vector(turn.vector), *column, Json(metadata))


class LlamaIndex(Peer):
    """PGVectorStore: no index by default; `hnsw_kwargs` as documented; `indexed_metadata_keys`."""

    package, install = "llama-index-vector-stores-postgres", "pip install llama-index-vector-stores-postgres"
    settings = (HNSW, FLAT, INDEXED)
    copied: ClassVar = {
        "data_memories": {"node_id": "varchar", "text": "varchar", "metadata_": "json", "embedding": "vector"}
    }

    def create(self) -> None:
        from llama_index.vector_stores.postgres import PGVectorStore

        self.store = PGVectorStore.from_params(
            connection_string=self.url("psycopg2"),
            async_connection_string=self.url("asyncpg"),
            table_name="memories",
            schema_name=self.schema,
            embed_dim=DIMENSION,
            indexed_metadata_keys={("namespace", "text")} if self.setting == INDEXED else None,
        )
        self.opened.callback(lambda: self.store.client.dispose())
        self.store.add([])  # makes the tables

    def index(self) -> None:
        if self.setting == HNSW:
            self.store.hnsw_kwargs = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40}
            self.store._create_hnsw_index()

    def prepare(self, turns: Sequence[Turn]) -> list[Any]:
        return [self._node(turn, turn.vector.tolist()) for turn in turns]

    def write(self, prepared: list[Any]) -> None:
        self.store.add(prepared)

    def search(self, question: Question) -> list[str]:
        from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery

        where = MetadataFilters(filters=[MetadataFilter(key="namespace", value=".".join(question.namespace))])
        query = VectorStoreQuery(query_embedding=question.vector, similarity_top_k=K, filters=where)
        return [node.metadata["key"] for node in self.store.query(query).nodes or ()]

    def rows(self, table: str, turns: Iterable[Turn]) -> Iterator[tuple[Any, ...]]:
        from llama_index.core.vector_stores.utils import node_to_metadata_dict

        for turn in turns:
            metadata = node_to_metadata_dict(self._node(turn), remove_text=True, flat_metadata=False)
            yield (_id(turn), turn.text, Json(metadata), Vector(turn.vector))

    def _node(self, turn: Turn, vector: list[float] | None = None) -> Any:
        from llama_index.core.schema import TextNode

        metadata = {"namespace": ".".join(turn.namespace), **_metadata(turn)}
        return TextNode(id_=_id(turn), text=turn.text, metadata=metadata, embedding=vector)


class Mem0(Peer):
    """Its vector store, PGVector, without its models; `hnsw=True` is its default; the btree is by hand."""

    package, install = "mem0ai", "pip install mem0ai"
    settings = (HNSW, FLAT, INDEXED)
    copied: ClassVar = {"memories": {"id": "uuid", "vector": "vector", "payload": "jsonb"}}

    def create(self) -> None:
        from mem0.vector_stores.pgvector import PGVector as Store

        # The pool is the one that it would make, on our DSN.
        pool = ConnectionPool(self.there(), min_size=1, max_size=5, open=True)
        self.opened.callback(pool.close)
        nothing: Any = None
        self.store = Store(
            *(nothing, "memories", DIMENSION, nothing, nothing, nothing, nothing),
            diskann=False,
            hnsw=False,
            connection_pool=pool,
        )
        self.store.create_col()
        self.store._collection_ensured = True  # it looks for its tables in the schema public

    def index(self) -> None:
        if self.setting == HNSW:
            _execute(self.there(), "CREATE INDEX ON memories USING hnsw (vector vector_cosine_ops)")
        elif self.setting == INDEXED:
            _execute(self.there(), "CREATE INDEX ON memories ((payload->>'user_id'))")

    def prepare(self, turns: Sequence[Turn]) -> dict[str, list[Any]]:
        return {
            "vectors": [turn.vector.tolist() for turn in turns],
            "payloads": [self._payload(turn) for turn in turns],
            "ids": [_id(turn) for turn in turns],
        }

    def write(self, prepared: dict[str, list[Any]]) -> None:
        self.store.insert(**prepared)

    def search(self, question: Question) -> list[str]:
        where = {"user_id": ".".join(question.namespace)}
        found = self.store.search(question.text, question.vector, top_k=K, filters=where)
        return [(hit.payload or {})["key"] for hit in found]

    def rows(self, table: str, turns: Iterable[Turn]) -> Iterator[tuple[Any, ...]]:
        for turn in turns:
            yield (uuid.UUID(_id(turn)), Vector(turn.vector), Jsonb(self._payload(turn)))

    def _payload(self, turn: Turn) -> dict[str, Any]:
        return {"data": turn.text, "user_id": ".".join(turn.namespace), **_metadata(turn)}


MODULES = {
    LangGraph: "langgraph.store.postgres",
    LangChain: "langchain_postgres",
    LlamaIndex: "llama_index.vector_stores.postgres",
    Mem0: "mem0.vector_stores.pgvector",
}


def installed(show: Callable[[str], None]) -> list[type[Peer]]:
    """The peers that are here; of each other one, a line that says how to install it."""
    # mem0 writes a file into the home directory, and would tell its makers that it was imported.
    os.environ["MEM0_TELEMETRY"] = "False"
    os.environ.setdefault("MEM0_DIR", tempfile.mkdtemp(prefix="mem0-"))
    found = []
    for peer, module in MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError:
            show(f"without {peer.package}: {peer.install} (benchmarks/README.md)")
        else:
            found.append(peer)
    return found


@contextmanager
def bare(dsn: str) -> Iterator[Answer]:
    """An exact vector search and nothing else: one prepared statement, binary both ways, no pool."""
    statement = (
        "SELECT key, text FROM memgraph_plugin.memory WHERE namespace = %s "
        "ORDER BY (embedding <=> %b) + 0 LIMIT 10"
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        register_vector(conn)

        def answer(question: Question) -> list[str]:
            parameters = [".".join(question.namespace), HalfVector(question.vector)]
            rows = conn.execute(statement, parameters, prepare=True, binary=True).fetchall()
            return [row[0] for row in rows]

        yield answer


def insert(turn: Turn) -> Insert:
    return Insert(
        text=turn.text,
        kind="turn",
        key=turn.key,
        session=turn.session,
        position=turn.position,
        embedding=turn.vector.tolist(),
    )


def _metadata(turn: Turn) -> dict[str, Any]:
    return {"key": turn.key, "kind": "turn", "session": turn.session, "position": turn.position}


def _id(turn: Turn) -> str:
    name = f"{'.'.join(turn.namespace)}.{turn.key}"
    return str(uuid.UUID(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()))


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET maintenance_work_mem = '2GB'")
        conn.execute(statement.encode())
