"""What a worker reports about itself: its row in the ledger, and its status file for people and scripts on this
machine.

The row has its state, and what it waits for or why it failed. On registration a worker also releases the claims that
the last process of its name has left behind.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from ratchet.atomic_files import write_best_effort
from ratchet.backoff import STABLE_AFTER_S
from ratchet.build import Build
from ratchet.errors import RatchetError, TransientError
from ratchet.leases.slots import WorkerName
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.health import ABSENT
from ratchet.ledger.migrate import require_current, require_known_schema
from ratchet.ledger.tables import WorkerRow
from ratchet.metrics.targets import known_pages
from ratchet.settings import Settings
from ratchet.systems import claims, dead_letters
from ratchet.systems.claims import Pulse, Subject
from ratchet.systems.controller import Controller, Observer
from ratchet.systems.system import Declaration, System
from ratchet.systems.work import Outcome, Reconciled, Verdict
from ratchet.watchdog import LONGEST_CALL_S, WatchedThread

log = logging.getLogger(__name__)


DIED_EARLY = (
    "it died soon after its start without an error: killed, out of memory, or ended by its watchdog. See its log."
)
LONGEST_PAUSE_S = 60.0
"""The longest pause between the death of a process and its next start."""

PASSING_S = 30.0
"""Shorter waits of a lane are not recorded: something has only restarted."""


class Registration(Observer):
    """Creates and updates the row of a worker in the ledger, under a locked name."""

    def __init__(self, ledger: Ledger, system: System, worker: str, settings: Settings, metrics_url: str | None = None):
        self._metrics_url = metrics_url
        self._controller: Controller | None = None
        self._died: str | None = None
        self._ledger, self._system, self._worker, self._settings = ledger, system, worker, settings

    def enter(self) -> None:
        """Register, and release the claims of an earlier process of this name; the name's lock proves that it is dead.

        A process that died soon after its start without an error counts as a failed start.

        Raises PreconditionFailed for a ledger of another schema, TransientError while the ledger is unavailable.
        """
        require_current(self._ledger)
        shutil.rmtree(self._settings.work_folder / self._worker, ignore_errors=True)
        with self._ledger.write() as tx:
            self._release_inherited(tx)
            before = tx.session.get(WorkerRow, self._worker)
            self._died = DIED_EARLY if before is not None and _died_early(before, tx.now) else None
            failures = before.failures if before is not None else 0
            tx.session.merge(
                WorkerRow(
                    name=self._worker,
                    system=self._system.name,
                    host=self._settings.placement.machine,
                    pid=os.getpid(),
                    version=str(Build.of(self._system.lanes[0].do.__module__)),
                    started_at=tx.now,
                    seen_at=tx.now,
                    metrics_url=self._metrics_url,
                    pages=known_pages(self._settings),
                    declaration=asdict(Declaration.of(self._system)),
                    state="running",
                    error=self._died,
                    failures=failures + (self._died is not None),
                )
            )

    def follow(self, controller: Controller) -> None:
        """Record what the controller waits for, from now on."""
        self._controller = controller
        controller.observers.append(self)

    def waiting(self, lane: str) -> None:  # noqa: ARG002
        self._write_now()

    def resumed(self, lane: str) -> None:  # noqa: ARG002
        self._write_now()

    def seen(self) -> None:
        """Record that the worker is alive.

        Raises TransientError, and PreconditionFailed if the ledger was migrated to a newer schema.
        """
        require_known_schema(self._ledger)
        self._write_state("running")

    def stopping(self) -> None:
        """Record that the worker is about to stop, if the ledger is available."""
        try:
            self._write_state("stopping")
        except TransientError as error:
            log.info("the stop of this worker cannot be recorded in the ledger: %s", error)

    def leave(self) -> None:
        """Record that the worker has stopped, if the ledger is available."""
        try:
            self._write_state("stopped")
        except TransientError as error:
            log.info("the end of this worker cannot be recorded in the ledger: %s", error)

    def _write_now(self) -> None:
        """Update the row if the ledger is available. A stopping worker has already written its state."""
        if self._controller is not None and self._controller.stop.is_set():
            return
        try:
            self._write_state("running")
        except TransientError as error:
            log.info("the wait of this worker cannot be recorded in the ledger: %s", error)

    def _write_state(self, state: str) -> None:
        reasons = self._lasting_reasons()
        with self._ledger.write() as tx:
            row = tx.session.get(WorkerRow, self._worker)
            if row is None:
                return
            if tx.now - row.started_at >= STABLE_AFTER_S:
                row.failures, self._died = 0, None
            row.seen_at, row.state, row.error = tx.now, state, self._died if state == "running" else None
            if state == "running" and reasons:
                row.state, row.error = "waiting", "\n".join(reasons)

    def _lasting_reasons(self) -> list[str]:
        """What subjects wait for, and what lanes have waited for longer than ``PASSING_S``."""
        reasons = list(self._controller.wait_reasons.items()) if self._controller is not None else []
        now = time.monotonic()
        return [r.why for (_, subject), r in reasons if subject is not None or now - r.since >= PASSING_S]

    def _release_inherited(self, tx: Transaction) -> None:
        for claim in claims.inherited(tx.session, self._worker):
            log.warning("the last %s died while it worked on %s", self._worker, claim.subject)
            if claim.subject.kind in self._system.reconciled:
                claims.release(tx, claim)
            else:
                dead_letters.record_death(tx, claim, self._settings.control)


def _died_early(before: WorkerRow, now: float) -> bool:
    """Whether the last process of a name, known to be dead, lived briefly and recorded neither a stop nor an error."""
    if before.state in ABSENT or before.seen_at - before.started_at >= STABLE_AFTER_S:
        return False
    return now - before.started_at < STABLE_AFTER_S + LONGEST_PAUSE_S


def has_ledger(settings: Settings) -> bool:
    """Whether there is a ledger to write to. Opening an absent SQLite file would create it."""
    return settings.ledger.url is not None or Path(make_url(settings.ledger_url).database or "").exists()


def record_failure(settings: Settings, worker: WorkerName, error: str) -> None:
    """Record that a worker has failed, and why. Failures in a row are counted, since the worker is restarted.

    If the ledger cannot be written to, the error is only in the log.
    """
    if not has_ledger(settings):
        return
    ledger = Ledger(settings.ledger_url)
    try:
        require_current(ledger)
        with ledger.write() as tx:
            row = tx.session.get(WorkerRow, str(worker))
            if row is None:
                row = WorkerRow(
                    name=str(worker),
                    system=worker.system,
                    host=worker.host,
                    version="",
                    metrics_url=None,
                    pages={},
                    failures=0,
                )
                tx.session.add(row)
            row.pid, row.started_at, row.seen_at = os.getpid(), tx.now, tx.now
            row.state, row.error, row.failures = "failed", error, row.failures + 1
    except RatchetError as write_error:
        log.error("this failure cannot be recorded in the ledger: %s", write_error)
    finally:
        ledger.close()


TICK_S = 0.5


class StatusFile(WatchedThread, Observer):
    """Follows a controller, and writes changes at most twice a second."""

    def __init__(self, path: Path, controller: Controller, left_s: Callable[[], float] = lambda: 0.0):
        """``left_s`` returns how long a stopping worker may still take."""
        limit_s = controller.settings.control.liveness_s + LONGEST_CALL_S
        super().__init__(self._follow, controller.watchdog, controller.stop, name="status", limit_s=limit_s)
        self._path, self._controller = path, controller
        self._last: dict[str, Any] | None = None
        self._written: dict[str, Any] | None = None
        self._closed = threading.Event()
        self._left_s = left_s

    def decided(self, lane: str, subject: Subject, outcome: Outcome, took_s: float) -> None:  # noqa: ARG002
        """Keep the outcome for the status file."""
        self._last = {
            "lane": lane,
            "subject_kind": subject.kind,
            "subject_id": subject.id,
            "outcome": _named(outcome),
            "at": time.time(),
        }

    def _follow(self) -> None:
        while not self._controller.stop.wait(TICK_S):
            self.watch.beat()
            self.write(self._state())
        while not self._closed.wait(TICK_S):
            self.write("stopping", within_s=round(self._left_s(), 1))

    def close(self) -> None:
        """Write the final state, that the worker has stopped."""
        self._closed.set()
        if self.is_alive():
            self.join(TICK_S)
        self.write("stopped")

    def write(self, state: str, within_s: float | None = None) -> None:
        """Write the file if its content has changed. ``within_s``: how long a stopping worker may still take."""
        pulses = dict(self._controller.running)
        content = {
            "system": self._controller.system.name,
            "worker": self._controller.worker,
            "pid": os.getpid(),
            "state": state,
            "stops_within_s": within_s,
            "lanes": {
                lane.name: {"subject": pulse.about, "note": _note(pulse, state), "progress": pulse.count}
                if pulse
                else None
                for lane in self._controller.system.lanes
                for pulse in [pulses.get(lane.name)]
            },
            "last": self._last,
        }
        if content != self._written:
            self._replace({**content, "at": time.time()})
            self._written = content

    def _state(self) -> str:
        pulses = list(self._controller.running.values())
        if any(pulse.about for pulse in pulses):
            return "working"
        return "waiting" if any(pulse.note for pulse in pulses) else "idle"

    def _replace(self, content: dict[str, Any]) -> None:
        write_best_effort(self._path, json.dumps(content, indent=2) + "\n")


def _note(pulse: Pulse, state: str) -> str:
    return (pulse.stop_note or pulse.note) if state == "stopping" else pulse.note


def _named(outcome: Outcome) -> str:
    if isinstance(outcome, Verdict):
        return outcome.outcome
    return "reconciled" if isinstance(outcome, Reconciled) else "not ready"
