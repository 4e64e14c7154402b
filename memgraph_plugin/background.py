"""Writing memory after the answer, in this process: once a conversation pauses, its exchanges are decided on.

What was said is stored before; what is lost with a process that is killed is what it would have decided on.
Where that must not be, there is a queue in the database (`memgraph_plugin.durable`).
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from memgraph_plugin.memalpha.policies import Policy
from memgraph_plugin.nodes.decide import Deciding
from memgraph_plugin.nodes.submit import Submission, asettle, settle
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Namespace

logger = logging.getLogger(__name__)

PAUSES = 12
"""A conversation that does not pause is decided on after so many times the pause."""

KEPT_FAILURES = 1_000
"""Failures that a writer keeps, at most: the last ones."""


@dataclass(frozen=True, slots=True)
class Task:
    """A submission, and with what it is decided on."""

    submission: Submission
    store: MemoryStore
    policy: Callable[[], Policy]
    how: Deciding


@dataclass(slots=True)
class Waiting:
    """What waits, in the order in which it came, and until when each conversation does. Pure.

    Args:
        pause: seconds without a further exchange.
    """

    pause: float
    tasks: list[Task] = field(default_factory=list)
    _until: dict[tuple[Namespace, str | None], tuple[float, float]] = field(default_factory=dict)

    def add(self, task: Task, now: float) -> None:
        self.tasks.append(task)
        conversation = _conversation(task)
        _, latest = self._until.get(conversation, (0, now + PAUSES * self.pause))
        self._until[conversation] = min(now + self.pause, latest), latest

    def due(self, now: float) -> list[Task]:
        """Takes out what has waited long enough, with what came before it in the same namespace."""
        paused = {each for each, (until, _) in self._until.items() if until <= now}
        last = {
            task.submission.namespace: number
            for number, task in enumerate(self.tasks)
            if _conversation(task) in paused
        }
        is_due = [number <= last.get(task.submission.namespace, -1) for number, task in enumerate(self.tasks)]
        taken = [task for task, due in zip(self.tasks, is_due, strict=True) if due]
        self.tasks = [task for task, due in zip(self.tasks, is_due, strict=True) if not due]
        left = {_conversation(task) for task in self.tasks}
        self._until = {each: until for each, until in self._until.items() if each in left}
        return taken

    def next(self) -> float | None:
        """When something is due next; None where nothing waits."""
        return min((until for until, _ in self._until.values()), default=None)


def _conversation(task: Task) -> tuple[Namespace, str | None]:
    return task.submission.namespace, task.submission.thread


class BackgroundWriter:
    """A `MemoryWriter` in this process: a thread for sync runs, a task of the running loop for async ones.

    One namespace is written in the order of its submissions. An error is logged and kept in `failures`, the
    rest goes on. `close` and `aclose` (or `with`, `async with`) decide on what waits without a pause, as does
    a program that ends, by Ctrl-C too; close it before its store. Of an event loop that ends without
    `aclose`, what waited is not decided on, which is logged.

    Args:
        pause: seconds that a conversation must be still.
    """

    def __init__(self, pause: float = 5.0) -> None:
        self.failures: deque[tuple[Submission, Exception]] = deque(maxlen=KEPT_FAILURES)
        self._changing = threading.Lock()
        self._turn = threading.Lock()
        self._waiting, self._awaiting = Waiting(pause), Waiting(pause)
        atexit.register(self.flush)
        self._busy: list[Task] = []
        self._thread: threading.Thread | None = None
        self._watch: asyncio.Task[None] | None = None
        self._working: asyncio.Lock | None = None

    # For threads.

    def submit(
        self, store: MemoryStore, submission: Submission, policy: Callable[[], Policy], how: Deciding
    ) -> None:
        with self._changing:
            self._waiting.add(Task(submission, store, policy, how), time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="memgraph-plugin-writer", daemon=True)
                self._thread.start()

    def pending(self, namespace: Namespace) -> list[Submission]:
        with self._changing:
            tasks = [*self._busy, *self._waiting.tasks, *self._awaiting.tasks]
        return [task.submission for task in tasks if task.submission.namespace == namespace]

    def flush(self) -> None:
        """Decide on all that waits, without a pause, in this thread. Of async runs: `aflush`."""
        self._settle_due(float("inf"))

    def close(self) -> None:
        """Flush, for the last time."""
        atexit.unregister(self.flush)
        self.flush()

    def _run(self) -> None:
        while True:
            with self._changing:
                due = self._waiting.next()
                if due is None:
                    self._thread = None
                    return
            time.sleep(max(0.0, due - time.monotonic()))
            self._settle_due(time.monotonic())

    def _settle_due(self, now: float) -> None:
        with self._turn:  # so that a flush comes after what is being decided on
            with self._changing:
                due = self._waiting.due(now)
                self._busy += due
            for task in due:
                try:
                    settle(task.store, task.submission, task.policy(), task.how)
                except Exception as error:  # noqa: BLE001 - it must not stop what comes after
                    self._failed(task, error)
                finally:
                    with self._changing:
                        self._busy.remove(task)

    # For an event loop.

    async def asubmit(
        self, store: MemoryStore, submission: Submission, policy: Callable[[], Policy], how: Deciding
    ) -> None:
        loop = asyncio.get_running_loop()
        self._awaiting.add(Task(submission, store, policy, how), time.monotonic())
        if self._watch is None or self._watch.done() or self._watch.get_loop() is not loop:
            self._working = asyncio.Lock()
            # In a context of its own: the run that submits, its callbacks and its stream, ends before.
            self._watch = loop.create_task(self._arun(), context=contextvars.Context())

    async def apending(self, namespace: Namespace) -> list[Submission]:
        return self.pending(namespace)

    async def aflush(self) -> None:
        """Async twin of `flush`, of async runs."""
        await self._asettle_due(float("inf"))

    async def aclose(self) -> None:
        """Flush, of sync runs too."""
        await self.aflush()
        await asyncio.to_thread(self.close)
        if self._watch is not None and not self._watch.done():
            self._watch.cancel()

    async def _arun(self) -> None:
        try:
            while (due := self._awaiting.next()) is not None:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._asettle_due(time.monotonic())
        except asyncio.CancelledError:
            if left := len(self._awaiting.tasks):
                logger.warning("%d exchanges were not decided on: the writer was not closed", left)
            raise

    async def _asettle_due(self, now: float) -> None:
        async with self._working or asyncio.Lock():
            due = self._awaiting.due(now)
            namespaces: dict[Namespace, list[Task]] = {}
            for task in due:
                namespaces.setdefault(task.submission.namespace, []).append(task)
            with self._changing:
                self._busy += due
            await asyncio.gather(*(self._asettle(tasks) for tasks in namespaces.values()))

    async def _asettle(self, tasks: list[Task]) -> None:
        for task in tasks:
            try:
                policy = await asyncio.to_thread(task.policy)
                await asettle(task.store, task.submission, policy, task.how)
            except Exception as error:  # noqa: BLE001
                self._failed(task, error)
            finally:
                with self._changing:
                    self._busy.remove(task)

    def _failed(self, task: Task, error: Exception) -> None:
        logger.error("An exchange was stored, but not decided on: %s", type(error).__name__, exc_info=error)
        self.failures.append((task.submission, error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
