"""The thread that reads a system's consumer group and rings the lanes that hear what it reads."""

from __future__ import annotations

import logging

from sqlalchemy import select

from ratchet.bus.streams import Entry, Streams
from ratchet.errors import EventError, TransientError
from ratchet.events import decode
from ratchet.ledger import Ledger
from ratchet.ledger.tables import DeadLetterRow
from ratchet.watchdog import LONGEST_CALL_S, WatchedThread
from ratchet.worker.desk import Desk

log = logging.getLogger(__name__)

PAUSE_S = 1.0


class Listener(WatchedThread):
    """Reads only what free lanes hear, one event a free lane, so that other workers of the system get the others."""

    def __init__(self, streams: Streams, ledger: Ledger, desk: Desk):
        controller = desk.controller
        limit_s = controller.settings.control.liveness_s + LONGEST_CALL_S
        super().__init__(self._listen, controller.watchdog, controller.stop, name="listener", limit_s=limit_s)
        self._streams, self._ledger, self._desk = streams, ledger, desk
        self._system, self._worker = controller.system, controller.worker
        self._opened = False

    def _listen(self) -> None:
        while not self._stop_asked.is_set():
            self.watch.beat()
            free = self._desk.wait_free(PAUSE_S)
            names = self._heard_by(free)
            if not names:
                if free:
                    self._stop_asked.wait(PAUSE_S)
                continue
            try:
                self._open()
                for entry in self._streams.read(self._system.name, self._worker, names, count=len(free)):
                    self.deliver(entry)
            except TransientError as error:
                log.info("no events for now: %s", error)
                self._opened = False
                self._stop_asked.wait(PAUSE_S)

    def deliver(self, entry: Entry) -> None:
        """Ring the lanes that hear the event; one that cannot be read goes to the dead letters, once."""
        try:
            event = decode(entry.body)
        except EventError as error:
            self._bury(entry, error)
            return
        for observer in self._desk.controller.observers:
            observer.heard(event)
        for lane in self._system.lanes_consuming(type(event)):
            self._desk.ring(lane.name, event.id)

    def _open(self) -> None:
        if not self._opened:
            self._streams.open(self._system.name, [event.name for event in self._system.consumes])
            self._opened = True

    def _heard_by(self, lanes: list[str]) -> list[str]:
        return list(dict.fromkeys(event.name for lane in lanes for event in self._system.lane(lane).consumes))

    def _bury(self, entry: Entry, error: EventError) -> None:
        subject_id = f"{entry.name}/{entry.id}"
        log.error("event %s cannot be read: %s", subject_id, error)
        while not self._stop_asked.is_set():
            try:
                bury_event(self._ledger, self._system.name, subject_id, entry, error)
                return
            except TransientError as trouble:
                log.warning("event %s waits for its burial: %s", subject_id, trouble)
                self.watch.beat()
                self._stop_asked.wait(PAUSE_S)


def bury_event(ledger: Ledger, system: str, subject_id: str, entry: Entry, error: EventError) -> None:
    """One dead letter for an unreadable event, however often it is read."""
    with ledger.write() as tx:
        known = select(DeadLetterRow.id).where(
            DeadLetterRow.system == system,
            DeadLetterRow.subject_kind == "event",
            DeadLetterRow.subject_id == subject_id,
        )
        if tx.session.scalar(known.limit(1)) is not None:
            return
        letter = DeadLetterRow(
            system=system,
            subject_kind="event",
            subject_id=subject_id,
            error=str(error),
            traceback=entry.body.decode(errors="replace"),
            failures=1,
            kills=0,
            created_at=tx.now,
            resolved_at=None,
            resolution=None,
        )
        tx.session.add(letter)
