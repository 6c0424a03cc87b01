"""What the ledger knows of the contenders, read in one consistent state."""

from __future__ import annotations

from ratchet.ledger.line import champion, serving
from ratchet.ledger.suites import evaluated
from ratchet.ledger.tables import Bar, Calibration, Checkpoint, Ranking, Regression
from ratchet.ledger.undecided import settled
from sqlalchemy import select
from sqlalchemy.orm import Session

from deployer.selection import Contender, Ruling, rule

SYSTEM_NAME = "deployment"


def rulings(session: Session) -> dict[str, Ruling]:
    """What is to become of each evaluated checkpoint that lacks a deployment verdict, the best-ranked first."""
    field = contenders(session)
    holder, frozen = champion(session), serving(session).frozen_reason
    ruled = rule(field, holder.id, holder.ordinal, frozen)
    best_first = sorted(field, key=lambda contender: (contender.score or 0.0, contender.ordinal), reverse=True)
    return {contender.id: ruled[contender.id] for contender in best_first}


def contenders(session: Session) -> list[Contender]:
    """Evaluated checkpoints without a verdict; the base model is none, it was live from the start."""
    ids = [row.checkpoint_id for row in evaluated(session, "eval")]
    done = settled(session, SYSTEM_NAME, [("checkpoint", id) for id in ids])
    scores = _scores(session)
    open_ids = [id for id in ids if ("checkpoint", id) not in done]
    return [
        _contender(session, session.get_one(Checkpoint, id), scores)
        for id in open_ids
        if session.get_one(Checkpoint, id).ordinal > 0
    ]


def _contender(session: Session, checkpoint: Checkpoint, scores: dict[str, float]) -> Contender:
    regression = session.get(Regression, checkpoint.id)
    bar = session.get(Bar, checkpoint.weights)
    return Contender(
        id=checkpoint.id,
        ordinal=checkpoint.ordinal,
        score=scores.get(checkpoint.id),
        severity=regression.severity if regression else None,
        calibrated=session.get(Calibration, checkpoint.id) is not None,
        barred=bar.reason if bar else None,
        is_kept=checkpoint.state == "saved",
    )


def _scores(session: Session) -> dict[str, float]:
    newest = session.scalar(select(Ranking).order_by(Ranking.id.desc()).limit(1))
    return (
        {entry["checkpoint_id"]: float(entry["choosing_score"]) for entry in newest.entries["entries"]}
        if newest
        else {}
    )
