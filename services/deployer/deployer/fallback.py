"""What is served while the champion cannot be: an earlier champion whose files are whole, marked as standing in.

The champion stays what is desired. Every look of the deployer tries it again, so it is back as soon as its files are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from ratchet.errors import ArtifactError, UnusableCheckpoint
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import earlier_champions, note_fallback
from ratchet.ledger.tables import BlockRow, CheckpointRow
from ratchet.systems import Work
from sqlalchemy.orm import Session

from deployer.rollout import Rollout

log = logging.getLogger(__name__)

DAMAGE = (ArtifactError, UnusableCheckpoint)
"""What says that a checkpoint's files are not what was judged."""


def fall_back(work: Work, rollout: Rollout, champion: CheckpointRow, error: Exception) -> Callable[[Transaction], None]:
    """Have the newest sound predecessor served, unless one is already; returns what is to be noted of it."""
    log.error("%s is the champion and cannot be served: %s", champion.id, error)
    served = _already_serving(work, rollout, champion) or _brought_up(work, rollout, champion)
    artifact = getattr(error, "artifact", None) or champion.artifact
    return lambda tx: note_fallback(tx, champion.id, served, artifact, str(error))


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
    """Earlier champions whose files are kept and whose weights are not blocked, the newest first."""
    for checkpoint_id in earlier_champions(session):
        checkpoint = session.get_one(CheckpointRow, checkpoint_id)
        is_blocked = session.get(BlockRow, checkpoint.weights) is not None
        if checkpoint_id != champion_id and checkpoint.state == "saved" and not is_blocked:
            yield checkpoint
