"""The inputs of selection and gate, read from the ledger in one consistent snapshot.

This module decides nothing: ``deployer.selection`` rules on the contenders that are read here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ratchet.evaluation.confidence import Certainty
from ratchet.ledger.deployments import champion, serving
from ratchet.ledger.suites import current
from ratchet.ledger.tables import (
    BlockRow,
    CalibrationRow,
    ChallengeRow,
    CheckpointRow,
    DeadLetterRow,
    RankingRow,
    RegressionRow,
    VerdictRow,
)
from ratchet.systems import registry
from ratchet.systems.evaluated_checkpoints import evaluated_without
from ratchet.user_tasks.task import all_tasks
from sqlalchemy import select
from sqlalchemy.orm import Session

from deployer.selection import Contender, Ruling, rule

SYSTEM_NAME = "deployment"


def rulings(session: Session) -> dict[str, Ruling]:
    """The ruling on each evaluated checkpoint without a deployment verdict, best-ranked first."""
    field = contenders(session)
    holder = champion(session)
    ruled = rule(field, holder.id, holder.ordinal, _held(session, holder.id))
    best_first = sorted(field, key=lambda contender: (contender.score or 0.0, contender.ordinal), reverse=True)
    return {contender.id: ruled[contender.id] for contender in best_first}


def contenders(session: Session) -> list[Contender]:
    """Evaluated checkpoints without a verdict, except the base model, which was live from the start."""
    open_ids = [subject.id for subject in evaluated_without(session, SYSTEM_NAME, "eval")]
    if not open_ids:
        return []
    ranked, given_up, missing = _ranked(session), _given_up(session), _missing_judges(session, open_ids)
    challenging = _challenging(session)
    rows = [session.get_one(CheckpointRow, id) for id in open_ids]
    return [
        _contender(session, row, ranked.get(row.id), given_up, missing[row.id], is_challenging=row.id in challenging)
        for row in rows
        if row.ordinal > 0
    ]


def _challenging(session: Session) -> set[str]:
    """The checkpoints with an open challenge of the present champion."""
    query = select(ChallengeRow.challenger_id).where(
        ChallengeRow.champion_id == champion(session).id, ChallengeRow.outcome.is_(None)
    )
    return set(session.scalars(query))


def _missing_judges(session: Session, checkpoint_ids: list[str]) -> dict[str, tuple[str, ...]]:
    """For each checkpoint, the judges that have no verdict on it yet."""
    names = registry.judges(session)
    query = select(VerdictRow.subject_id, VerdictRow.system).where(
        VerdictRow.subject_kind == "checkpoint",
        VerdictRow.system.in_(names),
        VerdictRow.subject_id.in_(checkpoint_ids),
    )
    given = {(row.subject_id, row.system) for row in session.execute(query)}
    return {id: tuple(name for name in names if (id, name) not in given) for id in checkpoint_ids}


def _held(session: Session, champion_id: str) -> str | None:
    """What has to happen before any challenge can be opened, or None.

    A challenge needs the champion's records, and the base model's confirm record where that has general items.
    """
    frozen, given_up = serving(session).frozen_reason, _given_up(session)
    if frozen is not None:
        return f"`ratchet deploy unfreeze` (frozen: {frozen})"
    if champion_id in given_up:
        return f"`ratchet dead retry`: testing gave up on the champion's {_names(given_up[champion_id])} record"
    base_id = session.scalars(select(CheckpointRow.id).order_by(CheckpointRow.ordinal).limit(1)).one()
    if "confirm" in given_up.get(base_id, ()) and _has_general_items(session, "confirm"):
        return "`ratchet dead retry`: testing gave up on the base model's confirm record"
    return None


def _has_general_items(session: Session, pool: str) -> bool:
    return any(pool in task.held_out for task in all_tasks(session, "general"))


def _given_up(session: Session) -> dict[str, set[str]]:
    """Checkpoints for which testing has dead-lettered records on current suites, with the suites' pools."""
    suites = {current(session, pool).id: pool for pool in ("eval", "confirm")}
    letters = select(DeadLetterRow.subject_id).where(
        DeadLetterRow.system == "testing", DeadLetterRow.subject_kind == "request", DeadLetterRow.resolved_at.is_(None)
    )
    asked = [subject_id.split("/")[:2] for subject_id in session.scalars(letters)]
    given_up: dict[str, set[str]] = {}
    for checkpoint_id, suite_id in asked:
        if suite_id in suites:
            given_up.setdefault(checkpoint_id, set()).add(suites[suite_id])
    return given_up


def _names(pools: Collection[str]) -> str:
    return " and ".join(sorted(pools))


def _contender(
    session: Session,
    checkpoint: CheckpointRow,
    ranked: dict[str, Any] | None,
    given_up: dict[str, set[str]],
    missing_judges: tuple[str, ...],
    *,
    is_challenging: bool,
) -> Contender:
    regression = session.get(RegressionRow, checkpoint.id)
    block = session.get(BlockRow, checkpoint.weights)
    return Contender(
        id=checkpoint.id,
        ordinal=checkpoint.ordinal,
        score=float(ranked["selection_score"]) if ranked else None,
        severity=regression.severity if regression else None,
        calibrated=session.get(CalibrationRow, checkpoint.id) is not None,
        blocked=block.reason if block else None,
        is_kept=checkpoint.state == "saved",
        given_up=_names(given_up.get(checkpoint.id, ())) or None,
        over_budget=ranked.get("over_budget") if ranked else None,
        judges=missing_judges,
        is_challenging=is_challenging,
    )


def certainty_of(session: Session, checkpoint_id: str) -> Certainty | None:
    """The calibration to deploy with the checkpoint; None if there is none yet, or it could not be calibrated."""
    row = session.get(CalibrationRow, checkpoint_id)
    return Certainty.model_validate(row.shipped) if row is not None and row.shipped else None


def _ranked(session: Session) -> dict[str, dict[str, Any]]:
    """The entries of the newest ranking, by checkpoint id."""
    newest = session.scalar(select(RankingRow).order_by(RankingRow.id.desc()).limit(1))
    return {entry["checkpoint_id"]: entry for entry in newest.entries["entries"]} if newest else {}
