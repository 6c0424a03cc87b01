"""What training says of itself: from the files of this machine if it runs here, or else from what it puts up."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.bus.bulletin import Bulletin, newest
from ratchet.ledger.health import PRESENT_S, is_expected
from ratchet.ledger.tables import WorkerRow
from ratchet.settings import Settings
from ratchet.worker.bulletin import read_bulletin


def heard_of_training(session: Session, settings: Settings, now: float) -> Bulletin:
    """Files of a machine that no longer trains are old, so they count only where no other machine does."""
    own = read_bulletin(settings)
    query = select(WorkerRow.host).where(WorkerRow.system == "training", is_expected())
    hosts = set(session.scalars(query.where(WorkerRow.seen_at > now - PRESENT_S)))
    if own.status and (not hosts or settings.placement.machine in hosts):
        return own
    return newest(settings) or own
