"""Work that no call waits for: tasks of an event loop, or threads. The two have one shape."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

PATIENCE = 10.0
"""Seconds that closing waits for work that was told to end."""


class AsyncBackground:
    """Tasks on the running loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async def run() -> None:
            await work(*arguments)

        task = asyncio.get_running_loop().create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def wait(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=PATIENCE)


class Background:
    """Threads, which end with the process."""

    def __init__(self) -> None:
        self._running: set[threading.Thread] = set()

    def start(self, work: Callable[..., None], *arguments: object) -> None:
        self._running = {thread for thread in self._running if thread.is_alive()}
        thread = threading.Thread(target=work, args=arguments, name="memgraph-plugin-index", daemon=True)
        self._running.add(thread)
        thread.start()

    def wait(self) -> None:
        for thread in self._running:
            thread.join(PATIENCE)
