"""A checkpoint's number, its lookup by number, id or role, and the folder of its files."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CheckpointRow, ServingRow
from ratchet.settings import Settings

NAMES = ("champion", "newest", "previous", "base")


def checkpoint_folder(settings: Settings, row: CheckpointRow) -> str | None:
    """Where the files of a checkpoint lie: a folder, or the address in a remote store; None once they are deleted."""
    place = settings.artifact_url.removeprefix("file://").rstrip("/")
    return f"{place}/{row.artifact}" if row.state != "deleted" else None


def label(checkpoint: CheckpointRow) -> str:
    """The checkpoint's number as it is displayed: ``#7``."""
    return f"#{checkpoint.ordinal}"


def find_checkpoint(session: Session, name: str) -> CheckpointRow:
    """The checkpoint of that number, id or role. Raises PreconditionFailed for no match or several."""
    found = _with_role(session, name) if name in NAMES else _with_number(session, name) or _with_id(session, name)
    if found is None:
        raise PreconditionFailed(
            f"no checkpoint {name!r}: give its number (7), the beginning of its id, or one of {', '.join(NAMES)}. "
            "`ratchet show leaderboard` lists them."
        )
    return found


def _with_role(session: Session, name: str) -> CheckpointRow | None:
    if name == "newest":
        return session.scalar(select(CheckpointRow).order_by(CheckpointRow.ordinal.desc()).limit(1))
    if name == "base":
        return session.scalar(select(CheckpointRow).where(CheckpointRow.ordinal == 0))
    serving = session.scalar(select(ServingRow).limit(1))
    if serving is None:
        return None
    wanted = serving.desired_id if name == "champion" else serving.previous_id
    return session.get(CheckpointRow, wanted) if wanted else None


def _with_number(session: Session, name: str) -> CheckpointRow | None:
    number = name.removeprefix("#")
    if not number.isdecimal() or len(number) > 9:
        return None
    return session.scalar(select(CheckpointRow).where(CheckpointRow.ordinal == int(number)))


def _with_id(session: Session, name: str) -> CheckpointRow | None:
    """The beginning of the checkpoint's id, or of the digest of its weights."""
    if len(name) < 4:
        return None
    prefix = CheckpointRow.id.startswith(name, autoescape=True) | CheckpointRow.weights.startswith(
        name, autoescape=True
    )
    rows = session.scalars(select(CheckpointRow).where(prefix).order_by(CheckpointRow.ordinal).limit(3)).all()
    if len(rows) > 1:
        raise PreconditionFailed(
            f"{name!r} matches {', '.join(f'{label(r)} {r.id}' for r in rows)}; give more characters."
        )
    return rows[0] if rows else None
