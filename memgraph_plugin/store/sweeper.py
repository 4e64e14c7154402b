"""Sweeping every few minutes, by LangGraph's methods: a sync store's thread, an async store's task."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import weakref
from abc import abstractmethod
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from langgraph.store.base import TTLConfig

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store.base import MemoryStore

INTERVAL = 5.0
"""Minutes between two sweeps, where nobody says otherwise: LangGraph's."""

_log = logging.getLogger(__name__)


class SweptByThread(MemoryStore):
    """A store with a sync `sweep_ttl`, which a thread of its own calls."""

    supports_ttl = True

    _sweeper: tuple[threading.Thread, threading.Event, Future[None]] | None = None

    @abstractmethod
    def sweep_ttl(self) -> int:
        """Let go of every memory that has expired, with its history; returns how many they were.

        Expired memories are not to be seen from their time on, whether swept or not. What another process
        is writing is left to the next sweep.
        """

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Sweep now and every so many minutes, until the store is closed; a failed sweep is logged.

        Returns: a future that ends with the sweeper, and ends it when cancelled. It is done at once where
            the store was given no `ttl`.

        Raises:
            ConfigurationError: the interval is no number of minutes above 0.
        """
        seconds = _seconds(self.ttl_config, sweep_interval_minutes)
        if self._sweeper is not None and self._sweeper[0].is_alive():
            return self._sweeper[2]
        done: Future[None] = Future()
        if seconds is None:
            done.set_result(None)
            return done
        stop = threading.Event()
        weakref.finalize(self, stop.set)
        work = threading.Thread(
            target=_sweep_in_thread, args=(weakref.ref(self), stop, seconds, done), daemon=True
        )
        self._sweeper = (work, stop, done)
        done.add_done_callback(lambda _: stop.set())
        work.start()
        return done

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop sweeping; False where a sweep took more than `timeout` seconds to come to its end."""
        if self._sweeper is None:
            return True
        thread, stop, _ = self._sweeper
        stop.set()
        thread.join(timeout)
        return not thread.is_alive()


class SweptByTask(MemoryStore):
    """A store with an async `sweep_ttl`, which a task of its loop calls."""

    supports_ttl = True

    _sweeper: asyncio.Task[None] | None = None

    @abstractmethod
    async def sweep_ttl(self) -> int:
        """Let go of every memory that has expired, with its history; returns how many they were.

        Expired memories are not to be seen from their time on, whether swept or not. What another process
        is writing is left to the next sweep.
        """

    async def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> asyncio.Task[None]:
        """Sweep now and every so many minutes, until the store is closed; a failed sweep is logged.

        Returns: a task that ends the sweeper when cancelled. It ends at once where the store was given no
            `ttl`.

        Raises:
            ConfigurationError: the interval is no number of minutes above 0.
        """
        seconds = _seconds(self.ttl_config, sweep_interval_minutes)
        if self._runs():
            assert self._sweeper is not None  # noqa: S101 - for mypy
            return self._sweeper
        if seconds is None:
            return asyncio.create_task(asyncio.sleep(0))
        self._sweeper = asyncio.create_task(self._sweep_in_task(seconds), name="ttl_sweeper")
        return self._sweeper

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - LangGraph's
        """Stop sweeping; False where a sweep took more than `timeout` seconds to come to its end."""
        if not self._runs():
            return True
        assert self._sweeper is not None  # noqa: S101 - for mypy
        self._sweeper.cancel()
        await asyncio.wait([self._sweeper], timeout=timeout)
        return self._sweeper.done()

    def _runs(self) -> bool:
        """Whether there is a sweeper in this loop; that of one that has ended is gone with it."""
        return (
            self._sweeper is not None
            and not self._sweeper.done()
            and self._sweeper.get_loop() is asyncio.get_running_loop()
        )

    async def _sweep_in_task(self, seconds: float) -> None:
        while True:
            try:
                _say(await self.sweep_ttl())
            except Exception:  # noqa: BLE001 - whatever it was, the next sweep may do better
                _log.exception("A sweep of expired memories failed; the next one is in %g s.", seconds)
            await asyncio.sleep(seconds)


def _sweep_in_thread(
    store: weakref.ref[SweptByThread], stop: threading.Event, seconds: float, done: Future[None]
) -> None:
    """Holds the store only while it sweeps: one that nobody else holds is to be let go."""
    while not stop.is_set():
        _sweep(store, seconds)
        stop.wait(seconds)
    with suppress(InvalidStateError):  # it was cancelled, which is what stopped this
        done.set_result(None)


def _sweep(store: weakref.ref[SweptByThread], seconds: float) -> None:
    swept = store()
    if swept is None:
        return
    try:
        _say(swept.sweep_ttl())
    except Exception:  # noqa: BLE001 - whatever it was, the next sweep may do better
        _log.exception("A sweep of expired memories failed; the next one is in %g s.", seconds)


def _say(swept: int) -> None:
    if swept:
        _log.info("Swept %d expired memories.", swept)


def _seconds(ttl: TTLConfig | None, minutes: float | None) -> float | None:
    """Between two sweeps; None where the store has no times to live."""
    if not ttl:
        return None
    found = minutes or ttl.get("sweep_interval_minutes") or INTERVAL
    if not (isinstance(found, int | float) and math.isfinite(found) and found > 0):
        raise ConfigurationError(f"sweep_interval_minutes must be a number above 0, not {found!r}.")
    return min(found * 60, threading.TIMEOUT_MAX)
