"""Ends a server whose threads have ended or stalled, so that its supervisor restarts it.

Before that, /health reports the problem for a moment. A thread checks the event loop and the other threads, and the
event loop checks that thread.
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
"""A cold import of torch, or an overloaded machine, may delay the event loop for many seconds."""

LINGER_S = 2.0
"""How long /health reports a problem before the process exits."""

CLOSE_S = 60.0
"""Time that a shutdown may take in addition to the answers in flight, for instance to end vLLM's processes. A model
that is being loaded may take longer, and is not waited for."""


class Guard:
    """Checks a watchdog once a second. ``is_stopping`` returns whether the server is shutting down.

    ``end`` ends a server that has stalled, ``leave`` one that is only slow to shut down.
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
        self._own_watchdog = Watchdog()
        self._over = threading.Event()
        self._thread = WatchedThread(self._run, self._own_watchdog, self._over, name="guard", limit_s=LOOP_LIMIT_S)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(LINGER_S)

    def check(self) -> None:
        """End the process if the guard's own thread has ended or stalled. Called by the event loop."""
        problem = self._own_watchdog.check()
        if problem is not None:
            self._end(problem)

    def _run(self) -> None:
        stopping_s, looked_at = 0.0, self._clock()
        while not self._over.wait(TICK_S):
            self._thread.watch.beat()
            now = self._clock()
            if self._is_stopping():
                stopping_s += min(now - looked_at, 2 * TICK_S)  # as in Watchdog: the process may have been suspended
            looked_at = now
            if (problem := self._watchdog.check()) is not None:
                log.critical("%s; the server exits in %g s", problem, LINGER_S)
                time.sleep(LINGER_S)
                self._end(problem)
                return
            if stopping_s > self._close_s:
                self._leave(f"the server has not shut down within {self._close_s:g} s")
                return


@asynccontextmanager
async def watched_loop(watchdog: Watchdog, on_tick: Callable[[], None]) -> AsyncIterator[None]:
    """Have the running event loop send a heartbeat and call ``on_tick`` once a second."""
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
