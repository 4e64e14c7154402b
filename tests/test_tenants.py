"""Row-level security: what a role may see and write, whatever it sends, and what the store does about it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchItem, SearchOp
from psycopg import conninfo, sql
from typer.testing import CliRunner

from benchmarks import leaks
from memgraph_plugin.cli import app
from memgraph_plugin.errors import ConfigurationError, NamespaceDenied, StoreError
from memgraph_plugin.store import roles, visibility
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.conformance import TTL
from memgraph_plugin.testing.operations_contract import OperationsContract
from memgraph_plugin.testing.store_contract import StoreContract
from memgraph_plugin.types import Delete, Held, Insert, Update

ACME, CORP = ("acme", "ana"), ("acme-corp", "bo")
TABLES = ("memory", "memory_version", "operation_batch", "kv_memory", "kv_part", "quarantine")


@pytest.fixture
def role(dsn: str) -> Iterator[str]:
    """A login role without rights, and without anything when the test is over."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN")
        yield name
        leaks.drop_role(conn, name)


@pytest.fixture
def app_dsn(dsn: str, role: str) -> str:
    """The connection string of an application's role, as `migrate --role` leaves it."""
    roles.grant(dsn, "memgraph_plugin", role)
    return conninfo.make_conninfo(dsn, user=role)


@pytest.fixture
def store(app_dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(app_dsn, embeddings=HashingEmbeddings()) as store:
        yield store


class TestUnderRowLevelSecurity(StoreContract):
    """All that a store promises, of one that its role's rows are hidden from."""

    @pytest.fixture
    def dsn(self, shared_dsn: str) -> str:
        return shared_dsn

    @pytest.fixture
    def store(self, app_dsn: str) -> Iterator[PostgresMemoryStore]:
        with PostgresMemoryStore(app_dsn, embeddings=HashingEmbeddings(), ttl=TTL) as store:
            yield store


class TestAsyncUnderRowLevelSecurity(OperationsContract):
    @pytest.fixture
    def dsn(self, shared_dsn: str) -> str:
        return shared_dsn

    @pytest.fixture
    async def store(self, app_dsn: str) -> AsyncIterator[AsyncPostgresMemoryStore]:
        async with AsyncPostgresMemoryStore(app_dsn, embeddings=HashingEmbeddings(), ttl=TTL) as store:
            yield store


def seen(conn: psycopg.Connection, scope: str | None, table: str = "memory") -> set[str]:
    with conn.transaction():
        if scope is not None:
            conn.execute(visibility.SET_SCOPE, [scope])
        return {name for (name,) in conn.execute(f"SELECT namespace FROM memgraph_plugin.{table}".encode())}


@pytest.mark.parametrize("table", TABLES)
def test_raw_sql_sees_its_scope_and_what_is_below(
    store: PostgresMemoryStore, app_dsn: str, table: str
) -> None:
    everybody = [("acme",), ACME, CORP, ("acmf",), ("acme ", "x"), ("acme/x",), ("ACME",)]
    for namespace in everybody:
        held = Held(operation=Insert(text="likes tea"), code="secret")
        store.apply(namespace, [Insert(text="likes tea", key="k")], held=[held])
        store.save_kv(namespace, "k", {}, [b"likes tea"])
    with psycopg.connect(app_dsn, autocommit=True) as conn:
        assert seen(conn, "acme", table) == {"acme", "acme.ana"}
        assert seen(conn, "acme.ana", table) == {"acme.ana"}
        assert seen(conn, ".", table) == {".".join(namespace) for namespace in everybody}
        for nothing in (None, "", "acm", "acme.", "acme/", "%", "*", "acme-corp.b", "'", "\\"):
            assert seen(conn, nothing, table) == set()


def test_a_row_of_another_scope_cannot_be_written(store: PostgresMemoryStore, app_dsn: str) -> None:
    store.apply(ACME, [Insert(text="likes tea", key="k")])
    store.apply(CORP, [Insert(text="likes milk", key="k")])
    memory = "memgraph_plugin.memory"
    with psycopg.connect(app_dsn, autocommit=True) as conn:
        for statement in (
            f"UPDATE {memory} SET namespace = 'acme-corp.bo', key = 'stolen'",
            "INSERT INTO memgraph_plugin.memory_version SELECT (jsonb_populate_record(v, "
            '\'{"namespace": "acme-corp.bo"}\')).* FROM memgraph_plugin.memory_version AS v',
            "INSERT INTO memgraph_plugin.operation_batch VALUES "
            "('acme-corp.bo', gen_random_uuid(), NULL, '', '', '[]', now())",
        ):
            with conn.transaction(force_rollback=True):
                conn.execute(visibility.SET_SCOPE, ["acme.ana"])
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                    conn.execute(statement.encode())
        with conn.transaction():
            conn.execute(visibility.SET_SCOPE, ["acme.ana"])
            conn.execute(f"DELETE FROM {memory}".encode())
    assert [hit.memory.text for hit in store.recall(CORP, "likes")] == ["likes milk"]
    assert store.get(ACME, "k") is None


def test_a_role_is_bound_to_its_tenant_whatever_it_sends(dsn: str, role: str, app_dsn: str) -> None:
    with PostgresMemoryStore(dsn) as all_of_it:
        for namespace in (("acme",), ACME, CORP):
            all_of_it.apply(namespace, [Insert(text="likes tea", key="k")])
    roles.grant(dsn, "memgraph_plugin", role, ("globex",))
    roles.grant(dsn, "memgraph_plugin", role, ("acme",))
    with PostgresMemoryStore(app_dsn) as store:
        assert {item.namespace for item in store.search(())} == {("acme",), ACME}
        assert store.list_namespaces() == [("acme",), ACME]
        assert store.get(CORP, "k") is None
        with pytest.raises(NamespaceDenied, match="may not write"):
            store.apply(CORP, [Insert(text="likes gin")])
        with pytest.raises(NamespaceDenied):
            store.batch([PutOp(ACME, "new", {"text": "x"}), PutOp(CORP, "k", {"text": "likes gin"})])
        assert store.get(ACME, "new") is None
        store.put(ACME, "k", {"text": "likes milk"})
    with psycopg.connect(app_dsn, autocommit=True) as conn:
        assert seen(conn, ".") == {"acme", "acme.ana"}
        assert seen(conn, "acme-corp") == set()
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET search_path TO memgraph_plugin, public")
        conn.execute("CREATE TABLE later (namespace text); SELECT guard('later')")
        conn.execute("INSERT INTO later VALUES ('acme'), ('acme-corp')")
        conn.execute(f"GRANT SELECT ON later TO {role}")
    with psycopg.connect(app_dsn, autocommit=True) as conn:
        assert seen(conn, ".", "later") == {"acme"}


def test_the_setting_does_not_outlive_its_transaction(app_dsn: str) -> None:
    with PostgresMemoryStore(app_dsn, max_size=1) as store:
        store.apply(ACME, [Insert(text="likes tea", key="k")])
        store.recall(ACME, "tea")
        with store._database._connection() as conn:
            found = conn.execute("SELECT current_setting('memgraph_plugin.scope', true) AS scope").fetchone()
            assert found is not None
            assert not found["scope"]
            assert conn.execute("SELECT FROM memgraph_plugin.memory").fetchall() == []


async def test_tasks_that_are_cancelled_leave_no_scope_to_the_next(app_dsn: str) -> None:
    draw = random.Random(0)
    async with AsyncPostgresMemoryStore(app_dsn, max_size=3) as store:
        names = [(f"t{i}",) for i in range(8)]
        for namespace in names:
            await store.aapply(namespace, [Insert(text="likes tea", key=namespace[0])])

        async def work(namespace: tuple[str, ...]) -> None:
            hits = await store.arecall(namespace, "tea")
            assert [hit.memory.key for hit in hits] == [namespace[0]]
            await store.aput(namespace, "scratch", {"n": 1}, index=False)

        for _ in range(25):
            tasks = [asyncio.create_task(work(namespace)) for namespace in names]
            await asyncio.sleep(draw.uniform(0, 0.01))
            for task in draw.sample(tasks, 4):
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result


def test_many_new_rows_are_written_without_copy(store: PostgresMemoryStore) -> None:
    for embedded in (True, False):
        rows = [
            Insert(
                text=f"note {i}",
                key=str(i),
                evidence=("a", "b,{c}", "")[: i % 4],
                session="s" if i % 2 else None,
            )
            for i in range(1_500)
        ]
        namespace = ("bulk", str(embedded))
        assert len(store.apply(namespace, rows).applied) == 1_500
        assert [v.evidence for v in store.history(namespace, "1499")] == [("a", "b,{c}", "")]
        assert store.recall(namespace, "note 77")[0].memory.key == "77"


def test_many_rows_without_vectors(app_dsn: str) -> None:
    with PostgresMemoryStore(app_dsn) as store:
        assert len(store.apply(ACME, [Insert(text=f"note {i}") for i in range(60)]).applied) == 60
        assert len(store.search(ACME, limit=100)) == 60


def test_the_owner_is_bound_too(dsn: str, empty_dsn: str, role: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                sql.Identifier(conn.info.dbname), sql.Identifier(role)
            )
        )
    owner = conninfo.make_conninfo(empty_dsn, user=role)
    with PostgresMemoryStore(owner) as store:
        store.setup()
        store.put(ACME, "k", {"text": "likes tea"})
        assert store.get(ACME, "k")
    with psycopg.connect(owner, autocommit=True) as conn:
        assert seen(conn, None) == set()
    with pytest.raises(ConfigurationError, match="owns"):
        roles.grant(empty_dsn, "memgraph_plugin", role)
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(f"REASSIGN OWNED BY {role} TO current_user; DROP OWNED BY {role}")


def test_a_role_is_bound_beside_an_autovacuum(dsn: str, role: str, app_dsn: str) -> None:
    with psycopg.connect(dsn) as vacuum, ThreadPoolExecutor() as pool:
        vacuum.execute("ANALYZE memgraph_plugin.memory")  # as autovacuum holds it
        bound = pool.submit(roles.grant, dsn, "memgraph_plugin", role, ("acme",))
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'memgraph_plugin.memory'::regclass"
        while not (bound.done() or vacuum.execute(waiting).fetchall()):
            time.sleep(0.01)
        vacuum.execute("ANALYZE memgraph_plugin.memory")
        vacuum.commit()
        bound.result()


def test_new_tables_are_granted_to_roles_that_have_the_old(dsn: str, role: str, app_dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE memgraph_plugin.later (namespace text)")
        conn.execute("CREATE TABLE memgraph_plugin.parted (namespace text) PARTITION BY HASH (namespace)")
        conn.execute(
            "CREATE TABLE memgraph_plugin.part PARTITION OF memgraph_plugin.parted "
            "FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
        )
        roles.grant_again(conn, "memgraph_plugin")
    with psycopg.connect(app_dsn, autocommit=True) as conn:
        conn.execute("SELECT FROM memgraph_plugin.later")
        conn.execute("SELECT FROM memgraph_plugin.parted")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT FROM memgraph_plugin.part")
        for forbidden in (
            "UPDATE memgraph_plugin.memory_version SET text = 'rewritten'",
            "UPDATE memgraph_plugin.kv_part SET data = 'rewritten'",
            "INSERT INTO memgraph_plugin.migration VALUES (9999)",
            "TRUNCATE memgraph_plugin.memory",
            "ALTER TABLE memgraph_plugin.memory DISABLE ROW LEVEL SECURITY",
            "CREATE TABLE memgraph_plugin.mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(forbidden.encode())


def test_a_role_cannot_grant_to_itself(dsn: str, role: str, app_dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="connect as"):
        roles.grant(app_dsn, "memgraph_plugin", role)


def test_a_role_that_would_not_be_bound_is_refused(dsn: str, role: str) -> None:
    with pytest.raises(ConfigurationError, match='CREATE ROLE "no one" LOGIN'):
        roles.grant(dsn, "memgraph_plugin", "no one")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"ALTER ROLE {role} BYPASSRLS")
    with pytest.raises(ConfigurationError, match="NOBYPASSRLS"):
        roles.grant(dsn, "memgraph_plugin", role)


def test_migrate_grants(empty_dsn: str, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMGRAPH_PLUGIN_DSN", empty_dsn)
    for arguments in (["--role", role], ["--role", role, "--tenant", "acme"]):
        done = CliRunner().invoke(app, ["migrate", *arguments])
        assert done.exit_code == 0, done.output
    assert "memories of acme" in done.output
    assert CliRunner().invoke(app, ["migrate", "--tenant", "acme"]).exit_code == 1
    with PostgresMemoryStore(conninfo.make_conninfo(empty_dsn, user=role)) as store:
        store.setup()
        store.put(ACME, "k", {"text": "likes tea"})
        with pytest.raises(NamespaceDenied):
            store.put(CORP, "k", {"text": "likes tea"})
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(f"DROP OWNED BY {role}")


def test_a_role_without_rights_is_told_the_command(dsn: str, role: str) -> None:
    with (
        PostgresMemoryStore(conninfo.make_conninfo(dsn, user=role)) as store,
        pytest.raises(StoreError, match="migrate --role"),
    ):
        store.get(ACME, "k")


@pytest.mark.parametrize(
    ("parameters", "condition", "scope"),
    [
        ({"namespace": "acme.ana"}, "exactly", "acme.ana"),
        ({"namespace": ""}, "everywhere", "."),
        ({}, "exactly", None),
        ({"namespaces": ["acme.ana"]}, "exactly", "acme.ana"),
        ({"namespaces": ["acme.ana", "acme.bo.x", "acme.ana.y"]}, "exactly", "acme"),
        ({"namespaces": ["acme.ana", "acme-corp"]}, "exactly", "."),
        ({"namespaces": []}, "exactly", None),
        ({}, "everywhere", "."),
    ],
)
def test_a_statement_sees_what_it_is_about(
    parameters: dict[str, object], condition: str, scope: str | None
) -> None:
    assert visibility.scope_of(parameters, condition) == scope


def test_listing_with_a_prefix_stays_within(store: PostgresMemoryStore) -> None:
    for namespace in (ACME, CORP, ("acme", "bo", "x")):
        store.put(namespace, "k", {"text": "likes tea"})
    assert store.list_namespaces(prefix=("acme",)) == [ACME, ("acme", "bo", "x")]
    assert store.list_namespaces(prefix=("*", "bo")) == [CORP, ("acme", "bo", "x")][::-1]
    everything = ListNamespacesOp((MatchCondition("suffix", ("x",)), MatchCondition("prefix", ("acme", "*"))))
    assert store.batch([everything]) == [[("acme", "bo", "x")]]


def test_one_batch_of_many_namespaces(store: PostgresMemoryStore) -> None:
    store.batch([PutOp((name, "x"), "k", {"text": name}) for name in ("a", "b", "c")])
    got = store.batch([GetOp(("a", "x"), "k"), SearchOp(("b",)), SearchOp(())])
    assert got[0].value == {"text": "a"}
    assert [len(found) for found in got[1:]] == [1, 3]
    assert store.apply(("a", "x"), [Update(key="k", text="t"), Delete(key="k")]).receipts


def test_two_thousand_attempts_find_nothing_of_anybody_else(empty_dsn: str) -> None:
    assert leaks.hunt(empty_dsn, attempts=2_000, seed=1, size=80).leaks == []


@pytest.mark.parametrize(
    "mistake",
    [
        "ALTER TABLE memgraph_plugin.memory DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY like_it ON memgraph_plugin.memory_version USING "
        "(namespace LIKE current_setting('memgraph_plugin.scope', true) || '%')",
    ],
)
def test_the_attempts_would_find_a_leak(
    empty_dsn: str, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(store: PostgresMemoryStore, namespaces: list[tuple[str, ...]]) -> None:
        filled(store, namespaces)
        ignored = contextlib.suppress(psycopg.errors.DuplicateObject)  # two stores are filled
        with ignored, psycopg.connect(empty_dsn, autocommit=True) as conn:
            conn.execute(mistake.encode())

    filled = leaks.fill
    monkeypatch.setattr(leaks, "fill", fill)
    assert leaks.hunt(empty_dsn, attempts=400, seed=1, size=80).leaks


def test_a_wrong_store_would_be_caught() -> None:
    class Matching(InMemoryMemoryStore):
        def search(self, namespace_prefix: tuple[str, ...], /, **options: Any) -> list[SearchItem]:
            found = super().search((), **options | {"limit": 1_000})
            return [i for i in found if ".".join(i.namespace).startswith(".".join(namespace_prefix))]

    store, tally = Matching(), leaks.Tally()
    namespaces = leaks.population(random.Random(0), 70)
    leaks.fill(store, namespaces)
    hunter = leaks.ThroughTheStore(store, namespaces, 0, tally)
    for own in namespaces:
        hunter.try_search(own, own)
    assert tally.leaks
