"""Real workers for tests: forked by a real supervisor, on an embedded Redis, with short leases, in their own folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ratchet.bus.connection import connect
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.bus.streams import Relay, Streams
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.processes.supervisor_client import SupervisorClient
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings
from ratchet.settings.plugin_sections import CHOICE, INSTALLED

PATIENCE_S = 200.0

SHORT = ControlSettings(
    lease_s=3.0,
    timer_s=0.5,
    liveness_s=20.0,
    grace_s=5.0,
    max_backoff_s=1.0,
)
"""Leases and timers so short that a test sees an orphan taken over."""

PATIENT = SHORT.model_copy(update={"lease_s": 60.0, "liveness_s": 600.0, "sweep_factor": 0.05})
"""For workers with real models, whose machine may be slow.

Whoever is killed is followed by one of the same name, who need not wait for the lease to run out.
"""


@dataclass
class Stack:
    """What a test holds in its hands. ``ledger`` relays what it commits, as every ledger of a service does."""

    settings: Settings
    redis: EmbeddedRedis
    ledger: Ledger
    supervisor: SupervisorClient
    failpoints: Path

    def log(self, system: str) -> str:
        """All that the workers of the system have logged."""
        found = sorted(self.settings.log_folder.glob(f"{system}@*.log"))
        return "".join(path.read_text() for path in found)


@contextmanager
def real_workers(
    home: Path,
    systems: Sequence[str],
    *,
    packages: Sequence[str] = (INSTALLED,),
    path: Sequence[Path] = (),
    control: ControlSettings = SHORT,
    ledger_url: str | None = None,
    metrics_port: int = 0,
    **sections: Any,
) -> Iterator[Stack]:
    """Start Redis and a worker of each system; end all of it with the block.

    ``metrics_port`` is the first port of their /metrics; without one they serve none.
    ``packages`` are the packages of systems to take, ``path`` the folders they are imported from; ``sections`` are
    settings beside these.
    """
    failpoints = home / "failpoints"
    failpoints.mkdir(parents=True)
    environment = {
        CHOICE: ",".join(packages),
        "PYTHONPATH": os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")]),
        "RATCHET_FAILPOINTS": str(failpoints),
    }
    with EmbeddedRedis(home / "redis") as redis:
        settings = Settings(
            home=home,
            control=control,
            redis={"url": redis.url},
            ledger={"url": ledger_url} if ledger_url else {},
            metrics={"port": metrics_port},
            **sections,
        )
        ledger = _relaying(settings, redis)
        try:
            with SupervisorClient(settings, environment) as supervisor:
                for system in systems:
                    supervisor.start_worker(system)
                yield Stack(settings, redis, ledger, supervisor, failpoints)
        finally:
            ledger.close()


def _relaying(settings: Settings, redis: EmbeddedRedis) -> Ledger:
    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    ledger.after_commit = Relay(ledger, Streams(connect(redis.url)))
    return ledger


def wait_until(holds: Callable[[], bool], timeout_s: float = PATIENCE_S, what: str = "the condition") -> None:
    """Return as soon as ``holds`` does. Raises TimeoutError, with ``what``, if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true in {timeout_s:.0f} s")
        time.sleep(0.05)


def children_of(system: str, log_folder: Path) -> list[psutil.Process]:
    """The processes that were forked for a system's worker, whose log of children they write to."""
    log, found = str(log_folder.resolve() / f"{system}.child.log"), []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.readlink(f"/proc/{process.pid}/fd/1") == log:
                found.append(process)
    return found
