"""Work that several threads do at once."""

from __future__ import annotations

import threading
from collections.abc import Callable


def at_once(work: Callable[[int], object], threads: int) -> list[BaseException]:
    """Run `work` in so many threads; the errors that they ended with."""
    errors: list[BaseException] = []

    def one(n: int) -> None:
        try:
            work(n)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    running = [threading.Thread(target=one, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return errors
