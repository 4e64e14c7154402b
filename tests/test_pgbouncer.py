"""The store behind PgBouncer in transaction mode, where every transaction may have another connection."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from langgraph.store.base import PutOp
from psycopg import conninfo

from memgraph_plugin.errors import StoreError
from memgraph_plugin.store.embedded import _Binaries
from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.testing import HashingEmbeddings
from memgraph_plugin.testing.conformance import TTL
from memgraph_plugin.testing.store_contract import StoreContract
from memgraph_plugin.types import Insert
from tests.threads import at_once

ADA = ("memories", "ada")
PROGRAM = (
    os.environ.get("MEMGRAPH_PLUGIN_TEST_PGBOUNCER") or shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
)
PORT = 6432


def version() -> tuple[int, ...]:
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


@pytest.fixture(scope="module")
def pgbouncer(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the socket of a PgBouncer: three connections to each database of the tests' server."""
    if not Path(PROGRAM).exists():
        pytest.skip("there is no pgbouncer (apt install pgbouncer)")
    given = conninfo.conninfo_to_dict(postgres)
    if not str(given.get("host", "")).startswith("/"):
        pytest.skip("the server is not reached by a socket")
    folder = tmp_path_factory.mktemp("bouncer")
    users = folder / "users"
    users.write_text(f'"{given["user"]}" ""\n')
    settings = {
        "unix_socket_dir": folder,
        "listen_port": PORT,
        "listen_addr": "",
        "auth_type": "trust",
        "auth_file": users,
        "pool_mode": "transaction",
        "default_pool_size": 3,
        "max_client_conn": 200,
        "logfile": folder / "log",
        "server_check_delay": 0,
    }
    if version() >= (1, 21):
        settings["max_prepared_statements"] = 100
    lines = [f"{name} = {value}" for name, value in settings.items()]
    databases = f"[databases]\n* = host={given['host']} port={given.get('port', 5432)}\n"
    (folder / "ini").write_text(databases + "[pgbouncer]\n" + "\n".join(lines) + "\n")
    prefix = _Binaries.find().prefix  # it refuses root, as Postgres does
    process = subprocess.Popen([*prefix, PROGRAM, "-q", str(folder / "ini")], stderr=subprocess.PIPE)
    try:
        for _ in range(200):
            if (folder / f".s.PGSQL.{PORT}").exists():
                break
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.05)
        yield folder
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def through(dsn: str, pgbouncer: Path) -> str:
    return conninfo.make_conninfo(dsn, host=str(pgbouncer), port=PORT)


class TestBehindPgBouncer(StoreContract):
    @pytest.fixture
    def dsn(self, shared_dsn: str) -> str:
        return shared_dsn

    @pytest.fixture
    def store(self, through: str) -> Iterator[PostgresMemoryStore]:
        model = HashingEmbeddings()
        with PostgresMemoryStore(through, embeddings=model, prepare=False, ttl=TTL) as store:
            yield store


def busy(dsn: str, prepare: bool) -> None:
    """24 threads of six stores on three connections: batches, copies, puts in several namespaces, recall."""
    model = HashingEmbeddings()
    stores = [PostgresMemoryStore(dsn, embeddings=model, max_size=4, prepare=prepare) for _ in range(6)]

    def work(n: int) -> None:
        store = stores[n % 6]
        order = "abc" if n % 2 else "cba"
        for i in range(4):
            store.apply(ADA, [Insert(text=f"{n} {i}")], idempotency_key=f"{n % 12} {i}")
            store.apply(ADA, [Insert(key=f"{n} {i} {j}", text=f"note {j}") for j in range(60)])
            store.batch([PutOp((space,), f"{n % 3}", {"text": f"{n} {i}"}) for space in order])
            assert store.recall(ADA, "note", k=3)

    assert at_once(work, 24) == []
    for store in stores:
        store.close()


def check(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        found = conn.execute(
            "SELECT count(*), count(DISTINCT (namespace, key)), count(*) FILTER (WHERE namespace < 'd') "
            "FROM memgraph_plugin.memory_version"
        ).fetchone()
        gaps = conn.execute(
            "SELECT FROM memgraph_plugin.memory_version "
            "GROUP BY namespace, key HAVING max(version) <> count(*)"
        ).fetchall()
    assert found == (12 * 4 + 24 * 4 * 60 + 24 * 4 * 3, 12 * 4 + 24 * 4 * 60 + 9, 24 * 4 * 3)
    assert gaps == []


def test_many_clients_share_few_connections(dsn: str, through: str) -> None:
    with PostgresMemoryStore(through, prepare=False) as store:
        store.setup()
    busy(through, prepare=False)
    check(dsn)


def test_nothing_is_left_behind_in_a_session(dsn: str, through: str) -> None:
    """What one client sets, the next one finds: there must be nothing, and no lock past its transaction."""
    with PostgresMemoryStore(through, embeddings=HashingEmbeddings(), prepare=False) as store:
        store.apply(ADA, [Insert(text="likes tea")], idempotency_key="turn-1")
        store.batch([PutOp(("a",), "k", {"text": "tea"}), PutOp(("b",), "k", {"text": "tea"})])
        store.recall(ADA, "tea")
        with psycopg.connect(through, autocommit=True, prepare_threshold=None) as conn:
            for _ in range(10):
                changed = conn.execute("SELECT name FROM pg_settings WHERE source = 'session'").fetchall()
                assert {name for (name,) in changed} <= {"application_name", "client_encoding", "DateStyle"}
        with psycopg.connect(dsn) as conn:
            where = "WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            assert conn.execute(f"SELECT FROM pg_locks {where} AND locktype = 'advisory'").fetchall() == []


def test_prepared_statements_need_a_pgbouncer_that_keeps_them(dsn: str, through: str) -> None:
    if version() < (1, 21):
        with pytest.raises(StoreError, match="prepare=False"):
            one_by_one(through)
        pytest.skip(f"PgBouncer {version()} keeps no prepared statements; from 1.21 on, it can")
    busy(through, prepare=True)
    check(dsn)


def one_by_one(dsn: str) -> None:
    """Until statements are prepared, and asked for on a connection that does not have them."""
    stores = [PostgresMemoryStore(dsn) for _ in range(4)]
    try:
        for _ in range(10):
            for store in stores:
                store.get(ADA, "k")
                store.apply(ADA, [Insert(text="tea")])
    finally:
        for store in stores:
            store.close()
