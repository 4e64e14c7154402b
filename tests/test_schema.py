"""The schema and its migrations: equal, applied once, and clear about what is missing."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

from memgraph_plugin.errors import DatabaseUnavailable, SchemaOutOfDate, StoreError
from memgraph_plugin.store import schema
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.sql import MIGRATIONS, SCHEMA
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Insert

COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name,
        generation_expression
    FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, 2
"""
INDEXES = "SELECT replace(indexdef, %s, '') FROM pg_indexes WHERE schemaname = %s ORDER BY 1"
FUNCTIONS = """
    SELECT proname, replace(pg_get_functiondef(p.oid), %s, '') FROM pg_proc p
    JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %s ORDER BY 1
"""
GUARDED = (
    "SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check "
    "FROM pg_policies WHERE schemaname = %s ORDER BY 1, 2",
    "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class JOIN pg_namespace n "
    "ON n.oid = relnamespace WHERE nspname = %s AND relkind IN ('r', 'p') ORDER BY 1",
)


def described(conn: psycopg.Connection, name: str) -> list[object]:
    columns = [tuple(str(x).replace(f"{name}.", "") for x in row) for row in conn.execute(COLUMNS, [name])]
    indexes = conn.execute(INDEXES, [f"{name}.", name]).fetchall()
    functions = conn.execute(FUNCTIONS, [f"{name}.", name]).fetchall()
    return [columns, indexes, functions, *(conn.execute(query, [name]).fetchall() for query in GUARDED)]


def test_the_migrations_arrive_at_the_schema(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector")
        for name, texts in {"whole": [SCHEMA], "stepwise": MIGRATIONS.values()}.items():
            conn.execute(f"CREATE SCHEMA {name}".encode())
            conn.execute(f"SET search_path TO {name}, public".encode())
            for text in texts:
                conn.execute(text.encode())
        assert described(conn, "whole") == described(conn, "stepwise")
        with_namespace = {table for table, column, *_ in described(conn, "whole")[0] if column == "namespace"}
        assert with_namespace == {name for name, *on in described(conn, "whole")[-1] if all(on)}


def test_a_database_of_the_first_version_keeps_its_memories(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector; CREATE SCHEMA memory; SET search_path TO memory, public")
        conn.execute(MIGRATIONS[1].encode())
        conn.execute("INSERT INTO migration (number) VALUES (1)")
        conn.execute(
            "INSERT INTO memory (namespace, key, kind, version, value, text, language, tokens, importance, "
            "source, created_at, updated_at) "
            "VALUES ('a', 'k', 'turn', 1, '{}', 'likes tea', 'english', 2, 0.5, '', now(), now())"
        )
    assert schema.migrate(empty_dsn, "memory") == sorted(MIGRATIONS)[1:]
    with PostgresMemoryStore(empty_dsn, db_schema="memory") as store:
        assert store.recall(("a",), "tea")[0].memory.text == "likes tea"


def test_migrating_again_does_nothing(empty_dsn: str) -> None:
    assert schema.migrate(empty_dsn, "memory") == sorted(MIGRATIONS)
    assert schema.migrate(empty_dsn, "memory") == []


def test_processes_that_migrate_at_once_do_it_once(empty_dsn: str) -> None:
    applied: list[int] = []
    threads = [
        threading.Thread(target=lambda: applied.extend(schema.migrate(empty_dsn, "memory"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert applied == sorted(MIGRATIONS)


@pytest.mark.parametrize("name", ["Mixed Case", 'quo"te', "semi;colon", "bra{ce}"])
def test_a_schema_may_have_any_name(empty_dsn: str, name: str) -> None:
    with PostgresMemoryStore(empty_dsn, embeddings=HashingEmbeddings(), db_schema=name) as store:
        store.setup()
        store.apply(("a",), [Insert(text="likes tea", key="k")])
        assert store.recall(("a",), "tea")[0].memory.key == "k"


def test_a_newer_schema_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO memgraph_plugin.migration (number) VALUES (9999)")
    with pytest.raises(SchemaOutOfDate, match="upgrade the package"):
        schema.migrate(dsn, "memgraph_plugin")
    with PostgresMemoryStore(dsn) as store, pytest.raises(SchemaOutOfDate):
        store.get(("a",), "k")


def test_a_database_without_tables_says_what_to_run(empty_dsn: str) -> None:
    with (
        PostgresMemoryStore(empty_dsn) as store,
        pytest.raises(SchemaOutOfDate, match="memgraph-plugin migrate"),
    ):
        store.get(("a",), "k")


def test_no_database_is_a_clear_error_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        schema.migrate(f"host={tmp_path} password=tr0ub4dor dbname=x", "memory")
    assert "tr0ub4dor" not in str(caught.value)


def test_a_postgres_without_pgvector_says_what_to_install(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "EXTENSION", "vector_that_is_not_there")
    with pytest.raises(StoreError, match="pgvector"):
        schema.migrate(empty_dsn, "memory")


def test_pgvector_may_be_in_a_schema_of_its_own(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    with PostgresMemoryStore(empty_dsn) as store, pytest.raises(StoreError, match="halfvec"):
        store.setup()
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        path = 'ALTER DATABASE {} SET search_path TO "$user", public, extensions'
        conn.execute(sql.SQL(path).format(sql.Identifier(conn.info.dbname)))
    with PostgresMemoryStore(empty_dsn, embeddings=HashingEmbeddings()) as store:
        store.setup()
        store.put(("a",), "k", {"text": "likes tea"})
        assert store.recall(("a",), "tea")[0].cosine


def test_a_role_without_rights_is_told_what_to_ask_for(empty_dsn: str) -> None:
    role = f"poor_{uuid.uuid4().hex[:8]}"
    poor = conninfo.make_conninfo(empty_dsn, user=role)
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN")
        try:
            with pytest.raises(StoreError, match="CREATE EXTENSION vector"):
                schema.migrate(poor, "memory")
            schema.migrate(empty_dsn, "memory")
            with PostgresMemoryStore(poor, db_schema="memory") as store:
                with pytest.raises(StoreError, match="permission denied"):
                    store.get(("a",), "k")
                conn.execute(f"GRANT USAGE ON SCHEMA memory TO {role}")
                conn.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA memory TO {role}")
                store.put(("a",), "k", {"text": "likes tea"})
                assert store.recall(("a",), "tea")
        finally:
            conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
