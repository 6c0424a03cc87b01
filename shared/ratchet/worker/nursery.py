"""The side of the supervisor's parent: start it, have it start workers and commands, ask after them, stop it all."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ratchet.closing import Closing
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.settings import Settings
from ratchet.settings.reveal import reveal
from ratchet.worker.awaited import awaited, told

STOP_MARGIN_S = 8.0
LOOK_S = 0.5
ANSWER_S = 60.0
"""The supervisor answers at its next tick, but first of all it imports what its workers need."""
TOLD_S = 1.0
"""What ends sooner than that is not worth a line."""


@dataclass(frozen=True)
class Member:
    """One supervised process. ``pid`` is None while it waits to be started again."""

    pid: int | None
    restarts: int
    exit_code: int | None


class Nursery(Closing):
    """A running supervisor. It and all it started end with ``close``, or with this process.

    ``environment`` is added to this process's own. The supervisor's own words go to ``logs/supervisor.log``.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None, *, answer_s: float = ANSWER_S):
        self._settings = settings
        self._answer_s = answer_s
        self._asking = threading.Lock()
        self._pids: list[int] = []
        settings.log_folder.mkdir(parents=True, exist_ok=True)
        with open(settings.log_folder / "supervisor.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ratchet.worker.supervisor"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._say({"settings": reveal(settings)})

    @property
    def pid(self) -> int:
        return self._process.pid

    def worker(self, system: str, name: str | None = None) -> None:
        """Start a worker of the system and keep it alive. ``name`` tells apart two workers of one system."""
        self._order({"do": "worker", "name": name or system, "system": system})

    def command(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """Start a command line and keep it alive."""
        self._order({"do": "command", "name": name, "command": list(command), "env": dict(env or {}), "log": str(log)})

    def stop(self, name: str) -> None:
        """Ask one member to stop; it is not started again. Raises PreconditionFailed if there is none of that name."""
        self._order({"do": "stop", "name": name})

    def report(self) -> dict[str, Member]:
        """All members by name. Raises TransientError if the supervisor is gone."""
        members = {name: Member(**member) for name, member in self._order({"do": "report"}).items()}
        self._pids = [member.pid for member in members.values() if member.pid is not None]
        return members

    def kill(self) -> None:
        """Kill the supervisor, and what was running when it last reported. Takes no lock, and waits for nothing."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pid_of(self, name: str) -> int | None:
        return self.report()[name].pid

    def close(self, tell: Callable[[str], None] = lambda _text: None) -> None:
        """Stop all and wait for it; ``tell`` hears what is waited for, each time that this has changed."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it is gone already
                self._process.stdin.close()
        if not self._has_ended(tell):
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _has_ended(self, tell: Callable[[str], None]) -> bool:
        """Wait for the supervisor as long as its workers may take, and some more; whether it has ended."""
        began_at, said = time.time(), ""
        ends_at = began_at + self._settings.control.grace_s + STOP_MARGIN_S
        while time.time() < ends_at:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LOOK_S)
                return True
            if workers := awaited(self._settings.status_folder):
                ends_at = max(ends_at, max(worker.until for worker in workers) + STOP_MARGIN_S)
                who = ", ".join(f"{worker.system} {worker.note}" for worker in workers)
                if who != said and time.time() - began_at >= TOLD_S:
                    said = who
                    tell(told(workers))
        return False

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdout is not None
        with self._asking:
            self._say(order)
            line = self._answer(self._process.stdout)
        if not line:
            raise TransientError(
                f"the supervisor is gone (exit code {self._process.poll()}); "
                f"see {self._settings.log_folder / 'supervisor.log'}."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PreconditionFailed(answer["error"])
        family: dict[str, Any] = answer["family"]
        return family

    def _answer(self, output: IO[bytes]) -> bytes:
        """A line of the supervisor's. One that stands still is ended, with all that it started, as if it had died."""
        if not select.select([output], [], [], self._answer_s)[0]:
            self._process.kill()
            self._process.wait()
            raise TransientError(f"the supervisor has said nothing for {self._answer_s:g} s and was ended.")
        return output.readline()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise TransientError(
                f"the supervisor is gone; see {self._settings.log_folder / 'supervisor.log'}."
            ) from error
