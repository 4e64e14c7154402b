"""The worker: takes jobs from the queue and decides on their exchanges (`memgraph_plugin.durable`).

What procrastinate leaves open is closed here: a worker whose database went away begins anew; a job whose
worker was killed, or whose end could not be written down, is done again, which changes nothing where it was
done.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import psycopg
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.worker import Worker

from memgraph_plugin.durable import QUEUE, TASK, queue_conninfo, setup
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

POLL = 1.0
"""Seconds between two looks for jobs that are due."""

PATIENCE = 5.0
"""Seconds at most until a worker looks again for a database that went away."""

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
    """Do the queue's jobs until SIGINT or SIGTERM; what has begun is finished first.

    Args:
        concurrency: jobs at a time, each of another namespace.
        once: end when nothing is due.
        stalled: seconds, see `STALLED`.
        attempts: of a job, before it is a dead letter.

    Raises:
        StoreError: the queue cannot be set up.
    """
    await asyncio.to_thread(setup, conninfo, db_schema)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(number, stopping.set)
    where = queue_conninfo(checked_conninfo(conninfo), db_schema)
    decider, waited = await asyncio.to_thread(policy), 0.0
    former: list[int] = []
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
        self._app = App(connector=PsycopgConnector(conninfo=where, min_size=1, max_size=concurrency + 2))
        self._store, self._policy = store, policy
        self._once, self._stalled, self._attempts, self._former = once, stalled, attempts, former
        self._running: set[int] = set()
        self._left: set[int] = set()
        retry = RetryStrategy(max_attempts=attempts - 1, exponential_wait=2)
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
            "update_heartbeat_interval": stalled / 3,
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

    async def _decide(self, context: JobContext, /, *, exchanges: list[Plain], **_: Any) -> None:
        job = int(context.job.id or 0)
        self._running.add(job)
        try:
            for exchange in exchanges:
                await asettle(self._store, submission_from(exchange), self._policy)
        except Exception as error:
            logger.exception("Job %d failed", job)
            with suppress(ConnectorException, psycopg.Error):
                await self._note(job, _name(error))
            raise
        finally:
            self._running.discard(job)

    async def _note(self, job: int, error: str) -> None:
        """Keep with the job what it failed of: the kind of error, which says nothing of what was said."""
        await self._app.connector.execute_query_async(
            "UPDATE procrastinate_jobs SET args = jsonb_set(args, '{error}', to_jsonb(%(error)s::text)) "
            "WHERE id = %(id)s",
            id=job,
            error=error,
        )

    async def _tend(self, worker: Worker) -> None:
        # Procrastinate's own task for it ends with the first statement that fails, and nobody looks.
        while True:
            await asyncio.sleep(self._stalled / 3)
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
            with suppress(ConnectorException):  # another worker was faster
                await self._again(job)

    async def _again(self, job: Job) -> None:
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
