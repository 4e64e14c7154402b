"""The private Postgres, with real processes: it starts, survives, refuses, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable
from memgraph_plugin.store.embedded import EmbeddedPostgres

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

Make = Callable[..., EmbeddedPostgres]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped server's directory, which the tests use in turn: initdb is most of a cold start."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "pristine")
    server.ensure()
    server.stop()
    return server.data_dir


@pytest.fixture
def make(pristine: Path) -> Iterator[Make]:
    made: list[EmbeddedPostgres] = []

    def server(path: Path = pristine, **options: Any) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(path, **options))
        return made[-1]

    yield server
    for each in made:
        each.stop()
        status = each.status()
        assert not status.running
        assert status.socket_dir.is_relative_to(each.data_dir) or not status.socket_dir.exists()
        if each.data_dir != pristine:
            shutil.rmtree(each.data_dir, ignore_errors=True)


@pytest.fixture
def without_unshare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where user namespaces are forbidden."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or not setpriv:
        pytest.skip("needs root and setpriv")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/setpriv").symlink_to(setpriv)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def ask(server: EmbeddedPostgres, query: str) -> Any:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]


def pid_of(server: EmbeddedPostgres) -> int:
    pid = server.status().pid
    assert pid
    return pid


def kill(server: EmbeddedPostgres) -> int:
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    return pid


def python(code: str, *arguments: object, prefix: Sequence[str] = (), **options: Any) -> Any:
    head = "import sys, os, time; from memgraph_plugin.store.embedded import EmbeddedPostgres as E\n"
    command = [*prefix, sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options)


def connects_as(uid: int, path: Path) -> bool:
    """Whether a process of this user gets through to the socket."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        os._exit(0 if socket.socket(socket.AF_UNIX).connect_ex(str(path)) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def modes_up_from(path: Path) -> dict[Path, int]:
    return {place: stat.S_IMODE(place.stat().st_mode) for place in [path, *path.parents]}


def test_a_fresh_directory_becomes_a_server_with_vectors_text_search_and_safe_settings(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o711)
    modes = modes_up_from(home)
    for name, value in {"LC_ALL": "xx_XX.broken", "LANG": "xx", "PGDATA": "/nowhere", "PGPORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    server = make(home / 'a b $(touch oops) `x` "q" \'é')
    promised = server.dsn

    assert server.ensure() == promised
    assert ask(server, "SELECT '[1,0]'::halfvec <=> '[1,0]'::halfvec") == 0
    assert ask(server, "SELECT to_tsvector('simple', 'ÉCOLE Привет')::text") == "'école':1 'привет':2"
    assert ask(server, "SELECT current_database() || ' ' || current_user") == "memgraph_plugin postgres"
    settings = {"fsync": "on", "full_page_writes": "on", "listen_addresses": "", "shared_buffers": "128MB"}
    assert {name: ask(server, f"SHOW {name}") for name in settings} == settings
    status = server.status()
    assert status.running
    assert (status.version or "").startswith("18.")
    assert (status.size or 0) > 1_000_000
    assert stat.S_IMODE(status.socket_dir.stat().st_mode) == 0o700
    assert modes_up_from(home) == modes


def test_stop_is_explicit_and_start_brings_the_rows_back(make: Make) -> None:
    server = make()
    server.ensure()
    ask(server, "CREATE TABLE kept AS SELECT 7 AS n")
    assert server.stop()
    assert not server.stop()
    status = server.status()
    assert (status.running, status.pid, status.size, status.version) == (False, None, None, "18")
    server.ensure()
    assert ask(server, "SELECT n FROM kept") == 7


def test_ensure_costs_little_when_the_server_is_up(make: Make) -> None:
    server = make()
    server.ensure()
    pid, start = pid_of(server), time.perf_counter()
    for _ in range(10):
        server.ensure()
    assert (time.perf_counter() - start) / 10 < 0.2  # 4 ms on an idle machine
    assert pid_of(server) == pid


def test_the_server_outlives_its_starter_and_inherits_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")
    monkeypatch.setenv("LD_BIND_NOW", "1")
    server = make()
    code = "os.set_inheritable(os.dup(1), True); E(sys.argv[1]).ensure(); os.kill(os.getpid(), 9)"
    starter = python(code, server.data_dir, start_new_session=True)
    starter.communicate(timeout=30)  # returns at the starter's end: nobody else holds its pipe
    assert starter.returncode == -9
    assert ask(server, "SELECT 1") == 1
    if sys.platform == "linux":
        proc = Path(f"/proc/{pid_of(server)}")
        streams = [os.readlink(proc / "fd" / name) for name in "012"]
        assert streams == ["/dev/null", *[str(server.status().log)] * 2]
        environment = (proc / "environ").read_bytes().split(b"\0")
        assert not [entry for entry in environment if entry.startswith((b"LD_", b"PGOPTIONS"))]


def test_six_processes_racing_on_a_fresh_directory_get_one_server(tmp_path: Path, make: Make) -> None:
    server = make(tmp_path / "pg")
    code = """
import psycopg
connection = psycopg.connect(E(sys.argv[1]).ensure())
print(connection.execute("SELECT pg_postmaster_start_time()").fetchone()[0])
"""
    racers = [python(code, server.data_dir) for _ in range(6)]
    said = {racer.communicate(timeout=60)[0] for racer in racers}
    assert len(said) == 1
    assert said.pop().startswith("20")


def test_threads_racing_for_a_stopped_server_get_one(make: Make) -> None:
    server = make()
    log = server.status().log
    before = log.read_text().count("starting PostgreSQL")
    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(lambda _: server.ensure(), range(6)))) == 1
    assert log.read_text().count("starting PostgreSQL") == before + 1


def test_settings_are_passed_on_and_those_that_open_the_server_are_refused(make: Make) -> None:
    server = make(conf={"work_mem": "7MB", "shared_buffers": "32MB", "application_name": "it's so"})
    server.ensure()
    assert (ask(server, "SHOW work_mem"), ask(server, "SHOW shared_buffers")) == ("7MB", "32MB")
    for name in (
        "listen_addresses",
        "Listen_Addresses",
        "unix_socket_directories",
        "hba_file",
        "fsync=off -c",
    ):
        with pytest.raises(ConfigurationError, match="does not take"):
            make(conf={name: "*"})


def test_the_log_does_not_quote_failed_statements(make: Make) -> None:
    server = make()
    server.ensure()
    with pytest.raises(psycopg.Error):
        ask(server, "SELECT 'a secret memory'::int")
    assert "secret" not in server.status().log.read_text()


def test_every_acknowledged_row_is_there_after_kill_9_under_load(make: Make) -> None:
    server = make()
    server.ensure()
    ask(server, "CREATE TABLE load (n int PRIMARY KEY)")
    acknowledged: set[int] = set()

    def insert() -> None:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            for n in range(1_000_000):
                try:
                    connection.execute("INSERT INTO load VALUES (%s)", [n])
                except psycopg.OperationalError:
                    return
                acknowledged.add(n)

    writer = threading.Thread(target=insert)
    writer.start()
    while len(acknowledged) < 200 and writer.is_alive():
        time.sleep(0.01)
    killed = kill(server)
    server.ensure()
    writer.join()
    assert pid_of(server) != killed
    assert len(acknowledged) >= 200
    assert acknowledged <= set(ask(server, "SELECT array_agg(n) FROM load"))


def test_a_recovery_longer_than_ten_seconds_is_waited_for(tmp_path: Path, make: Make) -> None:
    once = f"test -e {tmp_path}/asked || {{ touch {tmp_path}/asked; sleep 11; }}; exit 1"
    server = make(conf={"restore_command": once, "hot_standby": "off"})
    server.ensure()
    kill(server)
    (server.data_dir / "cluster/recovery.signal").touch()
    start = time.monotonic()
    server.ensure()
    assert time.monotonic() - start > 10.5
    assert ask(server, "SELECT pg_is_in_recovery()") is False


@linux_only
def test_a_zombie_postmaster_does_not_block_the_next(make: Make) -> None:
    server = make()
    code = """
import ctypes
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans become ours, and we never reap
E(sys.argv[1]).ensure()
print("up", flush=True)
time.sleep(60)
"""
    starter = python(code, server.data_dir)
    assert starter.stdout.readline() == "up\n"
    killed = kill(server)
    server.ensure()
    assert ") Z " in Path(f"/proc/{killed}/stat").read_text()
    assert pid_of(server) != killed
    starter.kill()
    starter.communicate()


@linux_only
def test_it_does_not_start_beside_the_last_children_of_a_killed_server(make: Make) -> None:
    server = make()
    with psycopg.connect(server.ensure(), autocommit=True) as connection:
        child = connection.info.backend_pid
        os.kill(child, signal.SIGSTOP)
        kill(server)
        start = time.monotonic()
        threading.Timer(1.5, os.kill, (child, signal.SIGCONT)).start()
        server.ensure()
    assert time.monotonic() - start > 1.5


@linux_only
@pytest.mark.parametrize("holder", ["nobody", "a foreign process", "garbage"])
def test_a_stale_lock_file_is_seen_through(make: Make, holder: str) -> None:
    server = make()
    server.ensure()
    foreign = subprocess.Popen(["sleep", "60"])
    locks = [server.data_dir / "cluster/postmaster.pid", server.status().socket_dir / ".s.PGSQL.5432.lock"]
    saved = [lock.read_text() for lock in locks]
    if holder == "nobody":
        kill(server)
    else:
        server.stop()
        for lock, text in zip(locks, saved, strict=True):
            number = str(foreign.pid) if holder == "a foreign process" else "not a pid"
            lock.write_text("\n".join([number, *text.split("\n")[1:]]))
    try:
        server.ensure()
        assert ask(server, "SELECT 1") == 1
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_an_initdb_killed_halfway_does_not_poison_the_directory(tmp_path: Path, make: Make) -> None:
    server = make(tmp_path / "pg")
    starter = python("E(sys.argv[1]).ensure()", server.data_dir, start_new_session=True)
    while not list(server.data_dir.glob("cluster.new-*/global/*")) and starter.poll() is None:
        time.sleep(0.005)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    assert list(server.data_dir.glob("cluster.new-*"))
    assert not (server.data_dir / "cluster").exists()
    server.ensure()
    assert ask(server, "SELECT 1") == 1
    assert not list(server.data_dir.glob("cluster.new-*"))


def test_a_long_path_puts_the_socket_into_a_short_private_directory_whatever_tmpdir(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make(tmp_path / ("x" * 120))
    dsn = server.ensure()
    short = server.status().socket_dir
    assert len(str(short)) < 90
    assert stat.S_IMODE(short.stat().st_mode) == 0o700
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert EmbeddedPostgres(server.data_dir).ensure() == dsn


@root_only
def test_a_short_directory_that_is_somebody_elses_is_not_used(tmp_path: Path, make: Make) -> None:
    server = make(tmp_path / ("y" * 120))
    squatted = server.status().socket_dir
    squatted.mkdir()
    os.chown(squatted, 12345, 12345)
    with pytest.raises(DatabaseUnavailable, match="12345's and not yours"):
        server.ensure()


@root_only
@pytest.mark.parametrize("way", ["user namespace", "change of user"])
def test_as_root_it_runs_below_closed_directories_and_no_other_user_gets_in(
    tmp_path: Path, make: Make, way: str, request: pytest.FixtureRequest
) -> None:
    if way == "change of user":
        request.getfixturevalue("without_unshare")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    modes, users = modes_up_from(home), Path("/etc/passwd").read_bytes()
    server = make(home / "pg")
    server.ensure()
    assert modes_up_from(home) == modes
    assert Path("/etc/passwd").read_bytes() == users
    owner = (server.data_dir / "cluster").stat().st_uid
    assert (owner == 0) == (way == "user namespace")
    closed = [place for place, mode in modes.items() if not mode & 0o005]
    for place in closed:
        place.chmod(modes[place] | 0o055)  # the server's own directory must be closed by itself
    path = server.status().socket_dir / ".s.PGSQL.5432"
    assert [connects_as(uid, path) for uid in (0, 65534, 12345)] == [True, False, False]
    for place in closed:
        place.chmod(modes[place])


def test_a_cluster_made_one_way_starts_the_other_way(make: Make, request: pytest.FixtureRequest) -> None:
    server = make()
    request.getfixturevalue("without_unshare")
    server.ensure()
    killed = kill(server)
    server.ensure()
    assert pid_of(server) != killed
    request.getfixturevalue("monkeypatch").undo()
    server.stop()
    server.ensure()
    assert (server.data_dir / "cluster/PG_VERSION").stat().st_uid == 0


@root_only
@linux_only
def test_an_ordinary_user_needs_no_detour_and_is_told_of_a_closed_place() -> None:
    place = Path("/tmp") / f"memgraph-plugin-test-{os.getpid()}"  # tmp_path is closed to others
    place.mkdir(mode=0o755)
    os.chown(place, 65534, 65534)
    code = """
e = E(sys.argv[1]); e.ensure(); s = e.status()
print(os.stat(f"/proc/{s.pid}").st_uid, os.stat(e.data_dir / "cluster").st_uid, e.stop(), flush=True)
os.chmod(sys.argv[1], 0o500)
try: E(sys.argv[1] + "/new").ensure()
except Exception as error: print(type(error).__name__, "Permission denied" in str(error))
"""
    # This Python may be in a home closed to others: reading, and only reading, is allowed everywhere.
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    reader = [*user, "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--"]
    try:
        said, _ = python(code, place, prefix=reader).communicate(timeout=60)
    finally:
        shutil.rmtree(place)
    assert said == "65534 65534 True\nDatabaseUnavailable True\n"


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    for number, name in enumerate(["thesis.txt", "PG_VERSION", "cluster/thesis.txt"]):
        place = tmp_path / str(number)
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text("years of work")
        before = (place.stat().st_mode, place.stat().st_mtime_ns)
        with pytest.raises(DatabaseUnavailable, match=r"holds something else .* nothing was changed"):
            EmbeddedPostgres(place).ensure()
        assert (place.stat().st_mode, place.stat().st_mtime_ns) == before
        assert (place / name).read_text() == "years of work"


def test_files_of_another_major_version_are_refused_by_name(make: Make) -> None:
    server = make()
    version = server.data_dir / "cluster/PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(DatabaseUnavailable, match=r"made by Postgres 16, but 18\.\d+ is installed"):
        server.ensure()
    version.write_text("18\n")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnavailable, match=r"MEMGRAPH_PLUGIN_DATA_DIR"):
        EmbeddedPostgres(tmp_path / place).ensure()


@root_only
@linux_only
def test_a_full_disk_and_a_read_only_one_are_named(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        with pytest.raises(DatabaseUnavailable, match="No space left on device"):
            EmbeddedPostgres(tmp_path / "pg").ensure()
        assert not list(tmp_path.glob("pg/cluster*"))
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(DatabaseUnavailable, match="Read-only file system"):
            EmbeddedPostgres(tmp_path / "pg").ensure()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_server_that_does_not_start_says_why_and_what_to_do(make: Make) -> None:
    server = make(conf={"shared_buffers": "a lot"})
    with pytest.raises(DatabaseUnavailable, match=r"(?s)did not start.*shared_buffers.*MEMGRAPH_PLUGIN_DSN"):
        server.ensure()


def test_too_little_time_is_said_and_spoils_nothing(make: Make) -> None:
    server = make()
    with pytest.raises(DatabaseUnavailable, match="not ready yet"):
        server.ensure(timeout=0.0)
    server.ensure()
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DatabaseUnavailable, match="still runs"):
        server.stop(timeout=0.1)
    os.kill(pid, signal.SIGCONT)
