"""The heartbeat of a claim: while the work runs, its lease is renewed and its progress noted."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from ratchet.errors import ClaimLost, TransientError
from ratchet.ledger import Ledger
from ratchet.settings.control import ControlSettings
from ratchet.systems import claims
from ratchet.systems.claims import Claim
from ratchet.systems.work import Pulse
from ratchet.watchdog import LONGEST_CALL_S, Watchdog, WatchedThread

log = logging.getLogger(__name__)


class Heartbeat:
    """Renews a claim from a thread of its own until the block ends. A lost claim ends it and the work."""

    def __init__(self, ledger: Ledger, claim: Claim, pulse: Pulse, settings: ControlSettings, watchdog: Watchdog):
        self._ledger, self._claim, self._pulse, self._settings = ledger, claim, pulse, settings
        self._done = threading.Event()
        limit_s = settings.heartbeat_s + settings.liveness_s + LONGEST_CALL_S
        name = f"heartbeat-{claim.token}"
        self._thread = WatchedThread(self._run, watchdog, self._done, name=name, limit_s=limit_s)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._settings.heartbeat_s):
            self._thread.watch.beat()
            try:
                with self._ledger.write() as tx:
                    claims.renew(tx, self._claim, self._settings.lease_s, self._pulse.count, self._pulse.note)
            except ClaimLost as error:
                log.warning("%s", error)
                self._pulse.lost = True
                self._done.set()
            except TransientError as error:
                log.warning("heartbeat of %s is late: %s", self._claim.subject, error)
