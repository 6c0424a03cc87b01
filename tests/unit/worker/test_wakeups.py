"""The intervals of a worker's sweeps and timer, with Redis and without."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.ledger import Ledger
from ratchet.settings import Settings
from ratchet.systems import System
from ratchet.watchdog import Watchdog
from ratchet.worker.wakeups import Sweep

OFTEN = 5


@dataclass
class Controlled:
    """A fake for lanes, controller and relay that counts the calls, and ends the sweep after enough of them."""

    settings: Settings
    system: System = field(default_factory=lambda: System("s", "3090", "", emits=(), sweep_s=1_000.0, lanes=()))
    stop: threading.Event = field(default_factory=threading.Event)
    reschedule: threading.Event = field(default_factory=threading.Event)
    watchdog: Watchdog = field(default_factory=Watchdog)
    redis_is_away: bool = False
    by_task: int = 0
    directly: int = 0
    timers: int = 0

    @property
    def controller(self) -> Controlled:
        return self

    def relay_leftovers(self) -> int:
        return 0

    def wake_by_task(self) -> None:
        if self.redis_is_away:
            raise TransientError("Redis is away")
        self.by_task += 1
        self._end_after(self.by_task)

    def wake_all(self) -> None:
        self.directly += 1
        self._end_after(self.directly)

    def seen(self) -> None:
        self.timers += 1
        self._end_after(self.timers)

    def sweep(self, ledger: Ledger, seen: Any = None, refused: Any = lambda _error: None) -> None:
        """Wait until it has ended by itself."""
        parts: Any = self
        sweep = Sweep(ledger, parts, parts, self.wake_by_task, seen or self.seen, refused)
        sweep.start()
        sweep.join(60.0)
        assert not sweep.is_alive()

    def _end_after(self, count: int) -> None:
        if count >= OFTEN:
            self.stop.set()
            self.reschedule.set()


@pytest.mark.parametrize(
    ("control", "sweeps", "timers"),
    [({"sweep_factor": 1e-5}, OFTEN, 1), ({"timer_s": 0.01}, 1, OFTEN)],
    ids=["sweep_factor", "timer_s"],
)
def test_sweep_and_timer_intervals_follow_the_settings(
    tmp_path: Path, ledger: Ledger, control: dict[str, float], sweeps: int, timers: int
) -> None:
    parts = Controlled(Settings(home=tmp_path, control=control))
    parts.sweep(ledger)
    assert (parts.by_task, parts.directly, parts.timers) == (sweeps, 0, timers)


def test_while_redis_is_away_the_sweep_wakes_the_lanes_directly(tmp_path: Path, ledger: Ledger) -> None:
    parts = Controlled(Settings(home=tmp_path, control={"sweep_factor": 1e-5}), redis_is_away=True)
    parts.sweep(ledger)
    assert (parts.by_task, parts.directly) == (0, OFTEN)


def test_a_worker_refused_by_its_ledger_ends_once(tmp_path: Path, ledger: Ledger) -> None:
    """As when the ledger is migrated under it by a newer version."""
    parts = Controlled(Settings(home=tmp_path, control={"timer_s": 0.01}))
    refused: list[PreconditionFailed] = []

    def seen() -> None:
        parts.seen()
        raise PreconditionFailed("the ledger has schema 9999")

    parts.sweep(ledger, seen, refused.append)
    assert parts.timers == OFTEN
    assert [str(error) for error in refused] == ["the ledger has schema 9999"]
