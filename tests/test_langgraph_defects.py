"""What LangGraph's Postgres stores get wrong, and ours do not, where it takes a look into the database.

Most of it is in the conformance suite (`docs/conformance.md`): numeric filters, filters on null and on dicts,
stale vectors, pages of a query, values that are no JSON, fractions of a minute to live, order, and changing
what is stored. LangGraph's are strictly expected to fail: when upstream mends one, it is heard of here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from langgraph.store.postgres import PostgresStore

from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing.conformance import INDEX

both = pytest.mark.parametrize(
    "opened",
    [
        pytest.param(PostgresStore.from_conn_string, marks=pytest.mark.xfail(strict=True), id="theirs"),
        pytest.param(PostgresMemoryStore.from_conn_string, id="ours"),
    ],
)
Opened = Callable[..., Any]


@both
def test_a_setup_that_fails_leaves_nothing_behind(empty_dsn: str, opened: Opened) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("""
            CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'no indexes today'; END $$;
            CREATE EVENT TRIGGER no_indexes ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
                EXECUTE FUNCTION refuse()
        """)
        with (
            pytest.raises(Exception, match="no indexes today"),
            opened(empty_dsn, index=INDEX) as store,
        ):
            store.setup()
        left = "SELECT FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        assert conn.execute(left.encode()).fetchall() == []


@both
def test_the_tables_are_set_up_in_one_transaction(empty_dsn: str, opened: Opened) -> None:
    """Rows of one transaction have one xmin: so have tables in the catalog."""
    with opened(empty_dsn, index=INDEX) as store:
        store.setup()
    with psycopg.connect(empty_dsn) as conn:
        made = conn.execute(
            "SELECT DISTINCT xmin::text FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace NOT IN "
            "('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace)"
        ).fetchall()
    assert len(made) == 1
