"""A queue in the database of what is to be decided on later: nothing is lost with a process, or a server.

The jobs are `procrastinate`'s, in a schema beside ours (`memgraph_plugin_queue`). A job is a conversation's
exchanges since it last paused. Jobs of a namespace share a lock: they run in order, one at a time. They carry
keys of turns and no text: what was said is sealed, guarded and forgotten by the store alone. Where a graph
has a profile or a safety of its own, its jobs carry how it decides: a worker knows no graph.

No job has a `queueing_lock`: a job that is put back after a failure breaks that index where the next one
waits already, and stays "doing" for ever. An exchange joins the job that waits instead, in one statement.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import TypeAdapter

from memgraph_plugin.background import PAUSES
from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.memalpha.blocks import CoreBlock
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.memalpha.safety import Safety
from memgraph_plugin.nodes.decide import DECIDING, Deciding
from memgraph_plugin.nodes.submit import Submission, plain_submission, submission_from
from memgraph_plugin.state import Plain
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.connection import checked_conninfo, translated
from memgraph_plugin.store.jobs import queue_schema, queue_version
from memgraph_plugin.store.records import encode
from memgraph_plugin.types import Namespace

try:
    from procrastinate import App, SyncPsycopgConnector
    from procrastinate.exceptions import ConnectorException
    from procrastinate.jobs import Job, Status
    from procrastinate.schema import SchemaManager
except ImportError as error:
    raise MissingExtraError("worker", "A queue in the database") from error

QUEUE = "memory"
TASK = "decide"

MOST_EXCHANGES = 50
"""Exchanges of one job; a further one begins the next."""

_JOIN = """
UPDATE procrastinate_jobs
SET args = jsonb_set(args, '{exchanges}', args->'exchanges' || jsonb_build_array(%(exchange)s::jsonb)),
    scheduled_at = least(now() + %(pause)s * interval '1 second', (args->>'latest')::timestamptz)
WHERE status = 'todo' AND attempts = 0 AND args->>'thread' IS NOT DISTINCT FROM %(thread)s::text
    AND args->'how' IS NOT DISTINCT FROM %(how)s::jsonb AND jsonb_array_length(args->'exchanges') < %(most)s
    AND id = (
        SELECT max(id) FROM procrastinate_jobs WHERE lock = %(lock)s AND status IN ('todo', 'doing'))
RETURNING id"""
# The newest job of the namespace, whatever its conversation: an exchange that joined an older one would be
# decided on before what was said earlier elsewhere. A row that a worker takes meanwhile is looked at again.

_PENDING = """
SELECT args->'exchanges' AS exchanges FROM procrastinate_jobs
WHERE lock = %(lock)s AND status NOT IN ('succeeded', 'cancelled') ORDER BY id"""
# A dead letter, too: replayed after a request to forget, it would bring back what was meant.

_UNTIL = """
SELECT now() + %(pause)s * interval '1 second' AS due,
    (now() + %(longest)s * interval '1 second')::text AS latest"""
# By the database's clock, as everything that is compared with it.


@dataclass(frozen=True, slots=True)
class _How:
    """What a job can carry of how it is decided."""

    k: int
    core: tuple[CoreBlock, ...]
    safety: Safety


_HOW: TypeAdapter[_How] = TypeAdapter(_How)


def plain_how(how: Deciding) -> Plain | None:
    """How it is decided, as JSON; None stands for the default.

    Raises:
        ConfigurationError: a worker could not decide so: a human is asked, or a class is the caller's own.
    """
    plain: Plain = _HOW.dump_python(_How(how.k, tuple(how.core), how.safety), mode="json")
    carried = how_from(plain)
    if carried != replace(how, core=tuple(how.core)):
        raise ConfigurationError(
            "A queue carries k=, core= and safety= to its workers: no approve=, and no classes of your own."
        )
    return None if carried == DECIDING else plain


def how_from(plain: Plain | None) -> Deciding:
    """How it is decided, as `plain_how` wrote it down."""
    if plain is None:
        return DECIDING
    carried = _HOW.validate_python(plain)
    return Deciding(carried.k, carried.core, safety=carried.safety)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that was tried often enough. `error` names what it failed of, the last time."""

    id: int
    namespace: str
    thread: str | None
    exchanges: int
    attempts: int
    error: str


class QueueWriter:
    """A `MemoryWriter` that leaves a job in the database, for `memgraph-plugin worker` to do.

    What `submit` returned for is not lost, whatever is killed. The worker's policy decides on it, with the
    profile and the safety of whoever submitted it. Close it, or use `with`, in the end.

    Args:
        conninfo: the connection string of the store's database.
        pause: seconds that a conversation must be still.
        db_schema: the store's schema; the queue's is named after it.

    Raises:
        ConfigurationError: `conninfo` is no connection string.
        MissingExtraError: the extra `worker` is not installed.
    """

    def __init__(self, conninfo: str, pause: float = 5.0, *, db_schema: str = "memgraph_plugin") -> None:
        self._where = checked_conninfo(conninfo), db_schema
        self._pause = pause
        self._opening = threading.Lock()
        self._app: App | None = None

    def submit(
        self,
        store: MemoryStore,  # noqa: ARG002 - a worker has its own, and its own policy
        submission: Submission,
        policy: Callable[[], Policy],  # noqa: ARG002
        how: Deciding,
    ) -> None:
        app, lock = self._opened(), encode(submission.namespace)
        exchange, carried = plain_submission(submission), plain_how(how)
        with _translated():
            connector = app.connector
            names = {"lock": lock, "thread": submission.thread, "how": carried, "most": MOST_EXCHANGES}
            if connector.execute_query_all(_JOIN, exchange=exchange, pause=self._pause, **names):
                return
            until = connector.execute_query_one(_UNTIL, pause=self._pause, longest=PAUSES * self._pause)
            new = {"exchanges": [exchange], "thread": submission.thread, "latest": until["latest"]}
            app.configure_task(TASK, queue=QUEUE, lock=lock, schedule_at=until["due"]).defer(
                **new if carried is None else {**new, "how": carried}
            )

    async def asubmit(
        self, store: MemoryStore, submission: Submission, policy: Callable[[], Policy], how: Deciding
    ) -> None:
        await asyncio.to_thread(self.submit, store, submission, policy, how)

    def pending(self, namespace: Namespace) -> list[Submission]:
        with _translated():
            jobs = self._opened().connector.execute_query_all(_PENDING, lock=encode(namespace))
        return [submission_from(each) for job in jobs for each in job["exchanges"]]

    async def apending(self, namespace: Namespace) -> list[Submission]:
        return await asyncio.to_thread(self.pending, namespace)

    def close(self) -> None:
        """Let go of the connections. What was submitted is in the database."""
        with self._opening:
            if self._app is not None:
                self._app.close()
                self._app = None

    def _opened(self) -> App:
        with self._opening:
            if self._app is None:
                setup(*self._where)
                self._app = _app(*self._where)
            return self._app

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# The tables.


def queue_conninfo(conninfo: str, db_schema: str) -> str:
    """The connection string with which procrastinate finds its tables, which it never qualifies."""
    given = str(conninfo_to_dict(conninfo).get("options") or "")
    path = sql.Identifier(queue_schema(db_schema)).as_string().replace("\\", "\\\\").replace(" ", "\\ ")
    return make_conninfo(conninfo, options=f"{given} -c search_path={path}".strip())


def setup(conninfo: str, db_schema: str) -> bool:
    """Make the queue's tables, or bring them up to the installed procrastinate; whether there was something
    to do. The schema's comment names the newest migration that it has.

    Raises:
        DatabaseUnavailable: there is no database.
        StoreError: a right is missing.
    """
    name, migrations = queue_schema(db_schema), _migrations()
    newest = max(migrations)
    with translated(), psycopg.connect(checked_conninfo(conninfo), autocommit=True) as conn:
        if queue_version(conn, db_schema) == newest:
            return False
        with conn.transaction():
            conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"queue {name}"])
            at = queue_version(conn, db_schema)
            if at == newest:
                return False
            conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name)))
            conn.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(name)))
            texts = [migrations[each].read_text() for each in sorted(migrations) if at and each > at]
            for text in texts if at else [SchemaManager.get_schema()]:
                conn.execute(text.encode())
            conn.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(name), newest))
    return True


def _migrations() -> dict[str, Path]:
    folder = Path(SchemaManager.get_migrations_path())
    return {path.stem: path for path in folder.glob("*.sql")}


# Looking after it.


def dead_letters(conninfo: str, db_schema: str) -> list[DeadLetter]:
    """The jobs that failed for good, oldest first."""
    with queue(conninfo, db_schema) as app:
        jobs = app.job_manager.list_jobs(queue=QUEUE, status=Status.FAILED.value)
    return [_dead_letter(job, dict(job.task_kwargs)) for job in jobs]


def _dead_letter(job: Job, args: dict[str, Any]) -> DeadLetter:
    return DeadLetter(
        id=int(job.id or 0),
        namespace=job.lock or "",
        thread=args.get("thread"),
        exchanges=len(args["exchanges"]),
        attempts=job.attempts,
        error=args.get("error", ""),
    )


def replay(conninfo: str, db_schema: str, ids: list[int]) -> None:
    """Have these dead letters tried again, from the first attempt.

    Raises:
        ConfigurationError: one of them is none; nothing was changed.
    """
    known = {letter.id for letter in dead_letters(conninfo, db_schema)}
    if unknown := [each for each in ids if each not in known]:
        raise ConfigurationError(f"Job {unknown[0]} is no dead letter: `memgraph-plugin worker failed`.")
    with queue(conninfo, db_schema) as app:
        app.connector.execute_query(
            "UPDATE procrastinate_jobs SET status = 'todo', attempts = 0, scheduled_at = now() "
            "WHERE id = ANY(%(ids)s) AND status = 'failed'",
            ids=ids,
        )


@contextmanager
def queue(conninfo: str, db_schema: str) -> Iterator[App]:
    """The queue, open, with its tables in place."""
    setup(conninfo, db_schema)
    app = _app(conninfo, db_schema)
    try:
        with _translated():
            yield app
    finally:
        app.close()


def _app(conninfo: str, db_schema: str) -> App:
    where = queue_conninfo(checked_conninfo(conninfo), db_schema)
    with _translated():
        return App(connector=SyncPsycopgConnector(conninfo=where, min_size=1, max_size=4)).open()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what procrastinate makes of psycopg's errors as errors of this package."""
    with translated():
        try:
            yield
        except ConnectorException as error:
            if isinstance(error.__cause__, psycopg.Error):
                raise error.__cause__ from None
            raise
