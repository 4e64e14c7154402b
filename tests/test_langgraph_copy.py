"""From LangGraph's PostgresStore to ours: everything arrives, once, and what cannot is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from langgraph.store.base import PutOp
from langgraph.store.postgres import PostgresStore
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable
from memgraph_plugin.store import langgraph_copy
from memgraph_plugin.store.langgraph_copy import copy_langgraph_store
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings

ADA = ("memories", "ada")


@pytest.fixture
def source(empty_dsn: str) -> str:
    index: Any = {"dims": 256, "embed": HashingEmbeddings()}
    with PostgresStore.from_conn_string(empty_dsn, index=index) as theirs:
        theirs.setup()
        theirs.batch([PutOp(ADA, f"{n:02}", {"text": f"note {n} on tea", "n": n}) for n in range(20)])
        theirs.put(("memories", "bob"), "", {"deep": {"er": [1, None]}})
        theirs.put(ADA, "short", {"text": "a while"}, ttl=90)
        theirs.put(ADA, "expired", {"text": "gone"}, ttl=0)
    return empty_dsn


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        yield store


def run(dsn: str, statement: str, *parameters: object) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement.encode(), parameters)


def test_everything_arrives_with_its_times(source: str, store: PostgresMemoryStore, dsn: str) -> None:
    seen: list[tuple[int, int]] = []
    copied = copy_langgraph_store(source, store, progress=lambda done, total: seen.append((done, total)))
    assert (copied.new, copied.updated, copied.unchanged, copied.expired) == (22, 0, 0, 1)
    assert copied.refused == []
    assert seen == [(23, 23)]
    with PostgresStore.from_conn_string(source) as theirs:
        for space in (ADA, ("memories", "bob")):
            ours = {item.key: item for item in store.search(space, limit=50, refresh_ttl=False)}
            found = theirs.search(space, limit=50, refresh_ttl=False)
            its = {item.key: item for item in found if item.key != "expired"}
            assert {key: item.dict() | {"score": None} for key, item in ours.items()} == {
                key: item.dict() for key, item in its.items()
            }
    assert store.search(ADA, query="note 7")[0].key == "07"
    with psycopg.connect(dsn) as conn, psycopg.connect(source) as there:
        theirs_then = there.execute("SELECT expires_at, 90.0 FROM store WHERE key = 'short'").fetchone()
        ours_then = conn.execute(
            "SELECT expires_at, ttl FROM memgraph_plugin.memory WHERE key = 'short'"
        ).fetchone()
    assert ours_then == theirs_then
    (line,) = store.history(ADA, "00")
    assert line.actor == langgraph_copy.ACTOR


def test_copying_again_copies_only_what_has_changed_there(source: str, store: PostgresMemoryStore) -> None:
    copy_langgraph_store(source, store)
    again = copy_langgraph_store(source, store)
    assert (again.new, again.updated, again.unchanged) == (0, 0, 22)
    store.delete(ADA, "00")
    store.put(ADA, "01", {"text": "changed here"})
    with PostgresStore.from_conn_string(source) as theirs:
        theirs.put(ADA, "02", {"text": "changed there"})
        theirs.put(ADA, "new", {"text": "new there"})
    again = copy_langgraph_store(source, store)
    assert (again.new, again.updated, again.unchanged) == (1, 1, 21)
    assert store.get(ADA, "00") is None
    assert [store.get(ADA, key).value["text"] for key in ("01", "02", "new")] == [  # type: ignore[union-attr]
        "changed here",
        "changed there",
        "new there",
    ]
    assert len(store.history(ADA, "02")) == 2


def test_a_copy_that_breaks_off_goes_on(
    source: str, store: PostgresMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(langgraph_copy, "PAGE", 5)

    def break_off(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_langgraph_store(source, store, progress=break_off)
    assert store.count(()) == 10
    copied = copy_langgraph_store(source, store)
    assert (copied.new, copied.unchanged) == (12, 10)


def test_what_cannot_be_stored_is_listed(source: str, store: PostgresMemoryStore) -> None:
    for prefix, key, value in (
        ("", "k", "{}"),
        ("a..b", "k", "{}"),
        (".", "k", "{}"),
        ("a", "k" * 1_100, "{}"),
        ("a", "list", "[1]"),
        ("a", "null", "null"),
        ("a", "digits", '{"n": ' + "9" * 5_000 + "}"),
        ("a", "deep", '{"a": ' + "[" * 200 + "]" * 200 + "}"),
        ("a", "fine", '{"n": 1}'),
    ):
        run(source, "INSERT INTO store (prefix, key, value) VALUES (%s, %s, %s::jsonb)", prefix, key, value)
    run(source, "UPDATE store SET created_at = NULL, updated_at = NULL WHERE key = 'fine'")
    copied = copy_langgraph_store(source, store)
    assert copied.new == 23
    assert sorted((prefix, key[:6]) for prefix, key, _ in copied.refused) == [
        ("", "k"),
        (".", "k"),
        *(("a", key) for key in ("deep", "digits", "kkkkkk", "list", "null")),
        ("a..b", "k"),
    ]
    assert all(reason for *_, reason in copied.refused)
    assert store.get(("a",), "fine").value == {"n": 1}  # type: ignore[union-attr]
    assert copy_langgraph_store(source, store).unchanged == 23


def test_a_source_that_is_none_is_refused(store: PostgresMemoryStore, dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="'public'"):
        copy_langgraph_store(dsn, store)
    with pytest.raises(DatabaseUnavailable):
        copy_langgraph_store("host=/nowhere", store)


def test_the_command_copies_and_says_what(source: str, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGRAPH_PLUGIN_DSN", dsn)
    monkeypatch.setenv("MEMGRAPH_PLUGIN_EMBEDDINGS", "none")
    command = ["migrate-from", "langgraph-store", "--dsn", source]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout) == (0, "22 new, 0 updated, 0 unchanged, 1 expired, 0 refused\n")
    run(source, "INSERT INTO store (prefix, key, value) VALUES ('a..b', 'k', '{}')")
    done = CliRunner().invoke(app, [*command, "--db-schema", "public"])
    assert done.exit_code == 1
    assert "0 new, 0 updated, 22 unchanged, 1 expired, 1 refused" in done.stdout
    assert "refused: 'a..b' 'k':" in done.stderr
