"""What the ledger knows of a checkpoint that a model card tells: its base, its data, and what was proved of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.gate.verdict_values import Verdict
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, DeploymentRow, EvaluationRow, LockedSettingRow, TaskRow
from ratchet.settings import Settings
from ratchet.user_tasks.task import all_tasks

_LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?([\w.+ -]+?)[\"']?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class DataFacts:
    """One task that the lineage is taught and judged on. ``held_out`` of its rows are never trained on."""

    name: str
    metric: str
    rows: int
    held_out: int
    source: str

    @classmethod
    def of(cls, row: TaskRow) -> DataFacts:
        return cls(row.name, row.metric, row.rows, row.held_rows, row.source)


@dataclass(frozen=True)
class CheckpointFacts:
    """``proof`` is the reason of its deployment, ``targets`` the gate's numbers by target, both empty without one.

    ``results`` are pairs of a pool and how many of its graded items were answered right. ``verdict`` is the gate's last
    one, which was kept with its challenge.
    """

    id: str
    ordinal: int
    base: str
    base_licence: str | None
    weights: str
    step: int
    tokens: int
    data: tuple[DataFacts, ...] = ()
    families: tuple[str, ...] = ()
    proof: str = ""
    proved_at: float | None = None
    targets: tuple[Mapping[str, Any], ...] = ()
    results: tuple[tuple[str, int, int], ...] = field(default=())
    verdict: Verdict | None = None


def read_facts(session: Session, settings: Settings, row: CheckpointRow) -> CheckpointFacts:
    """The facts of a checkpoint."""
    deployed = _deployment(session, row)
    evidence: Mapping[str, Any] = (deployed.numbers if deployed is not None else {}).get("evidence") or {}
    locked = session.scalar(select(LockedSettingRow.value).where(LockedSettingRow.name == "base_model"))
    records = session.scalars(
        select(EvaluationRow).where(EvaluationRow.checkpoint_id == row.id).order_by(EvaluationRow.created_at)
    )
    return CheckpointFacts(
        id=row.id,
        ordinal=row.ordinal,
        base=locked or settings.locked.base_model or settings.model.path,
        base_licence=licence_of(Path(settings.model.path)),
        weights=row.weights,
        step=row.step,
        tokens=row.tokens,
        data=tuple(DataFacts.of(task) for task in all_tasks(session, "user")),
        families=tuple(family.name for family in settings.suites.families),
        proof=deployed.reason if deployed is not None else "",
        proved_at=deployed.created_at if deployed is not None else None,
        targets=tuple(evidence.get("targets") or ()),
        results=tuple((record.pool, record.correct, record.items) for record in records),
        verdict=_verdict(session, row),
    )


def _deployment(session: Session, row: CheckpointRow) -> DeploymentRow | None:
    """The last deployment of the checkpoint by the gate."""
    query = select(DeploymentRow).where(
        DeploymentRow.checkpoint_id == row.id, DeploymentRow.action == "deploy", DeploymentRow.actor == "gate"
    )
    return session.scalar(query.order_by(DeploymentRow.id.desc()).limit(1))


def _verdict(session: Session, row: CheckpointRow) -> Verdict | None:
    """What the gate wrote down of its last decision on the checkpoint."""
    decided = select(ChallengeRow).where(ChallengeRow.challenger_id == row.id, ChallengeRow.outcome.is_not(None))
    challenge = session.scalar(decided.order_by(ChallengeRow.id.desc()).limit(1))
    try:
        return Verdict.model_validate(challenge.numbers["verdict"]) if challenge is not None else None
    except (KeyError, ValidationError):  # superseded, or of another version
        return None


def licence_of(folder: Path) -> str | None:
    """The licence that the model card in a folder states; None without a card."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head = card.split("\n---", 1)[0] if card.startswith("---") else ""
    found = _LICENCE.search(head)
    return found[1] if found is not None else None
