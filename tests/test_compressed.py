"""Compressed memories in Postgres: what a database, its disk and other people can do wrong with them."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo
from typer.testing import CliRunner

from memgraph_plugin.cli import app
from memgraph_plugin.errors import (
    DatabaseUnavailable,
    FingerprintMismatch,
    NamespaceDenied,
    SealBroken,
    StoreError,
    VersionConflict,
)
from memgraph_plugin.store import roles, schema
from memgraph_plugin.store.kv_files import KVFiles
from memgraph_plugin.store.parts import SEALED_SIZE, SIZE, Cutter, spans
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.store.postgres_async import AsyncPostgresMemoryStore
from memgraph_plugin.store.resealing import reseal_compressed
from memgraph_plugin.store.sealing import AesGcmSealer, new_key
from memgraph_plugin.store.sql import MIGRATIONS
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.compressed_contract import CompressedContract

ANA = ("people", "ana")
CANARY = b"a canary in the window"
OLD, NEW = new_key("2025"), new_key("2026")


def store_of(dsn: str, **options: object) -> PostgresMemoryStore:
    return PostgresMemoryStore(dsn, embeddings=HashingEmbeddings(), **options)  # type: ignore[arg-type]


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresMemoryStore]:
    with store_of(dsn) as store:
        yield store


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def rows(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as conn:
        found = conn.execute(f"SELECT count(*) FROM memgraph_plugin.{table}".encode()).fetchone()
        assert found is not None
        return int(found[0])


class TestInFiles(CompressedContract):
    """The promises, of a store that keeps every window in a file."""

    @pytest.fixture
    def store(self, shared_dsn: str, tmp_path: Path) -> Iterator[PostgresMemoryStore]:
        with store_of(shared_dsn, kv_files=KVFiles(tmp_path / "kv", past=-1)) as store:
            yield store
            named = {
                each["file"] for each in store._database.fetch("kv_files", {"namespace": ""}, "everywhere")
            }
            assert {path.name for path in (tmp_path / "kv").glob("*")} == named, "nothing is left lying about"

    @pytest.mark.skip("a file is gone when its memory is replaced")
    async def test_what_is_being_read_stays_as_it_was(self) -> None: ...  # type: ignore[override]


class TestSealed(CompressedContract):
    """The promises, of a store that seals."""

    @pytest.fixture
    def store(self, shared_dsn: str) -> Iterator[PostgresMemoryStore]:
        with store_of(shared_dsn, sealer=AesGcmSealer.parse(OLD)) as store:
            yield store


# Bytes.


@pytest.mark.parametrize("sealed", [False, True])
def test_parts_are_of_a_size_also_when_they_are_sealed(sealed: bool) -> None:
    step = SEALED_SIZE if sealed else SIZE
    for size, parts in ((0, 1), (1, 1), (step - 1, 1), (step, 1), (step + 1, 2), (2 * step, 2)):
        found = list(spans(size, sealed))
        assert len(found) == parts
        assert [last for *_, last in found] == [False] * (parts - 1) + [True]
        assert sum(end - begin for _, begin, end, _ in found) == size
    sealer = AesGcmSealer.parse(new_key("k" * 200)) if sealed else None
    stored = [len(data) for _, data in Cutter("people.ana", "book", 0, sealer).cut(bytes(step))]
    assert max(stored) <= SIZE


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE {} SET data = set_byte(data, 0, 7) WHERE seq = 1", "part 0 of window 1 has another sha256"),
        ("UPDATE {} SET data = substr(data, 2) WHERE seq = 2", "part 0 of window 2 has another sha256"),
        ("DELETE FROM {} WHERE seq = 0", "part 0 of window 0 is missing"),
        ("DELETE FROM {} WHERE seq = 1 AND part = 1", "part 1 of window 1 is missing"),
        ("DELETE FROM {} WHERE seq = 2", "there are 2 whole windows, and not 3"),
        ("DELETE FROM {}", "there are 0 whole windows, and not 3"),
        ("UPDATE {} SET seq = 5 - seq, part = 0 WHERE part = 0", "part 0 of window 0 is missing"),
    ],
)
async def test_broken_bytes_are_refused(dsn: str, damage: str, said: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        await store.asave_kv(ANA, "book", {}, [b"one", b"t" * (SIZE + 1), b"three"])
        execute(dsn, damage.format("memgraph_plugin.kv_part"))
        with pytest.raises(FingerprintMismatch, match=said):
            [part async for part in store.akv_parts(ANA, "book")]
        assert await store.adelete_kv(ANA, "book")
    assert rows(dsn, "kv_part") == 0


def test_windows_are_stored_as_they_are(store: PostgresMemoryStore, dsn: str) -> None:
    """Not compressed: they are dense."""
    store.save_kv(ANA, "book", {}, [bytes(1_000_000)])
    with psycopg.connect(dsn) as conn:
        found = conn.execute(
            "SELECT pg_column_size(data), length(data), pg_column_compression(data) "
            "FROM memgraph_plugin.kv_part"
        ).fetchone()
    assert found is not None
    assert found == (1_000_000, 1_000_000, None)


def test_a_memory_is_never_held_as_a_whole(store: PostgresMemoryStore) -> None:
    """16 windows of 4 MB go through some 20 MB, both ways."""

    def windows() -> Iterator[bytes]:
        yield from (os.urandom(4 << 20) for _ in range(16))

    store.list_kv()
    tracemalloc.start()
    try:
        store.save_kv(ANA, "book", {}, windows())
        assert sum(len(part) for part in store.kv_parts(ANA, "book")) == 16 * (4 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


# Writers.


async def test_a_writer_that_was_overtaken_while_it_made_its_windows_adds_nothing(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store, AsyncPostgresMemoryStore(dsn) as other:
        first = await store.asave_kv(ANA, "book", {}, [b"one"])
        loop = asyncio.get_running_loop()

        def overtaken() -> Iterator[bytes]:
            save = other.asave_kv(ANA, "book", {"by": "other"}, [b"two"], after=1, version=first.version)
            asyncio.run_coroutine_threadsafe(save, loop).result()
            yield b"late"

        with pytest.raises(VersionConflict, match="Somebody else"):
            await store.asave_kv(ANA, "book", {}, overtaken(), after=1, version=first.version)
        assert [part async for part in store.akv_parts(ANA, "book")] == [b"one", b"two"]


def test_no_transaction_is_open_while_windows_are_made(store: PostgresMemoryStore, dsn: str) -> None:
    def is_open(conn: psycopg.Connection) -> bool:
        found = conn.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state LIKE 'idle in%'"
        ).fetchone()
        return found != (0,)

    def windows() -> Iterator[bytes]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            deadline = time.monotonic() + 10
            while is_open(conn) and time.monotonic() < deadline:
                time.sleep(0.05)  # a new connection of the pool; what stays open is the store's
            assert not is_open(conn)
        yield b"one"

    store.save_kv(ANA, "book", {}, windows())


def test_a_connection_that_is_killed_while_writing_leaves_nothing_or_all(
    store: PostgresMemoryStore, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.save_kv(ANA, "book", {}, [b"one"])
    fetch_in, killed = store._database.fetch_in, []

    def fetch_and_kill(conn, name, *arguments):  # type: ignore[no-untyped-def]
        done = fetch_in(conn, name, *arguments)
        if name == "insert_kv_part" and not killed:
            killed.append(conn.info.backend_pid)
            execute(dsn, f"SELECT pg_terminate_backend({killed[0]})")
        return done

    monkeypatch.setattr(store._database, "fetch_in", fetch_and_kill)
    second = store.save_kv(ANA, "book", {}, [b"two", b"three"], after=1, version=first.version)
    assert killed
    assert (second.version, second.windows) == (first.version + 1, 3), "it was tried again, from the spool"
    assert list(store.kv_parts(ANA, "book")) == [b"one", b"two", b"three"]


async def test_what_is_saved_while_it_is_forgotten_is_whole_or_gone(dsn: str) -> None:
    async with AsyncPostgresMemoryStore(dsn) as store:
        stop = False

        async def write(n: int) -> None:
            key, i = f"k{n % 2}", 0
            while not stop:
                i += 1
                held = await store.aload_kv(ANA, key)
                after = held.windows if held and i % 3 else 0
                version = held.version if held else None
                try:
                    await store.asave_kv(ANA, key, {}, [b"%d" % i] * 3, after=after, version=version)
                    if i % 7 == 0:
                        await store.adelete_kv(ANA, key)
                except VersionConflict:
                    continue

        writers = [asyncio.create_task(write(n)) for n in range(4)]
        for _ in range(4):
            await asyncio.sleep(0.2)
            await store.aforget(ANA)
            await store.adelete_namespace(ANA)
        stop = True
        await asyncio.gather(*writers)
        for record in await store.alist_kv(ANA):
            assert len([part async for part in store.akv_parts(ANA, record.key)]) == record.windows
    with psycopg.connect(dsn) as conn:
        strays = conn.execute(
            "SELECT key, seq FROM memgraph_plugin.kv_part AS p LEFT JOIN memgraph_plugin.kv_memory AS m "
            "USING (namespace, key) WHERE m.key IS NULL OR p.seq >= m.windows"
        ).fetchall()
    assert strays == []


# Files.


def test_what_grows_large_goes_on_in_files(dsn: str, tmp_path: Path) -> None:
    files = KVFiles(tmp_path / "new" / "kv", past=10)
    with store_of(dsn, kv_files=files) as store:
        first = store.save_kv(ANA, "book", {}, [b"12345"])
        second = store.save_kv(ANA, "book", {}, [b"67890"], after=1, version=first.version)
        assert list(files.directory.iterdir()) == []
        third = store.save_kv(ANA, "book", {}, [b"large", b"", b"larger"], after=2, version=second.version)
        (file,) = files.directory.iterdir()
        assert file.read_bytes() == b"largelarger"
        assert (file.stat().st_mode & 0o777, files.directory.stat().st_mode & 0o777) == (0o600, 0o700)
        assert list(store.kv_parts(ANA, "book")) == [b"12345", b"67890", b"large", b"", b"larger"]
        assert third.bytes == 21
    with store_of(dsn) as without:
        with pytest.raises(StoreError, match="kv_files"):
            list(without.kv_parts(ANA, "book"))
        with pytest.raises(StoreError, match=rf"1 of its files.*{file.name}"):
            without.delete_kv(ANA, "book")
        assert without.load_kv(ANA, "book") is None
    assert file.exists(), "what was said to be left is left"


def test_files_go_with_the_memory(dsn: str, tmp_path: Path) -> None:
    files = KVFiles(tmp_path, past=0)
    with store_of(dsn, kv_files=files) as store:
        first = store.save_kv(ANA, "book", {}, [CANARY])
        store.save_kv(ANA, "book", {}, [b"replaced"], version=first.version)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"replaced"]
        store.delete_kv(ANA, "book")
        assert list(tmp_path.iterdir()) == []
        for namespace in (ANA, (*ANA, "below"), ("people", "ana-maria")):
            store.save_kv(namespace, "book", {}, [b"x"])
        store.forget(ANA)
        assert len(list(tmp_path.iterdir())) == 1
        store.delete_namespace(("people",))
        assert list(tmp_path.iterdir()) == []


def test_broken_files_are_refused_and_others_left_alone(dsn: str, tmp_path: Path) -> None:
    files = KVFiles(tmp_path / "kv", past=0)
    other = tmp_path / "theirs"
    other.write_bytes(b"theirs")
    with store_of(dsn, kv_files=files) as store:
        store.save_kv(ANA, "book", {}, [b"one", b"two"])
        (file,) = files.directory.iterdir()
        file.write_bytes(b"onetw")
        with pytest.raises(FingerprintMismatch, match="window 1"):
            list(store.kv_parts(ANA, "book"))
        file.unlink()
        with pytest.raises(StoreError, match="cannot be read"):
            list(store.kv_parts(ANA, "book"))
        execute(dsn, "UPDATE memgraph_plugin.kv_part SET file = '../theirs'")
        with pytest.raises(StoreError, match="none of ours"):
            list(store.kv_parts(ANA, "book"))
        with pytest.raises(StoreError, match="none of ours"):
            store.forget(ANA)
        assert [erasure.of(ANA) for erasure in store.erasures()] == [True]
    assert other.read_bytes() == b"theirs"


def test_a_save_that_fails_leaves_no_file(dsn: str, tmp_path: Path) -> None:
    files = KVFiles(tmp_path, past=0)
    with store_of(dsn, kv_files=files) as store:
        execute(dsn, "ALTER TABLE memgraph_plugin.kv_part ADD CHECK (seq < 1)")
        with pytest.raises(StoreError):
            store.save_kv(ANA, "book", {}, [b"one", b"two"])

        def failing() -> Iterator[bytes]:
            yield b"one"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.save_kv(ANA, "book", {}, failing())
        assert store.list_kv() == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with (
        store_of(dsn, kv_files=KVFiles(tmp_path / "file")) as store,
        pytest.raises(StoreError, match="spooled"),
    ):
        store.save_kv(ANA, "book", {}, [b"one"])


def test_of_what_may_have_been_saved_the_file_stays_and_is_named(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_of(dsn, kv_files=KVFiles(tmp_path, past=0)) as store:
        transaction = store._database.transaction

        def lost(write, **options):  # type: ignore[no-untyped-def]
            transaction(write, **options)
            raise DatabaseUnavailable("the connection was lost in a transaction")

        monkeypatch.setattr(store._database, "transaction", lost)
        with pytest.raises(DatabaseUnavailable) as caught:
            store.save_kv(ANA, "book", {}, [b"one"])
        (file,) = tmp_path.iterdir()
        assert str(file) in caught.value.__notes__[0]
        assert list(store.kv_parts(ANA, "book")) == [b"one"]


# Other people.


def test_a_sealed_memory_is_read_by_who_has_the_key_where_it_was_saved(dsn: str) -> None:
    with store_of(dsn, sealer=AesGcmSealer.parse(OLD)) as store:
        first = store.save_kv(ANA, "book", {"tail": ["the canary's tail"]}, [CANARY, CANARY])
        store.save_kv(ANA, "other", {}, [CANARY])
    with psycopg.connect(dsn) as conn:
        for table in ("kv_memory", "kv_part"):
            seen = conn.execute(f"SELECT * FROM memgraph_plugin.{table}".encode()).fetchall()
            assert "canary" not in str(seen)
    for keys in ({}, {"sealer": AesGcmSealer.parse(NEW)}):
        with store_of(dsn, **keys) as store:
            with pytest.raises(SealBroken):
                store.load_kv(ANA, "book")
            assert store.delete_kv(ANA, "other") == ("sealer" not in keys)
    with store_of(dsn, sealer=AesGcmSealer.parse(f"{NEW},{OLD}")) as store:
        assert store.load_kv(ANA, "book") == first
        store.save_kv(ANA, "book", {}, [b"under a new key"], after=2, version=first.version)
        assert list(store.kv_parts(ANA, "book")) == [CANARY, CANARY, b"under a new key"]
        swap = (
            "UPDATE {0} AS one SET data = other.data, sha256 = other.sha256 FROM {0} AS other "
            "WHERE other.seq = 0 AND one.seq = 1"
        )
        execute(dsn, swap.format("memgraph_plugin.kv_part"))
        with pytest.raises(SealBroken, match="changed or moved"):
            list(store.kv_parts(ANA, "book"))


def test_what_was_saved_in_the_clear_is_read_by_a_store_that_seals(dsn: str) -> None:
    with store_of(dsn) as store:
        first = store.save_kv(ANA, "book", {"n": 1}, [b"$sealed:2025:AAAA"])
    with store_of(dsn, sealer=AesGcmSealer.parse(OLD)) as store:
        store.save_kv(ANA, "book", {"n": 2}, [b"sealed"], after=1, version=first.version)
        assert list(store.kv_parts(ANA, "book")) == [b"$sealed:2025:AAAA", b"sealed"]


@pytest.mark.parametrize("past", [None, 0], ids=["in rows", "in files"])
def test_what_was_saved_is_sealed_and_keys_are_changed(dsn: str, tmp_path: Path, past: int | None) -> None:
    files = None if past is None else KVFiles(tmp_path, past)
    with store_of(dsn, kv_files=files) as store:
        store.save_kv(ANA, "book", {"said": "canary"}, [CANARY, CANARY])
        store.save_kv(("people", "bob"), "empty", {"said": "canary"}, [])

    def stored() -> str:
        with psycopg.connect(dsn) as conn:
            statement = "SELECT header, (SELECT string_agg(data, '') FROM memgraph_plugin.kv_part) "
            found = conn.execute(f"{statement} FROM memgraph_plugin.kv_memory".encode()).fetchall()
        return str(found) + str([path.read_bytes() for path in tmp_path.iterdir()])

    def reseal(keys: str) -> int:
        sealer, told = AesGcmSealer.parse(keys), list[tuple[int, int]]()
        with store_of(dsn, kv_files=files, sealer=sealer) as store:
            done = reseal_compressed(
                store, dsn, "memgraph_plugin", sealer, files, progress=lambda *now: told.append(now)
            )
        assert told[-1] == (2, 2)
        return done

    assert "canary" in stored()
    assert reseal(OLD) == 2
    assert "canary" not in stored()
    with store_of(dsn, kv_files=files, sealer=AesGcmSealer.parse(f"{NEW},{OLD}")) as store:
        record = store.load_kv(ANA, "book")
        assert record is not None
        store.save_kv(ANA, "book", {"said": "canary"}, [CANARY], after=2, version=record.version)
    with pytest.raises(SealBroken):
        reseal(NEW)
    assert reseal(f"{NEW},{OLD}") == 2
    assert reseal(f"{NEW},{OLD}") == 0
    with store_of(dsn, kv_files=files, sealer=AesGcmSealer.parse(NEW)) as store:
        assert list(store.kv_parts(ANA, "book")) == [CANARY] * 3
    assert len(list(tmp_path.iterdir())) == (0 if past is None else 1), "what was replaced is gone"


def test_files_that_a_killed_process_left_are_found_and_removed(dsn: str, tmp_path: Path) -> None:
    with store_of(dsn, kv_files=KVFiles(tmp_path, past=0)) as store:
        store.save_kv(ANA, "book", {}, [CANARY])
        (named,) = tmp_path.iterdir()
        left = [tmp_path / f"{'a' * 32}.kv", tmp_path / "tmpab_c1d2e.tmp"]
        writing, foreign = tmp_path / "tmpxxxxxxxx.tmp", tmp_path / "notes.tmp"
        for path in (*left, writing, foreign):
            path.write_bytes(b"x")
        for path in (named, *left, foreign):
            os.utime(path, (0, 0))
        env = {"MEMGRAPH_PLUGIN_DSN": dsn, "MEMGRAPH_PLUGIN_KV_DIR": str(tmp_path)}

        def maintain(*words: str) -> str:
            return CliRunner().invoke(app, ["maintain", *words], env=env).stdout

        assert "2 files" in maintain()
        assert "2 files would be removed" in maintain("--files", "--dry-run")
        assert all(path.exists() for path in left)
        maintain("--files")
        assert sorted(tmp_path.iterdir()) == sorted([named, writing, foreign])
        assert list(store.kv_parts(ANA, "book")) == [CANARY]
        assert "files" not in maintain()


def test_commands_say_what_they_do_with_compressed_memories(dsn: str) -> None:
    run, env = CliRunner(), {"MEMGRAPH_PLUGIN_DSN": dsn, "MEMGRAPH_PLUGIN_EMBEDDINGS": "none"}
    with store_of(dsn) as store:
        store.save_kv(("memories", "ana"), "book", {}, [])
    asked = run.invoke(app, ["forget", "--user", "ana"], input="\n", env=env)
    assert "0 memories and 1 compressed ones" in asked.stdout, asked.output
    assert "Left out: 1 compressed" in run.invoke(app, ["export", "--user", "ana"], env=env).stderr


def test_a_tenant_s_role_may_do_all_of_it_in_its_namespace_and_nothing_beside(dsn: str) -> None:
    role = f"app_{os.urandom(4).hex()}"
    execute(dsn, f"CREATE ROLE {role} LOGIN")
    try:
        roles.grant(dsn, "memgraph_plugin", role, ("acme",))
        with store_of(dsn) as all_of_it:
            all_of_it.save_kv(("acme-corp",), "k", {}, [b"theirs"])
        with store_of(conninfo.make_conninfo(dsn, user=role)) as store:
            first = store.save_kv(("acme", "ana"), "k", {}, [b"one"])
            second = store.save_kv(("acme", "ana"), "k", {}, [b"two"], after=1, version=first.version)
            assert list(store.kv_parts(("acme", "ana"), "k")) == [b"one", b"two"]
            assert store.list_kv() == [second]
            assert store.load_kv(("acme-corp",), "k") is None
            assert not store.delete_kv(("acme-corp",), "k")
            with pytest.raises(NamespaceDenied):
                store.save_kv(("acme-corp",), "new", {}, [b"x"])
            store.save_kv(("acme", "ana"), "k", {}, [b"three"], version=second.version)
            assert store.forget(("acme",)).counts["kv_part"] == 1
        with store_of(dsn) as all_of_it:
            assert list(all_of_it.kv_parts(("acme-corp",), "k")) == [b"theirs"]
    finally:
        execute(dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")


# The tables.


def test_older_tables_with_partitions_get_these_with_partitions(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def partitions() -> list[tuple[str, int]]:
        with psycopg.connect(empty_dsn) as conn:
            return conn.execute(
                "SELECT inhparent::regclass::text, count(*) FROM pg_inherits JOIN pg_class ON oid = inhrelid "
                "WHERE relkind = 'r' AND relrowsecurity AND relforcerowsecurity GROUP BY 1 ORDER BY 1"
            ).fetchall()

    with store_of(empty_dsn) as store:
        store.setup(partitions=3)
    whole = partitions()
    assert ("memgraph_plugin.kv_part", 3) in whole
    execute(
        empty_dsn,
        "DROP TABLE memgraph_plugin.kv_memory, memgraph_plugin.kv_part, memgraph_plugin.quarantine",
        "DELETE FROM memgraph_plugin.migration WHERE number >= 8",
    )
    assert schema.migrate(empty_dsn, "memgraph_plugin") == [number for number in MIGRATIONS if number >= 8]
    assert partitions() == whole
    with store_of(empty_dsn) as store:
        store.save_kv(ANA, "book", {}, [b"one"])
        assert list(store.kv_parts(ANA, "book")) == [b"one"]
