"""Ends the server whose threads have ended or stand still, so that its supervisor starts it afresh.

Before that /health tells of it for a moment. Two watch over each other: a thread over the event loop and all else that
goes on, and the event loop over that thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ratchet.watchdog import TICK_S, Watch, Watchdog, WatchedThread, end_process, leave_process

log = logging.getLogger(__name__)

LOOP_LIMIT_S = 60.0
"""A cold import of torch beside it, and a starved machine, may keep the event loop waiting for a good while."""

LINGER_S = 2.0
"""How long /health tells of a problem before the process exits."""

CLOSE_S = 60.0
"""What the end of a server may take beside the answers that it has begun: vLLM's processes are ended, too.

A model that is being loaded may take longer, and is not waited for.
"""


class Guard:
    """Looks at a watchdog once a second. ``is_stopping`` tells that the server was told to stop.

    ``end`` is for a server that has come to a standstill, ``leave`` for one that is merely slow to stop.
    """

    def __init__(
        self,
        watchdog: Watchdog,
        *,
        is_stopping: Callable[[], bool],
        drain_s: float,
        end: Callable[[str], object] = end_process,
        leave: Callable[[str], object] = leave_process,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._watchdog = watchdog
        self._is_stopping = is_stopping
        self._close_s = drain_s + CLOSE_S
        self._end, self._leave, self._clock = end, leave, clock
        self._itself = Watchdog()
        self._over = threading.Event()
        self._thread = WatchedThread(self._run, self._itself, self._over, name="guard", limit_s=LOOP_LIMIT_S)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(LINGER_S)

    def check(self) -> None:
        """Called by the event loop: is there still somebody who watches?"""
        problem = self._itself.check()
        if problem is not None:
            self._end(problem)

    def _run(self) -> None:
        stopping_s, looked_at = 0.0, self._clock()
        while not self._over.wait(TICK_S):
            self._thread.watch.beat()
            now = self._clock()
            if self._is_stopping():
                stopping_s += min(now - looked_at, 2 * TICK_S)  # as a watchdog counts: it may have been frozen
            looked_at = now
            if (problem := self._watchdog.check()) is not None:
                log.critical("%s; the server exits in %g s", problem, LINGER_S)
                time.sleep(LINGER_S)
                self._end(problem)
                return
            if stopping_s > self._close_s:
                self._leave(f"told to stop {self._close_s:g} s ago, the server has not ended")
                return


@asynccontextmanager
async def watched_loop(watchdog: Watchdog, on_tick: Callable[[], None]) -> AsyncIterator[None]:
    """Have the running event loop beat once a second, and call ``on_tick`` as often."""
    watch = Watch("the event loop", LOOP_LIMIT_S)

    async def beat() -> None:
        while True:
            watch.beat()
            on_tick()
            await asyncio.sleep(TICK_S)

    watchdog.add(watch)
    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        watchdog.remove(watch)
