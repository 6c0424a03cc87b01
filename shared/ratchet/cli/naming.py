"""What people call a checkpoint: its number, the beginning of its id, or its part (champion, newest, previous)."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CheckpointRow, ServingRow

PARTS = ("champion", "newest", "previous", "base")


def label(checkpoint: CheckpointRow) -> str:
    """As people see it: ``#7``."""
    return f"#{checkpoint.ordinal}"


def find(session: Session, name: str) -> CheckpointRow:
    """The checkpoint that a person means. Raises PreconditionFailed when none or several fit."""
    found = _part(session, name) if name in PARTS else _numbered(session, name) or _by_id(session, name)
    if found is None:
        raise PreconditionFailed(
            f"no checkpoint {name!r}: give its number (7), the beginning of its id, or one of {', '.join(PARTS)}. "
            "`ratchet leaderboard` lists them."
        )
    return found


def _part(session: Session, name: str) -> CheckpointRow | None:
    if name == "newest":
        return session.scalar(select(CheckpointRow).order_by(CheckpointRow.ordinal.desc()).limit(1))
    if name == "base":
        return session.scalar(select(CheckpointRow).where(CheckpointRow.ordinal == 0))
    serving = session.scalar(select(ServingRow).limit(1))
    if serving is None:
        return None
    wanted = serving.desired_id if name == "champion" else serving.previous_id
    return session.get(CheckpointRow, wanted) if wanted else None


def _numbered(session: Session, name: str) -> CheckpointRow | None:
    number = name.removeprefix("#")
    if not number.isdecimal() or len(number) > 9:
        return None
    return session.scalar(select(CheckpointRow).where(CheckpointRow.ordinal == int(number)))


def _by_id(session: Session, name: str) -> CheckpointRow | None:
    if len(name) < 4:
        return None
    prefix = CheckpointRow.id.startswith(name, autoescape=True) | CheckpointRow.weights.startswith(
        name, autoescape=True
    )
    rows = session.scalars(select(CheckpointRow).where(prefix).order_by(CheckpointRow.ordinal).limit(3)).all()
    if len(rows) > 1:
        raise PreconditionFailed(f"{name!r} fits {', '.join(f'{label(r)} {r.id}' for r in rows)}; write more of it.")
    return rows[0] if rows else None
