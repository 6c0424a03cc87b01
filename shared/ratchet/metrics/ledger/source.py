"""The ledger as a source of metrics: one consistent reading of all that concerns no single worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric
from sqlalchemy.orm import Session

from ratchet.ledger import Ledger
from ratchet.metrics.exposition import single
from ratchet.metrics.ledger.control import control
from ratchet.metrics.ledger.data import data, line
from ratchet.metrics.ledger.judging import judging
from ratchet.metrics.ledger.learning import learning
from ratchet.metrics.ledger.serving import serving
from ratchet.metrics.ledger.undone import undone
from ratchet.settings import Settings

Read = Callable[[Session, float, Settings], Iterator[Metric]]
READS: tuple[Read, ...] = (data, line, learning, undone, judging, serving, control)


class LedgerSource:
    """Read-only; some thirty indexed queries."""

    def __init__(self, ledger: Ledger, settings: Settings):
        self._ledger, self._settings = ledger, settings

    def read(self) -> list[Metric]:
        """Raises TransientError while the ledger is away."""
        began_at = time.monotonic()
        now = self._ledger.now()
        with self._ledger.read() as session:
            found = [family for read in READS for family in read(session, now, self._settings)]
        took = single("ratchet_ledger_read_seconds", "What this reading took.", time.monotonic() - began_at)
        return [_up(1.0), took, *found]

    def away(self) -> list[Metric]:
        return [_up(0.0)]


def _up(value: float) -> Metric:
    return single("ratchet_ledger_up", "1 if the ledger answers.", value)
