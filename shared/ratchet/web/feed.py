"""Tells every open page that the ledger has changed: one reader of the ledger for all viewers, and none without any.

Browsers listen to ``/feed`` (server-sent events). ``ledger`` says that pages should ask for their new state, and
``training`` carries the step, loss and speed of training, which change too often to render a page for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.orm import Session

from ratchet.errors import RatchetError
from ratchet.ledger import Ledger
from ratchet.ledger.changes import fingerprint
from ratchet.settings import Settings
from ratchet.views.reading import training_now
from ratchet.web.rendering import browser_json

log = logging.getLogger(__name__)

READ_S = 2.0
"""How often the ledger is read while anybody looks; training tells its step there as often."""
APART_S = 4.0
"""Pages are rendered again at most this often, however busy the loop is."""
SHARE = 0.005
"""The share of a core that rendering may take: where a long history makes pages expensive, they are rendered less
often."""
MOST_APART_S = 12.0
QUIET_S = 60.0
"""Pages are rendered again this long after the last time, even if nothing has changed: a worker that is gone, an alert,
the machine and the logs change nothing in the ledger."""
ALIVE_S = 15.0
"""A comment is sent after this long without an event, so that a dead connection is noticed."""


class Feed:
    """The current state of the ledger as a number, and its listeners. For one event loop."""

    def __init__(self, ledger: Ledger, settings: Settings, apart_s: float = APART_S, quiet_s: float = QUIET_S):
        self._ledger, self._settings, self._apart_s, self.quiet_s = ledger, settings, apart_s, quiet_s
        self._listeners: set[asyncio.Queue[str]] = set()
        self._task: asyncio.Task[None] | None = None
        self._poked = False
        self._render_cpu_s = 0.0
        self._seen: tuple[Any, ...] | None = None
        self.version = 0
        """Grows with every change that is told, and without listeners at every ``touch``. What was rendered since then
        is current for all viewers, who hear of later changes in a moment."""

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def poke(self) -> None:
        """Tell listeners at once, after an action of a viewer. From any thread."""
        self.version += 1
        self._poked = True

    def touch(self) -> None:
        """Called before the cache is read: without a reader of the ledger nothing in it is known to be current."""
        if not self._listeners:
            self.version += 1

    def version_for(self, session: Session) -> int:
        """The version of a page that is rendered from this session, and whose browser will listen in a moment.

        It hears of a later version in its first event, or of what the reader finds changed. From any thread.
        """
        if self._task is not None:
            return self.version
        if (found := fingerprint(session)) != self._seen:
            self._seen = found
            self.version += 1
        return self.version + 1  # which ``listen`` makes of it

    def add_render_time(self, cpu_s: float) -> None:
        """Called with the CPU time that a page took to render. From any thread."""
        self._render_cpu_s += cpu_s

    async def listen(self) -> AsyncIterator[str]:
        """Events for one browser, until it goes away."""
        mine: asyncio.Queue[str] = asyncio.Queue(maxsize=100)
        self._listeners.add(mine)
        if self._task is None:
            self.version += 1  # nobody has read what changed since the last listener went
            self._task = asyncio.create_task(self._read_on())
        try:
            yield event("ledger", {"version": self.version})
            while True:
                try:
                    yield await asyncio.wait_for(mine.get(), ALIVE_S)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._listeners.discard(mine)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _read_on(self) -> None:
        training: dict[str, Any] | None = None
        clock = asyncio.get_running_loop().time
        began_at, told_at, is_behind = clock(), float("-inf"), False
        while True:
            try:
                found, now_training = await asyncio.to_thread(self._read)
            except Exception as error:  # it reads for all viewers, so that it must not end
                log.warning("the ledger cannot be read: %s", error, exc_info=not isinstance(error, RatchetError))
                await asyncio.sleep(READ_S)
                continue
            if found != self._seen:
                is_behind, self._seen = self._seen is not None or is_behind, found
            is_quiet = clock() - max(told_at, began_at) >= self.quiet_s
            if self._poked or is_quiet or (is_behind and clock() - told_at >= self.wait_s):
                self.version += not self._poked
                self._poked, is_behind, told_at, self._render_cpu_s = False, False, clock(), 0.0
                self._tell(event("ledger", {"version": self.version}))
            if now_training != training:
                training = now_training
                self._tell(event("training", training))
            await asyncio.sleep(READ_S)

    @property
    def wait_s(self) -> float:
        """How long after the last time viewers are told again, by the CPU time that rendering has taken since then."""
        return max(self._apart_s, min(MOST_APART_S, self._render_cpu_s / SHARE)) if self._apart_s else 0.0

    def _tell(self, text: str) -> None:
        for queue in self._listeners:
            if not queue.full():  # a browser that does not read gets the next change
                queue.put_nowait(text)

    def _read(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        with self._ledger.read() as session:
            return fingerprint(session), training_now(session, self._settings)


def event(name: str, values: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {browser_json(values)}\n\n"
