"""Writing memory after the answer, in this process: once a conversation pauses, its exchanges are decided on.

What was said is stored before; what is lost with a process that is killed is what it would have decided on.
Where that must not be, there is a queue in the database (`memgraph_plugin.durable`).
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import threading
import time
import weakref
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

    def put_back(self, tasks: list[Task], now: float) -> None:
        """Takes in again, before all else, what was taken out and not decided on; for a further pause."""
        self.tasks = [*tasks, *self.tasks]
        for task in tasks:
            self._until.setdefault(_conversation(task), (now + self.pause, now + PAUSES * self.pause))

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


@dataclass(slots=True)
class Awaiting:
    """What waits for one event loop, and who watches over it there."""

    waiting: Waiting
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    watch: asyncio.Task[None] | None = None


class BackgroundWriter:
    """A `MemoryWriter` in this process: a thread for sync runs, a task of the running loop for async ones.

    One namespace is written in the order of its submissions, those of a loop, or of all threads. Errors are
    logged by type and kept in `failures`, the rest goes on. `close` and `aclose` (or `with`, `async with`)
    decide on what waits without a pause, as does a program that ends, by Ctrl-C too; close it before its
    store. What they are interrupted at waits again. Of an event loop that ends without `aclose`, what waited
    is logged, and decided on by the next `flush`, `close` or loop. A forked process begins with nothing.

    Args:
        pause: seconds that a conversation must be still.
    """

    def __init__(self, pause: float = 5.0) -> None:
        self.failures: deque[tuple[Submission, Exception]] = deque(maxlen=KEPT_FAILURES)
        self._pause = pause
        self._begin()
        atexit.register(self.flush)
        _writers.add(self)

    def _begin(self) -> None:
        self._changing = threading.Lock()
        self._turn = threading.Lock()
        self._waiting = Waiting(self._pause)
        self._loops: dict[asyncio.AbstractEventLoop, Awaiting] = {}
        self._busy: list[Task] = []
        self._thread: threading.Thread | None = None

    # For threads.

    def submit(
        self, store: MemoryStore, submission: Submission, policy: Callable[[], Policy], how: Deciding
    ) -> None:
        with self._changing:
            self._waiting.add(Task(submission, store, policy, how), time.monotonic())
            if self._thread is None or not self._thread.is_alive():  # what broke it is told by Python
                self._thread = threading.Thread(target=self._run, name="memgraph-plugin-writer", daemon=True)
                self._thread.start()

    def pending(self, namespace: Namespace) -> list[Submission]:
        with self._changing:
            loops = (task for here in self._loops.values() for task in here.waiting.tasks)
            tasks = [*self._busy, *self._waiting.tasks, *loops]
        return [task.submission for task in tasks if task.submission.namespace == namespace]

    def flush(self) -> None:
        """Decide on all that waits, without a pause, in this thread. Of async runs, while their loop is
        not closed: `aflush`."""
        with self._changing:
            self._waiting.put_back(self._left(), time.monotonic())
        self._settle_due(float("inf"))

    def close(self) -> None:
        """Flush, for the last time."""
        self.flush()
        atexit.unregister(self.flush)

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
            left: list[Task] = []
            try:
                with self._changing:
                    left += self._waiting.due(now)
                    self._busy += left
                while left:
                    task = left[0]
                    try:
                        settle(task.store, task.submission, task.policy(), task.how)
                    except Exception as error:  # noqa: BLE001 - it must not stop what comes after
                        self._failed(task, error)
                    self._done(task)
                    left.pop(0)
            finally:
                self._put_back(self._waiting, left)

    def _done(self, task: Task) -> None:
        with self._changing:
            self._busy.remove(task)

    def _put_back(self, waiting: Waiting, tasks: list[Task]) -> None:
        """Of what was interrupted, nothing is lost; twice decided on, nothing changes."""
        with self._changing:
            self._busy = [task for task in self._busy if task not in tasks]
            waiting.put_back(tasks, time.monotonic())

    def _left(self) -> list[Task]:
        """Takes what the loops that are closed have left."""
        closed = [loop for loop in self._loops if loop.is_closed()]
        return [task for loop in closed for task in self._loops.pop(loop).waiting.tasks]

    # For an event loop.

    async def asubmit(
        self, store: MemoryStore, submission: Submission, policy: Callable[[], Policy], how: Deciding
    ) -> None:
        here = self._here()
        with self._changing:
            here.waiting.add(Task(submission, store, policy, how), time.monotonic())
        if here.watch is None or here.watch.done():
            # In a context of its own: the run that submits, its callbacks and its stream, ends before.
            work = self._arun(here)
            here.watch = asyncio.get_running_loop().create_task(work, context=contextvars.Context())

    def _here(self) -> Awaiting:
        """What waits for the running loop, with what closed ones have left."""
        with self._changing:
            here = self._loops.setdefault(asyncio.get_running_loop(), Awaiting(Waiting(self._pause)))
            here.waiting.put_back(self._left(), time.monotonic())
            return here

    async def apending(self, namespace: Namespace) -> list[Submission]:
        return self.pending(namespace)

    async def aflush(self) -> None:
        """Async twin of `flush`, of async runs."""
        await self._asettle_due(self._here(), float("inf"))

    async def aclose(self) -> None:
        """Flush, of sync runs too."""
        await self.aflush()
        await asyncio.to_thread(self.close)
        watch = self._here().watch
        if watch is not None and not watch.done():
            watch.cancel()

    async def _arun(self, here: Awaiting) -> None:
        try:
            while (due := here.waiting.next()) is not None:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._asettle_due(here, time.monotonic())
        except asyncio.CancelledError:
            if left := len(here.waiting.tasks):
                logger.warning("%d exchanges are not decided on: the writer was not closed", left)
            raise

    async def _asettle_due(self, here: Awaiting, now: float) -> None:
        async with here.deciding:
            namespaces: dict[Namespace, list[Task]] = {}
            with self._changing:
                due = here.waiting.due(now)
                self._busy += due
            for task in due:
                namespaces.setdefault(task.submission.namespace, []).append(task)
            try:
                async with asyncio.TaskGroup() as group:
                    for tasks in namespaces.values():
                        group.create_task(self._asettle(tasks))
            finally:
                self._put_back(here.waiting, [task for tasks in namespaces.values() for task in tasks])

    async def _asettle(self, left: list[Task]) -> None:
        while left:
            task = left[0]
            try:
                policy = await asyncio.to_thread(task.policy)
                await asettle(task.store, task.submission, policy, task.how)
            except Exception as error:  # noqa: BLE001
                self._failed(task, error)
            self._done(task)
            left.pop(0)

    def _failed(self, task: Task, error: Exception) -> None:
        # Not its message, which may quote what was said.
        logger.error("An exchange was stored, but not decided on: %s", type(error).__name__)
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


_writers: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()


def _forked() -> None:
    """What waits is the parent's to decide on; its thread and whoever held a lock are not in the child."""
    for writer in list(_writers):
        writer._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
