"""The supervisor: one clean, single-threaded process that has imported everything and forks a worker a system.

It reads JSON lines from standard input, answers each with one on standard output, and stops everything when the input
ends, so that nothing outlives whoever started it. The first line is ``{"settings": {…}}``; then::

    {"do": "worker", "name": "testing", "system": "testing"}
    {"do": "command", "name": "server", "command": ["python", …], "env": {}, "log": "run/logs/server.log"}
    {"do": "stop", "name": "testing"}
    {"do": "report"}
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratchet.settings import Settings
from ratchet.systems import registry
from ratchet.worker.awaited import deadline
from ratchet.worker.main import run_worker
from ratchet.worker.offspring import Offspring, executed, forked

TICK_S = 0.1
STOP_MARGIN_S = 4.0
ASK_S = 0.5
"""How often the status files of those that stop are read."""
KILLED_S = 3.0
"""How long the kernel may take to end what was killed; with the margin it is below that of the nursery."""


class Supervisor:
    """Keeps its offspring alive until it is told to stop."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._family: dict[str, Offspring] = {}
        self.stopping = False

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order and report on the family, or say what is wrong with the order."""
        match order["do"]:
            case "worker":
                self._add(order["name"], forked(self._worker(order["system"])))
            case "command":
                start = executed(order["command"], order.get("env", {}), Path(order["log"]))
                self._add(order["name"], start)
            case "stop":
                member = self._family.get(order["name"])
                if member is None:
                    return {"error": f"no process {order['name']!r}; there are: {', '.join(self._family)}."}
                member.wanted = False
                member.kill(signal.SIGTERM)
            case "report":
                pass
            case unknown:
                return {"error": f"no order {unknown!r}."}
        return {"family": self.report()}

    def report(self) -> dict[str, Any]:
        """By name: pid (None while it is down), number of restarts, last exit code."""
        return {
            name: {"pid": member.pid, "restarts": member.restarts, "exit_code": member.exit_code}
            for name, member in self._family.items()
        }

    def tend(self) -> None:
        now = time.monotonic()
        for member in self._family.values():
            member.tend(now)

    def stop(self) -> None:
        """End all: politely at first, by force once the workers' grace is over, or the time that they say they need."""
        for member in self._family.values():
            member.wanted = False
            member.kill(signal.SIGTERM)
        self._wait_for_all(self._settings.control.grace_s + STOP_MARGIN_S, as_long_as_they_say=True)
        for member in self._living():
            member.kill(signal.SIGKILL)
        self._wait_for_all(KILLED_S)

    def _wait_for_all(self, limit_s: float, *, as_long_as_they_say: bool = False) -> None:
        """Reap until nobody lives, so that nothing is left to whoever inherits orphans."""
        ends_at, ask_at = time.time() + limit_s, time.time()
        while (living := self._living()) and time.time() < ends_at:
            if as_long_as_they_say and time.time() >= ask_at:
                pids = {member.pid for member in living if member.pid is not None}
                ends_at = max(ends_at, deadline(self._settings.status_folder, pids) + STOP_MARGIN_S)
                ask_at = time.time() + ASK_S
            time.sleep(0.02)
            self.tend()

    def _living(self) -> list[Offspring]:
        return [member for member in self._family.values() if member.pid is not None]

    def _worker(self, system: str) -> Any:
        return lambda: run_worker(system, self._settings, self._settings.log_folder)

    def _add(self, name: str, start: Any) -> None:
        member = self._family.get(name)
        if member is None or member.pid is None:
            self._family[name] = Offspring(name, start, self._settings.control.backoff_last_s)
            self._family[name].tend(time.monotonic())


class Orders:
    """Lines of standard input, without ever blocking for longer than a tick; SIGCHLD ends the wait early."""

    def __init__(self) -> None:
        self._buffer, self.ended = b"", False
        wake_in, wake_out = os.pipe()
        os.set_blocking(wake_out, False)
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        self._wake_in = wake_in
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(wake_in, selectors.EVENT_READ)

    def first(self) -> dict[str, Any]:
        """Wait for the first line."""
        while True:
            for order in self.next(TICK_S):
                return order

    def next(self, timeout_s: float) -> Iterator[dict[str, Any]]:
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self._wake_in:
                os.read(self._wake_in, 4096)
                continue
            piece = os.read(0, 65_536)
            self.ended = self.ended or not piece
            self._buffer += piece
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            yield json.loads(line)


def main() -> int:
    """Read the settings, then obey until the input ends or SIGTERM comes."""
    orders, stop = Orders(), list[bool]()
    settings = Settings(**orders.first()["settings"])
    registry.systems()
    gc.freeze()
    supervisor = Supervisor(settings)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(True))
    while not stop and not orders.ended:
        for order in orders.next(TICK_S):
            print(json.dumps(supervisor.obey(order)), flush=True)
        supervisor.tend()
    supervisor.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
