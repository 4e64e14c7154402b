"""A real Postgres for every test that asks: one template database a session, a clone a test."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import conninfo, sql

for contract in (
    *("store", "langgraph", "operations", "recall", "time", "undo", "forget", "portability", "compressed"),
):
    pytest.register_assert_rewrite(f"memgraph_plugin.testing.{contract}_contract")

pytest.register_assert_rewrite("memgraph_plugin.testing.conformance")

from memgraph_plugin.store import schema  # noqa: E402
from memgraph_plugin.store.embedded import EmbeddedPostgres  # noqa: E402

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background, as by nohup: what tests start would not hear Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a server: MEMGRAPH_PLUGIN_TEST_DSN, or a private one for this session."""
    if dsn := os.environ.get("MEMGRAPH_PLUGIN_TEST_DSN"):
        yield dsn
        return
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    try:
        dsn = server.ensure()
        with psycopg.connect(dsn, autocommit=True) as conn:
            for setting in ("fsync", "full_page_writes"):  # nothing here outlives the session
                conn.execute(f"ALTER SYSTEM SET {setting} = off".encode())
            conn.execute("SELECT pg_reload_conf()")
        yield dsn
    finally:
        server.stop()


@pytest.fixture(scope="session")
def template(postgres: str) -> Iterator[str]:
    """The name of a database with our tables in it."""
    name = f"template_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    schema.migrate(conninfo.make_conninfo(postgres, dbname=name), "memgraph_plugin")
    yield name
    _drop(postgres, name)


@pytest.fixture
def dsn(postgres: str, template: str) -> Iterator[str]:
    """The connection string of a database of this test's own, with our tables in it."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres, autocommit=True) as conn:
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        conn.execute(clone.format(sql.Identifier(name), sql.Identifier(template)))
    yield conninfo.make_conninfo(postgres, dbname=name)
    _drop(postgres, name)


@pytest.fixture(scope="session")
def _shared(postgres: str, template: str) -> Iterator[str]:
    name = f"shared_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres, autocommit=True) as conn:
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        conn.execute(clone.format(sql.Identifier(name), sql.Identifier(template)))
    yield conninfo.make_conninfo(postgres, dbname=name)
    _drop(postgres, name)


@pytest.fixture
def shared_dsn(_shared: str) -> str:
    """The connection string of a database that tests share, its tables emptied: for those that alter none."""
    empty(_shared)
    return _shared


@pytest.fixture
def empty_dsn(postgres: str) -> Iterator[str]:
    """The connection string of a database of this test's own, with nothing in it."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield conninfo.make_conninfo(postgres, dbname=name)
    _drop(postgres, name)


def empty(dsn: str) -> None:
    """Leave our tables as the migrations made them."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        tables = conn.execute(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class "
            "WHERE relnamespace = 'memgraph_plugin'::regnamespace AND relname <> 'migration' "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        ).fetchone()
        assert tables is not None
        conn.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY".encode())


def _drop(postgres: str, name: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
