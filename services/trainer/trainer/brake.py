"""The human's hand on a running segment: a pause or a skip ends it after its step, saved, with its offset."""

from __future__ import annotations

import time

from ratchet.ledger.lineage import lineage
from ratchet.ledger.tables import BatchRow
from ratchet.systems import Work


class Brake:
    """Asks the ledger, now and then, whether the segment is still wanted."""

    def __init__(self, work: Work, batch_id: str, every_s: float) -> None:
        self._every_s = every_s
        self._work = work
        self._batch_id = batch_id
        self._asked_at = time.monotonic()
        self._pulled = False

    def __call__(self) -> bool:
        """Whether training is paused, or the batch skipped; once so, always so."""
        now = time.monotonic()
        if not self._pulled and now - self._asked_at >= self._every_s:
            self._asked_at = now
            with self._work.read() as session:
                batch = session.get_one(BatchRow, self._batch_id)
                self._pulled = lineage(session).paused or batch.state == "skipped"
        return self._pulled
