"""How often a worker sweeps and tidies, and where it shows that it lives."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.settings import Settings
from ratchet.systems import System
from ratchet.watchdog import Watchdog
from ratchet.worker.liveness import alive_path
from ratchet.worker.sweep import Sweep

OFTEN = 5


@dataclass
class Controlled:
    """Stands where desk, controller and relay would be, and counts what is asked of it; enough of it ends the sweep."""

    settings: Settings
    system: System = field(default_factory=lambda: System("s", "3090", "", emits=(), sweep_s=1_000.0, lanes=()))
    stop: threading.Event = field(default_factory=threading.Event)
    setback: threading.Event = field(default_factory=threading.Event)
    watchdog: Watchdog = field(default_factory=Watchdog)
    sweeps: int = 0
    tidied: int = 0

    @property
    def controller(self) -> Controlled:
        return self

    def wait_attached(self, _timeout_s: float) -> None:
        """There is no Celery to wait for."""

    def hand_again(self, _after_s: float) -> None:
        """Nothing is lost."""

    def leftovers(self) -> int:
        return 0

    def ring_all(self) -> None:
        self.sweeps += 1
        self._end_after(self.sweeps)

    def seen(self) -> None:
        self.tidied += 1
        self._end_after(self.tidied)

    def _end_after(self, count: int) -> None:
        if count >= OFTEN:
            self.stop.set()
            self.setback.set()


@pytest.mark.parametrize(
    ("control", "sweeps", "tidied"),
    [({"sweep_factor": 1e-5}, OFTEN, 1), ({"timer_s": 0.01}, 1, OFTEN)],
    ids=["sweep_factor", "timer_s"],
)
def test_how_often_a_worker_looks_and_tidies_is_set(
    tmp_path: Path, ledger: Ledger, control: dict[str, float], sweeps: int, tidied: int
) -> None:
    parts: Any = Controlled(Settings(home=tmp_path, control=control))
    sweep = Sweep(ledger, parts, parts, parts.seen, lambda _error: None)
    sweep.start()
    sweep.join(60.0)
    assert not sweep.is_alive()
    assert (parts.sweeps, parts.tidied) == (sweeps, tidied)


def test_a_worker_that_has_no_business_here_any_more_is_ended_once(tmp_path: Path, ledger: Ledger) -> None:
    """As when the ledger is migrated under it by a newer version."""
    parts: Any = Controlled(Settings(home=tmp_path, control={"timer_s": 0.01}))
    told: list[PreconditionFailed] = []

    def seen() -> None:
        parts.seen()
        raise PreconditionFailed("the ledger has schema 9999")

    sweep = Sweep(ledger, parts, parts, seen, told.append)
    sweep.start()
    sweep.join(60.0)
    assert parts.tidied == OFTEN
    assert [str(error) for error in told] == ["the ledger has schema 9999"]


def test_the_file_that_shows_life_is_set(tmp_path: Path) -> None:
    usual = alive_path(Settings(home=tmp_path), "testing@box+0")
    assert (usual.parent, usual.name) == (tmp_path / "status", "testing@box+0.alive")
    file = tmp_path / "alive"
    assert alive_path(Settings(home=tmp_path, control={"alive_file": file}), "testing@box+0") == file
