import io
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from rich.console import Console

from memgraph_plugin.doctor import Finding, examine, report, without_password
from memgraph_plugin.settings import Settings
from memgraph_plugin.store import roles
from memgraph_plugin.store.open import open_store
from memgraph_plugin.types import Insert


def settings(dsn: str, **more: Any) -> Settings:
    return Settings(**{"dsn": dsn, "embeddings": "none", **more})


def findings(given: Settings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(given)}


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def test_a_sound_installation_has_nothing_that_fails(dsn: str) -> None:
    out = io.StringIO()
    assert report(settings(dsn), Console(file=out, width=80)) == 0
    found = findings(settings(dsn))
    subjects = {
        "versions",
        "extra",
        "database",
        "Postgres",
        "pgvector",
        "role",
        "schema",
        "embeddings",
        "disk",
    }
    assert subjects <= found.keys()
    assert found["schema"].status == "ok"
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_a_database_that_is_not_there_fails_without_its_password() -> None:
    out = io.StringIO()
    given = settings("postgresql://ana:s3cret@127.0.0.1:1/none")
    assert report(given, Console(file=out, width=200)) == 1
    assert "fail  database" in out.getvalue()
    assert "MEMGRAPH_PLUGIN_DSN" in out.getvalue()
    assert "s3cret" not in out.getvalue()


@pytest.mark.parametrize("dsn", ["postgresql://ana:s3cret@@x:1:2/none", "host=x s3cret"])
def test_a_connection_string_that_cannot_be_read_is_not_quoted(dsn: str) -> None:
    database = findings(settings(dsn))["database"]
    assert database.status == "fail"
    assert "s3cret" not in database.found + without_password(dsn)


def test_tables_that_are_missing_are_a_warning_and_newer_ones_a_failure(empty_dsn: str, dsn: str) -> None:
    missing = findings(settings(empty_dsn))["schema"]
    assert (missing.status, missing.advice) == ("warn", "memgraph-plugin migrate")
    execute(dsn, "INSERT INTO memgraph_plugin.migration (number) VALUES (999)")
    newer = findings(settings(dsn))["schema"]
    assert (newer.status, newer.advice) == ("fail", "upgrade memgraph-plugin")


def test_vectors_of_another_model_fail_and_are_named(dsn: str) -> None:
    assert findings(settings(dsn, embeddings="local:minilm"))["embeddings"].status == "ok"
    execute(dsn, "INSERT INTO memgraph_plugin.embedding_model (name, dimension) VALUES ('openai:x', 8)")
    other = findings(settings(dsn, embeddings="local:minilm"))["embeddings"]
    assert other.status == "fail"
    assert "openai:x" in other.advice


def test_a_role_above_row_level_security_is_a_warning(dsn: str) -> None:
    role = findings(settings(dsn))["role"]
    assert role.status == "warn"
    assert "superuser" in role.found
    execute(dsn, "DROP ROLE IF EXISTS doctor_app", "CREATE ROLE doctor_app")
    try:
        roles.grant(dsn, "memgraph_plugin", "doctor_app", ("acme",))
        given = settings(make_conninfo(dsn, options="-c role=doctor_app"))
        bound = findings(given)
        assert {bound[each].status for each in ("role", "rows", "schema")} == {"ok"}
        assert "acme" in bound["rows"].found
        execute(dsn, "REVOKE INSERT, UPDATE ON memgraph_plugin.memory FROM doctor_app")
        assert "INSERT and UPDATE on memory" in findings(given)["rows"].found
        execute(dsn, "ALTER TABLE memgraph_plugin.memory_version DISABLE ROW LEVEL SECURITY")
        assert findings(given)["rows"].status == "fail"
        assert "off on memory_version" in findings(given)["rows"].found
        execute(dsn, "ALTER TABLE memgraph_plugin.memory OWNER TO doctor_app")
        assert "owner" in findings(given)["role"].found
    finally:
        execute(
            dsn,
            "REASSIGN OWNED BY doctor_app TO CURRENT_USER",
            "DROP OWNED BY doctor_app",
            "DROP ROLE doctor_app",
        )


def test_a_role_without_rights_is_a_failure_and_not_a_traceback(dsn: str) -> None:
    execute(dsn, "DROP ROLE IF EXISTS doctor_poor", "CREATE ROLE doctor_poor")
    try:
        out = io.StringIO()
        given = settings(make_conninfo(dsn, options="-c role=doctor_poor"))
        assert report(given, Console(file=out, width=200)) == 1
        assert "permission denied" in out.getvalue()
    finally:
        execute(dsn, "DROP ROLE doctor_poor")


def test_a_model_that_was_not_pulled_fails_and_says_how_to_get_it(dsn: str, tmp_path: Path) -> None:
    given = settings(dsn, cache_dir=tmp_path, chat_model="local:smollm2-135m-instruct")
    model = findings(given)["chat model"]
    assert model.status == "fail"
    assert "models pull smollm2" in model.found


def test_no_memory_is_read_out(dsn: str) -> None:
    with open_store(settings(dsn)) as store:
        store.apply(("memories", "ana"), [Insert(text="Ana keeps zebras.")])
    out = io.StringIO()
    report(settings(dsn), Console(file=out, width=200))
    assert "zebras" not in out.getvalue()
