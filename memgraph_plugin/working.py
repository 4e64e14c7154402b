"""The worker: takes jobs from the queue and decides on their exchanges (`memgraph_plugin.durable`).

What procrastinate leaves open is closed here: a worker whose database went away begins anew; a job whose
worker was killed, or whose end could not be written down, is done again, which changes nothing where it was
done.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy, utils
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.worker import Worker
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from memgraph_plugin.durable import QUEUE, TASK, how_from, queue_conninfo, setup
from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.nodes.submit import asettle, submission_from
from memgraph_plugin.state import Plain
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.store.connection import checked_conninfo

logger = logging.getLogger(__name__)

ATTEMPTS = 8
"""Times that a job is tried, 2, 4, 8 ... seconds apart: some four minutes in all."""

STALLED = 30.0
"""Seconds without a sign of life after which a worker's jobs are given to others."""

BEAT = 10.0
"""Seconds between two signs of life, at most, for other workers may wait for them less patiently."""

POLL = 1.0
"""Seconds between two looks for jobs that are due."""

PATIENCE = 5.0
"""Seconds that a worker waits for a connection; and, at most, until it looks for its database again."""

LONGEST = 600.0
"""Seconds that a decision on one exchange may take; one that takes longer has failed."""

# A worker that was thought to be gone may be late: what another one has by now is not its to end.

_DONE = """
DELETE FROM procrastinate_jobs
WHERE id = %(id)s AND status = 'doing' AND attempts = %(attempts)s
    AND worker_id IS NOT DISTINCT FROM %(worker)s::bigint"""

_NOTE = """
UPDATE procrastinate_jobs
SET args = args || jsonb_build_object('exchanges', %(failed)s::jsonb, 'error', %(error)s::text)
WHERE id = %(id)s AND status = 'doing' AND attempts = %(attempts)s
    AND worker_id IS NOT DISTINCT FROM %(worker)s::bigint"""

_NOT_DONE = """
UPDATE procrastinate_jobs
SET status = %(status)s::procrastinate_job_status, attempts = attempts + 1, abort_requested = false,
    scheduled_at = now() + %(wait)s * interval '1 second'
WHERE id = %(id)s AND status = 'doing' AND attempts = %(attempts)s
    AND worker_id IS NOT DISTINCT FROM %(worker)s::bigint"""

_DUE = """
SELECT FROM procrastinate_jobs AS job WHERE status = 'todo' AND scheduled_at <= now() AND NOT EXISTS (
    SELECT FROM procrastinate_jobs AS other WHERE other.lock = job.lock
        AND (other.status = 'doing'
            OR other.status = 'todo' AND other.id < job.id AND other.scheduled_at > now()))
LIMIT 1"""


async def work(
    conninfo: str,
    db_schema: str,
    store: MemoryStore,
    policy: Callable[[], Policy],
    *,
    concurrency: int = 4,
    once: bool = False,
    stalled: float = STALLED,
    attempts: int = ATTEMPTS,
) -> None:
    """Do the queue's jobs until SIGINT or SIGTERM; what has begun is finished first. A second one ends it.

    Args:
        concurrency: jobs at a time, each of another namespace.
        once: end when nothing is due.
        stalled: seconds, see `STALLED`; fewer only where all workers have so few.
        attempts: of a job, before it is a dead letter.

    Raises:
        ConfigurationError: fewer than one attempt.
        StoreError: the queue cannot be set up.
    """
    if attempts < 1:
        raise ConfigurationError("A job has one attempt at least.")
    await asyncio.to_thread(setup, conninfo, db_schema)
    where = queue_conninfo(checked_conninfo(conninfo), db_schema)
    decider, waited = await asyncio.to_thread(policy), 0.0
    former: list[int] = []
    stopping = asyncio.Event()
    with _stopped_by_signals(stopping):
        while not stopping.is_set():
            shift = _Shift(where, store, decider, concurrency, once, stalled, attempts, former)
            try:
                await shift.run(stopping)
                waited = 0.0
                if once:
                    return
            except (ConnectorException, psycopg.Error) as error:
                waited = min(PATIENCE, waited * 2 or 0.25)
                logger.warning("The queue cannot be reached (%s); again in %.2g s", _name(error), waited)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), waited or 0.01)


@contextmanager
def _stopped_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Set `stopping` at the first SIGINT or SIGTERM, and leave the second one to the system, which ends the
    process: what a worker was at is done again by another one."""
    loop = asyncio.get_running_loop()
    former: dict[signal.Signals, Any] = {}

    def stop() -> None:
        logger.warning("Stopping when what has begun is finished; a second signal stops at once")
        stopping.set()
        for number in former:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(number, stop)
            former[number] = before
    try:
        yield
    finally:
        for number, before in former.items():
            loop.remove_signal_handler(number)
            signal.signal(number, before)


class Undecided(Exception):
    """What procrastinate is told of a job that failed: the kind of error, for it logs all that it is told."""


class _Jobs(JobManager):
    """Ends a job only for the worker that has it, and lets it wait by the database's clock.

    A job that was not done and is not tried again is "failed", never "aborted": nobody looks for that.
    """

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:  # noqa: ARG002
        if delete_job:
            await self.connector.execute_query_async(_DONE, **_held(job))
        else:
            await self._not_done(job, Status.FAILED, 0.0)

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,  # noqa: ARG002
        queue: str | None = None,  # noqa: ARG002
        lock: str | None = None,  # noqa: ARG002
    ) -> None:
        wait = (retry_at - utils.utcnow()).total_seconds() if retry_at else 0.0  # both by this worker's clock
        await self._not_done(job, Status.TODO, wait)

    async def _not_done(self, job: Job, status: Status, wait: float) -> None:
        await self.connector.execute_query_async(_NOT_DONE, status=status.value, wait=wait, **_held(job))


def _held(job: Job) -> dict[str, Any]:
    return {"id": job.id, "attempts": job.attempts, "worker": job.worker_id}


class _Pool(AsyncConnectionPool):
    """Says soon, and not after half a minute, that there is no database."""

    async def open(self, wait: bool = False, timeout: float = PATIENCE) -> None:  # noqa: ASYNC109
        await super().open(wait, timeout)


def queue_app(where: str, connections: int) -> App:
    """The queue as a worker sees it, not open yet."""
    pool: dict[str, Any] = {"min_size": 1, "max_size": connections, "timeout": PATIENCE}
    app = App(connector=PsycopgConnector(conninfo=where, pool_factory=_Pool, **pool))
    app.job_manager = _Jobs(app.connector)
    return app


class _Shift:
    """One registered worker, from when the database is there until it is not, or until it is to stop."""

    def __init__(
        self,
        where: str,
        store: MemoryStore,
        policy: Policy,
        concurrency: int,
        once: bool,
        stalled: float,
        attempts: int,
        former: list[int],
    ) -> None:
        self._app = queue_app(where, concurrency + 2)
        self._store, self._policy = store, policy
        self._once, self._stalled, self._attempts, self._former = once, stalled, attempts, former
        self._beat = min(BEAT, stalled / 3)
        self._running: set[int] = set()
        self._left: set[int] = set()
        # Not 0 attempts more, which procrastinate takes for any number of them.
        retry = RetryStrategy(max_attempts=attempts - 1, exponential_wait=2) if attempts > 1 else False
        self._app.task(name=TASK, queue=QUEUE, pass_context=True, retry=retry)(self._decide)
        self._options: dict[str, Any] = {
            "queues": [QUEUE],
            "concurrency": concurrency,
            "wait": not once,
            "delete_jobs": "successful",
            # Jobs are due later than they are inserted: a notice comes too early.
            "listen_notify": False,
            "fetch_job_polling_interval": POLL,
            "install_signal_handlers": False,
            "update_heartbeat_interval": self._beat,
            "stalled_worker_timeout": stalled,
        }

    async def run(self, stopping: asyncio.Event) -> None:
        async with self._app.open_async():
            worker = Worker(self._app, **self._options)
            for number in self._former:  # nothing of theirs runs any more
                await self._put_back(await self._doing(number))
            self._former.clear()
            await self._give_back(worker)
            tending = asyncio.create_task(self._tend(worker))
            stop = asyncio.create_task(_then(stopping, worker.stop))
            try:
                await worker.run()  # type: ignore[no-untyped-call]
                while self._once and not stopping.is_set() and await self._is_due():
                    # It ended while what is due now waited for its namespace.
                    await worker.run()  # type: ignore[no-untyped-call]
            finally:
                tending.cancel()
                stop.cancel()
                if worker.worker_id is not None:  # it could not say goodbye
                    self._former.append(worker.worker_id)

    async def _is_due(self) -> bool:
        return bool(await self._app.connector.execute_query_all_async(_DUE))

    async def _decide(
        self, context: JobContext, /, *, exchanges: list[Plain], how: Plain | None = None, **_: Any
    ) -> None:
        job = context.job
        last = job.attempts + 1 >= self._attempts
        failed: list[Plain] = []
        error = ""
        self._running.add(int(job.id or 0))
        try:
            for number, exchange in enumerate(exchanges):
                try:
                    # A model that is out for a minute is asked again; the rules decide the last time.
                    deciding = replace(how_from(how), fallback=last)
                    async with asyncio.timeout(LONGEST):
                        await asettle(self._store, submission_from(exchange), self._policy, deciding)
                except Exception as raised:  # noqa: BLE001 - whatever a policy or a store trips over
                    error = _name(raised)  # no more of it: a message may quote what was said
                    logger.error("Job %d failed (%s)", job.id, error)
                    failed.append(exchange)
                    if not last:  # what was said after it is not decided on before it
                        failed = exchanges[number:]
                        break
            if failed:
                with suppress(ConnectorException, psycopg.Error):
                    await self._note(job, failed, error)
        finally:
            self._running.discard(int(job.id or 0))
        if failed:
            raise Undecided(error)

    async def _note(self, job: Job, failed: list[Plain], error: str) -> None:
        """Keep with the job what is left of it, and what it failed of: the kind of error, which says nothing
        of what was said."""
        await self._app.connector.execute_query_async(_NOTE, failed=Jsonb(failed), error=error, **_held(job))

    async def _tend(self, worker: Worker) -> None:
        # Procrastinate's own task for it ends with the first statement that fails, and nobody looks.
        while True:
            await asyncio.sleep(self._beat)
            try:
                if worker.worker_id is not None:
                    await self._app.job_manager.update_heartbeat(worker.worker_id)
                await self._give_back(worker)
            except (ConnectorException, psycopg.Error) as error:
                logger.warning("The queue cannot be tended (%s)", _name(error))

    async def _give_back(self, worker: Worker) -> None:
        """Put back jobs of workers that are gone, and those of this one whose end was not written down."""
        jobs = self._app.job_manager
        gone = list(await jobs.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=self._stalled))
        if worker.worker_id is not None:
            left = [job for job in await self._doing(worker.worker_id) if job.id not in self._running]
            gone += [job for job in left if job.id in self._left]  # twice: it is about to begin, or to end
            self._left = {int(job.id or 0) for job in left}
        await self._put_back(job for job in gone if job.id not in self._running)

    async def _doing(self, worker: int) -> Iterable[Job]:
        status = Status.DOING.value
        return await self._app.job_manager.list_jobs_async(queue=QUEUE, status=status, worker_id=worker)

    async def _put_back(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.attempts + 1 >= self._attempts:  # it may be what kills the workers
                logger.error("Job %s was cut off %d times and is a dead letter now", job.id, job.attempts + 1)
                await self._app.job_manager.finish_job(job, Status.FAILED, delete_job=False)
            else:
                await self._app.job_manager.retry_job(job)


async def _then(event: asyncio.Event, do: Callable[[], None]) -> None:
    await event.wait()
    do()


def _name(error: BaseException) -> str:
    cause = error.__cause__
    return f"{type(error).__name__}" + (f": {type(cause).__name__}" if cause else "")
