"""What is served while the champion cannot be: an earlier champion whose files are whole, marked as standing in.

The champion stays what is desired. Every look of the deployer tries it again, so it is back as soon as its files are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from ratchet.errors import ArtifactError, UnusableCheckpoint
from ratchet.ledger import Transaction, damages
from ratchet.ledger.line import serving
from ratchet.ledger.tables import BlockRow, CheckpointRow, DeploymentRow
from ratchet.systems import Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from deployer.desired import KEPT_UP, observed
from deployer.rollout import Rollout

log = logging.getLogger(__name__)

DAMAGE = (ArtifactError, UnusableCheckpoint)
"""What says that a checkpoint's files are not what was judged."""


def fall_back(work: Work, rollout: Rollout, champion: CheckpointRow, error: Exception) -> Callable[[Transaction], None]:
    """Have the newest sound predecessor served, unless one is already; returns what is to be noted of it."""
    log.error("%s is the champion and cannot be served: %s", champion.id, error)
    served = _already_serving(work, rollout, champion) or _brought_up(work, rollout, champion)
    instead = f"{served} is served in the place of the champion {champion.id}" if served else "nothing is served"
    reason = f"{instead}, since that is damaged: {error}"
    artifact = getattr(error, "artifact", None) or champion.artifact

    def effects(tx: Transaction) -> None:
        row = serving(tx.session)
        if row.desired_id != champion.id:
            return
        observed(tx, served)
        row.fallback_reason = reason
        damages.record(tx, artifact, str(error), *KEPT_UP, f"{instead}, until it is back.")

    return effects


def _already_serving(work: Work, rollout: Rollout, champion: CheckpointRow) -> str | None:
    """What is live, where that is another checkpoint than the champion and may be served."""
    live = rollout.server.live()
    if live is None or live.checkpoint_id == champion.id:
        return None
    with work.read() as session:
        return None if session.get(BlockRow, live.weights) is not None else live.checkpoint_id


def _brought_up(work: Work, rollout: Rollout, champion: CheckpointRow) -> str | None:
    with work.read() as session:
        candidates = list(_predecessors(session, champion.id))
    for candidate in candidates:
        try:
            rollout.bring_up(candidate)
        except DAMAGE as error:
            log.error("nor can %s be served: %s", candidate.id, error)
        else:
            return candidate.id
    return None


def _predecessors(session: Session, champion_id: str) -> Iterator[CheckpointRow]:
    """Earlier champions whose bytes are kept and whose weights are not barred, the last one first."""
    rows = session.scalars(select(DeploymentRow.checkpoint_id).order_by(DeploymentRow.id.desc()))
    for checkpoint_id in dict.fromkeys(rows):
        checkpoint = session.get_one(CheckpointRow, checkpoint_id)
        is_barred = session.get(BlockRow, checkpoint.weights) is not None
        if checkpoint_id != champion_id and checkpoint.state == "saved" and not is_barred:
            yield checkpoint
