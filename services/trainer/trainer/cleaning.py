"""Applying retention: read what may go, delete its bytes, say so in the ledger."""

from __future__ import annotations

from ratchet.ledger import Transaction
from ratchet.ledger.deployments import serving
from ratchet.ledger.lineage import lineage
from ratchet.ledger.suites import unanswered_requests
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, ClaimRow
from ratchet.systems import Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from trainer.retention import Kept, expendable

GB = 1e9

CLAIMED = ("checkpoint", "request", "mined")
"""Kinds of subjects whose id begins with a checkpoint's."""


def clean(work: Work) -> None:
    """Delete expendable checkpoints and old optimizer states. The ledger is told first: no row names absent bytes."""
    retention = work.settings.retention
    gone: list[str] = []

    def effects(tx: Transaction) -> None:
        rows = list(tx.session.scalars(select(CheckpointRow).where(CheckpointRow.state == "saved")))
        protected = _protected(tx.session)
        kept = [Kept(row.id, row.ordinal, row.size_bytes) for row in rows]
        doomed = set(expendable(kept, protected, retention.checkpoints_gb * GB))
        for row in rows:
            if row.id in doomed:
                row.state, row.reason = "deleted", "retention"
                gone.append(row.artifact)
                gone.extend(_without_state(row))
        gone.extend(_old_states(rows, protected, retention.states))
        named = {artifact for row in rows if row.state == "saved" for artifact in (row.artifact, row.state_artifact)}
        gone[:] = [artifact for artifact in gone if artifact not in named]

    work.commit(effects)
    for artifact in gone:
        work.artifacts.delete(artifact)


def _old_states(rows: list[CheckpointRow], protected: set[str], keep: int) -> list[str]:
    with_state = sorted((row for row in rows if row.state_artifact), key=lambda row: row.ordinal, reverse=True)
    old = [row for row in with_state[keep:] if row.id not in protected]
    return [artifact for row in old for artifact in _without_state(row)]


def _without_state(row: CheckpointRow) -> list[str]:
    """Take the optimizer's state off the row; returns what was there."""
    artifact, row.state_artifact = row.state_artifact, None
    return [artifact] if artifact else []


def _protected(session: Session) -> set[str]:
    """Champion, rollback target, the line's head, what its adapters stand on, and all that is in use.

    In use is whatever a claim, an unanswered request or an open challenge names.
    """
    live = serving(session)
    main = lineage(session)
    named = {live.desired_id, live.previous_id, live.actual_id, main.head_id, main.adapter_base_id}
    claimed = session.scalars(select(ClaimRow.subject_id).where(ClaimRow.subject_kind.in_(CLAIMED)))
    named.update(subject_id.partition("/")[0] for subject_id in claimed)
    named.update(request.checkpoint_id for request in session.scalars(unanswered_requests()))
    undecided = select(ChallengeRow.challenger_id).where(
        ChallengeRow.outcome.is_(None), ChallengeRow.champion_id == live.desired_id
    )
    named.update(session.scalars(undecided))
    return {name for name in named if name is not None}
