"""The Control Room as a process of its own, over the home that a test has made, and homes to show in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.settings import Settings

from tests.support.synthetic_ledger import SMALL, Size, build

RATCHET = [sys.executable, "-W", "error", "-c", "from ratchet.cli.main import app; app()"]
PATIENCE_S = 120.0
"""Only ends a test that hangs."""


class Served:
    """A page process over a home. ``url`` has no slash at its end; it stays the same after ``kill`` and ``start``."""

    def __init__(self, home: Path, **settings: Any):
        """``settings`` are named as in ``web__read_only=True``; values that are not text are sent as JSON."""
        self.home, self.settings = home, Settings(home=home)
        self._environment = environment_of(home, settings)
        self._log = home.with_name(f"{home.name}-page.log")
        self.url = ""
        self.process = self._start(0)

    @property
    def ledger(self) -> Ledger:
        """A ledger to act with. Close it, or use it as ``with closing(served.ledger) as ledger``."""
        return Ledger(self.settings.ledger_url)

    @property
    def log(self) -> str:
        """What the process has written, and those before it."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """Start it again at the same address."""
        self.process = self._start(int(self.url.rpartition(":")[2]))

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """End it as Ctrl-C does; raises AssertionError where it reports an error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE_S) in (0, -signal.SIGKILL), self.log

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*RATCHET, "web", "--port", str(port)],
                cwd=self.home.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline:
            _, found, rest = self._log.read_text()[begin:].partition("the Control Room is at ")
            if found and "\n" in rest and answers(url := rest.split()[0]):
                self.url = url
                return process
            time.sleep(0.05)
        process.kill()
        process.wait()
        raise AssertionError(f"no page within {PATIENCE_S:g} s, exit code {process.returncode}: {self.log}")


Serve = Callable[..., Served]
"""``serve(home, **settings)``."""


@dataclass(frozen=True)
class Run:
    """A run of the tiny model with its page. ``pid`` is the process of ``ratchet run``."""

    url: str
    home: Path
    ledger: Ledger
    settings: Settings
    pid: int


def environment_of(home: Path, settings: dict[str, Any]) -> dict[str, str]:
    """The environment of a process of Ratchet in that home, with these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    texts = {name: value if isinstance(value, str | Path) else json.dumps(value) for name, value in settings.items()}
    return {
        **kept,
        **{f"RATCHET_{name.upper()}": str(value) for name, value in texts.items()},
        "RATCHET_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def answers(url: str) -> bool:
    """Whether a page answers there."""
    try:
        return httpx.get(f"{url}/health", timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def synthetic_home(folder: Path, size: Size = SMALL, *, hostile: bool = False) -> Path:
    """A home with a made-up history that can be looked at as that of a run."""
    settings = Settings(home=folder)
    ledger = Ledger(settings.ledger_url)
    try:
        migrate(ledger)
        build(ledger, artifact_store(settings), size, hostile=hostile)
    finally:
        ledger.close()
    return folder
