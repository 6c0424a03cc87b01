"""A worker's row in the ledger, and what its name's last process left behind."""

from __future__ import annotations

import logging
import os
import shutil

from ratchet.build import Build
from ratchet.errors import SurroundingsError
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.migrate import require_current, require_not_newer
from ratchet.ledger.tables import Worker
from ratchet.metrics.targets import known_pages
from ratchet.settings import Settings
from ratchet.systems import claims, poison
from ratchet.systems.system import System

log = logging.getLogger(__name__)


class Registration:
    """Enters, refreshes and leaves the table of workers under a locked name."""

    def __init__(self, ledger: Ledger, system: System, worker: str, settings: Settings, metrics_url: str | None = None):
        self._metrics_url = metrics_url
        self._ledger, self._system, self._worker, self._settings = ledger, system, worker, settings

    def enter(self) -> None:
        """Register, and free what an earlier process of this name held: the name's lock proves that it is dead.

        Raises Refused for a ledger of another schema, SurroundingsError while the ledger is away.
        """
        require_current(self._ledger)
        shutil.rmtree(self._settings.work_folder / self._worker, ignore_errors=True)
        with self._ledger.write() as tx:
            self._free_inherited(tx)
            tx.session.merge(
                Worker(
                    name=self._worker,
                    system=self._system.name,
                    host=self._settings.placement.machine,
                    pid=os.getpid(),
                    version=str(Build.of(self._system.lanes[0].do.__module__)),
                    started_at=tx.now,
                    seen_at=tx.now,
                    metrics_url=self._metrics_url,
                    pages=known_pages(self._settings),
                    state="running",
                )
            )

    def seen(self) -> None:
        """Say that the worker is there. Raises SurroundingsError; Refused where the ledger became newer than it."""
        require_not_newer(self._ledger)
        self._say("running")

    def leave(self) -> None:
        """Say that the worker has stopped, if the ledger is there to hear it."""
        try:
            self._say("stopped")
        except SurroundingsError as error:
            log.info("left without a word: %s", error)

    def _say(self, state: str) -> None:
        with self._ledger.write() as tx:
            row = tx.session.get(Worker, self._worker)
            if row is not None:
                row.seen_at, row.state = tx.now, state

    def _free_inherited(self, tx: Transaction) -> None:
        for claim in claims.inherited(tx.session, self._worker):
            log.warning("the last %s died over %s", self._worker, claim.subject)
            poison.count_death(tx, claim, self._settings.control)
