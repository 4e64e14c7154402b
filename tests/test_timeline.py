"""The timeline against a calendar kept day by day, over random histories; and its odd corners."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memgraph_plugin.store import schema
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.sealing import AesGcmSealer, new_key
from memgraph_plugin.store.sql import MIGRATIONS
from memgraph_plugin.store.timeline import replay
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Insert, Memory, MemoryVersion, Receipts, Update

ADA = ("memories", "ada")
DAYS = 12
"""Of the world, which the calendar knows one by one; the last has no end."""


def day(number: int | None) -> datetime | None:
    return None if number is None else datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number)


class Calendar:
    """One memory as a list of days: another way to the same answers, of which nothing is shared."""

    def __init__(self) -> None:
        self.states: list[tuple[list[int | None], list[int | None], int, int]] = []
        """After each version: the days without the last thing that was said, with it, and its own bounds."""
        self.there = False

    def say(self, what: int, mode: str, since: int | None, until: int | None) -> bool:
        nothing: list[int | None] = [None] * DAYS
        below, days, old_since, old_until = self.states[-1] if self.there else (nothing, nothing, 0, DAYS)
        if mode == "insert":
            below, since, until = nothing, since or 0, until or DAYS
        elif mode == "supersede":
            assert since is not None
            below, until = days, until or DAYS
        else:
            since = old_since if since is None else since
            until = until or old_until
        if since >= until:
            return False
        said = [what if since <= d < until else None for d in range(since, DAYS)]
        self.states.append((below, below[:since] + said, since, until))
        self.there = True
        return True

    def delete(self) -> None:
        self.states.append(([None] * DAYS, [None] * DAYS, 0, DAYS))
        self.there = False

    def restore(self, version: int) -> None:
        self.states.append(self.states[version - 1])
        self.there = True


steps = st.lists(
    st.tuples(
        st.sampled_from(["insert", "correct", "refine", "supersede", "supersede", "delete", "undo", "undo"]),
        st.sampled_from("ab"),
        st.one_of(st.none(), st.integers(0, DAYS - 1)),
        st.one_of(st.none(), st.integers(1, DAYS - 1)),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=14,
)


def lived(store: MemoryStore, steps: list[Any]) -> None:
    """Do these steps to a namespace of their own, and compare every day as it was known after each step."""
    namespace = ("lived", uuid.uuid4().hex)
    calendars = {key: Calendar() for key in "ab"}
    batches: list[Receipts] = []
    known: list[tuple[datetime, dict[str, list[int | None]]]] = []
    for number, (what, key, since, until, back) in enumerate(steps):
        calendar = calendars[key]
        if what == "undo":
            if len(batches) <= back:
                continue
            batches.append(store.undo(namespace, batches[-1 - back].batch_id))
            for receipt, undone in zip(batches[-1].receipts, batches[-2 - back].applied, strict=True):
                assert receipt.key is not None
                calendar = calendars[receipt.key]
                assert (receipt.status == "applied") == (len(calendar.states) == undone.version)
                if receipt.status == "applied" and undone.operation == "insert":
                    calendar.delete()
                elif receipt.status == "applied":
                    calendar.restore((undone.version or 0) - 1)
        elif what == "delete":
            batches.append(store.apply(namespace, [Delete(key=key)]))
            assert bool(batches[-1].applied) == calendar.there
            if calendar.there:
                calendar.delete()
        else:
            if what == "insert" or (what == "supersede" and since is None):
                since = since or 0
            bounds = {"valid_from": day(since), "valid_to": day(until)}
            text, value = f"{what} {number}", {"n": number}
            operation = (
                Insert(key=key, text=text, value=value, **bounds)  # type: ignore[arg-type]
                if what == "insert"
                else Update(key=key, text=text, value=value, mode=what, **bounds)
            )
            batches.append(store.apply(namespace, [operation]))
            possible = calendar.there != (what == "insert")
            assert bool(batches[-1].applied) == (possible and calendar.say(number, what, since, until))
        now = store.log(namespace, limit=1)[0].recorded_at
        days = {key: each.states[-1][1] for key, each in calendars.items() if each.states}
        known.append((now, days))
    for moment, days in known:
        for d in range(DAYS):
            found = store.as_of(namespace, valid_at=day(d), known_at=moment)
            expected = {key: each[d] for key, each in days.items() if each[d] is not None}
            assert {memory.key: memory.value["n"] for memory in found} == expected
    for key, calendar in calendars.items():
        if calendar.states:
            history = store.history(namespace, key)
            last, item = replay(history), store.get(namespace, key)
            assert (last and last.value) == (item and item.value)
            for line in history:
                if line.superseded_by is not None:
                    assert line.memory is not None
                    assert line.memory.valid_to is not None


@given(steps)
@settings(max_examples=150, deadline=None)
def test_every_day_was_as_it_was_told_and_known(steps: list[Any]) -> None:
    lived(InMemoryMemoryStore(), steps)


@pytest.fixture
def lasting(dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(dsn) as store:
        yield store


@given(steps)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_it_was_in_postgres(lasting: PostgresMemoryStore, steps: list[Any]) -> None:
    lived(lasting, steps)


def line(version: int, operation: str, text: str | None = None, **more: Any) -> MemoryVersion:
    memory = None if text is None else Memory(namespace=ADA, key="k", text=text, version=version)
    at = datetime(2026, 1, 1, version, tzinfo=UTC)
    return MemoryVersion(
        key="k",
        version=version,
        memory=memory,
        operation=operation,
        **{"recorded_at": at, **more},  # type: ignore[arg-type]
    )


def test_a_log_that_no_store_can_have_written_does_not_replay() -> None:
    first = line(1, "insert", "x")
    assert replay([]) is None
    early = datetime(2025, 1, 1, tzinfo=UTC)
    for lines in (
        [line(1, "update", "x")],
        [line(1, "delete")],
        [line(2, "insert", "x")],
        [first, line(2, "insert", "y")],
        [first, line(3, "update", "y")],
        [first, line(2, "update", "y", recorded_at=early)],
        [first, line(2, "delete"), line(3, "delete")],
    ):
        with pytest.raises(ValueError, match="'k', line"):
            replay(lines)
    memory = replay([first, line(2, "delete"), line(3, "insert", "z")])
    assert memory is not None
    assert memory.created_at == datetime(2026, 1, 1, 3, tzinfo=UTC)


VERSION_ONE = """
    INSERT INTO migration (number) VALUES (1);
    INSERT INTO operation_batch SELECT 'memories.ada', ('00000000-0000-0000-0000-00000000000' || n)::uuid, NULL, 'ada',
        '', jsonb_build_array(jsonb_build_object('operation', what, 'status', 'applied', 'key', 'k', 'version', n)),
        '2020-01-01Z'::timestamptz + n * interval '1 day'
    FROM (VALUES (1, 'insert'), (2, 'update'), (3, 'update')) AS lines (n, what);
    INSERT INTO memory_version (namespace, key, version, batch_id, operation, mode, reason, evidence, kind, value, text,
        importance, source, valid_from, recorded_at)
    SELECT 'memories.ada', 'k', n, ('00000000-0000-0000-0000-00000000000' || n)::uuid, what, mode, '', '{}', 'semantic',
        jsonb_build_object('text', said), said, 0.5, '', '2020-01-01Z'::timestamptz + least(n, 2) * interval '1 day',
        '2020-01-01Z'::timestamptz + n * interval '1 day'
    FROM (VALUES (1, 'insert', NULL, 'in Lisbon'), (2, 'update', 'supersede', 'in Porto'),
        (3, 'update', 'refine', 'in Faro')) AS lines (n, what, mode, said);
    INSERT INTO memory (namespace, key, kind, version, value, text, language, tokens, importance, source, valid_from,
        created_at, updated_at)
    VALUES ('memories.ada', 'k', 'semantic', 3, '{"text": "in Faro"}', 'in Faro', 'german', 2, 0.5, '', '2020-01-03Z',
        '2020-01-02Z', '2020-01-04Z');
"""  # noqa: E501


def test_what_version_one_stored_comes_along(empty_dsn: str) -> None:
    """A database of the first schema: its memories are read on both axes, and its batches undone."""
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector; CREATE SCHEMA memgraph_plugin")
        conn.execute("SET search_path TO memgraph_plugin, public")
        conn.execute(MIGRATIONS[1].encode())
        conn.execute(VERSION_ONE.encode())
    assert schema.migrate(empty_dsn, "memgraph_plugin") == sorted(MIGRATIONS)[1:]
    with PostgresMemoryStore(empty_dsn) as store:
        assert [memory.text for memory in store.as_of(ADA, valid_at=day(1))] == ["in Lisbon"]
        assert [memory.text for memory in store.as_of(ADA)] == ["in Faro"]
        assert [memory.text for memory in store.as_of(ADA, known_at=day(2))] == ["in Porto"]
        assert [hit.memory.text for hit in store.recall(ADA, "Lisbon", valid_at=day(1))] == ["in Lisbon"]
        assert store.undo(ADA, store.log(ADA)[0].batch_id).applied
        assert [hit.memory.text for hit in store.recall(ADA, "Porto")] == ["in Porto"]
        assert replay(store.history(ADA, "k")) == store.recall(ADA, "")[0].memory
    with psycopg.connect(empty_dsn) as conn:
        found = conn.execute("SELECT language, created_at FROM memgraph_plugin.memory").fetchone()
        assert found == ("german", day(1))


def test_a_sealed_past_is_read_and_brought_back(dsn: str) -> None:
    sealer = AesGcmSealer.parse(new_key("2026"))
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(), sealer=sealer) as store:
        store.apply(
            ADA, [Insert(key="k", text="owns a borzoi", valid_from=day(1)), Insert(text="paints fences")]
        )
        moved = store.apply(ADA, [Update(key="k", text="owns a parrot", mode="supersede", valid_from=day(5))])
        then = store.recall(ADA, "borzoi", valid_at=day(2))
        assert then[0].memory.text == "owns a borzoi"
        assert then[0].cosine is not None
        assert then[0].cosine > 0.3
        store.undo(ADA, moved.batch_id)
        assert store.recall(ADA, "borzoi")[0].memory.text == "owns a borzoi"
        assert store.log(ADA)[0].receipts[0].reason == f"undo of {moved.batch_id}"


def test_a_version_of_another_life_is_not_undone(dsn: str) -> None:
    """A key that was swept with its history and begun anew has the same numbers, and is not the same."""
    with PostgresMemoryStore(dsn) as store:
        batch = store.apply(ADA, [Insert(key="k", text="old")])
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("DELETE FROM memgraph_plugin.memory; DELETE FROM memgraph_plugin.memory_version")
        assert store.undo(ADA, batch.batch_id).receipts[0].code == "version_conflict"
        store.apply(ADA, [Insert(key="k", text="new")])
        assert store.undo(ADA, batch.batch_id).receipts[0].code == "version_conflict"
        assert store.recall(ADA, "")[0].memory.text == "new"


def test_vectors_are_made_before_a_transaction_and_only_for_texts_of_the_past(dsn: str) -> None:
    class Counting(HashingEmbeddings):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[str] = []

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            with psycopg.connect(dsn) as conn:
                busy = conn.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND backend_xid IS NOT NULL"
                ).fetchone()
                assert busy == (0,)
            self.asked += texts
            return super().embed_documents(texts)

    model = Counting()
    with PostgresMemoryStore(dsn, embeddings=model) as store:
        store.apply(ADA, [Insert(key="a", text="tea"), Insert(key="b", text="mate")])
        changed = store.apply(ADA, [Update(key="a", text="green tea")])
        first = store.log(ADA)[1].recorded_at
        model.asked.clear()
        assert {hit.memory.text for hit in store.recall(ADA, "tea", known_at=first)} == {"tea", "mate"}
        assert model.asked == ["tea"]
        store.undo(ADA, changed.batch_id)
        assert model.asked == ["tea", "tea"]
        assert replace(store.recall(ADA, "tea", k=1)[0].memory, version=1).text == "tea"
