"""What commands share: settings, ledger and artifacts of this home, and lookup of a checkpoint by number, id or
role."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed, TransientError, UnknownPlugin
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import require_current
from ratchet.ledger.tables import CheckpointRow, ServingRow
from ratchet.settings import Settings, load

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore

NAMES = ("champion", "newest", "previous", "base")


@contextmanager
def opened(settings: Settings | None = None) -> Iterator[tuple[Settings, Ledger]]:
    """The settings and the ledger. Raises PreconditionFailed where there is no ledger, or one of another version."""
    settings = settings or load()
    _require_ledger(settings)
    ledger = Ledger(settings.ledger_url)
    try:
        require_current(ledger)
        yield settings, ledger
    finally:
        ledger.close()


def _require_ledger(settings: Settings) -> None:
    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        with home_errors(settings.home), suppress(FileNotFoundError):
            os.scandir(settings.home).close()  # raises for a home that is a file or not readable
        raise PreconditionFailed(f"there is no ledger at {url.database} yet: `ratchet run` creates it.")


def artifacts(settings: Settings) -> ArtifactStore:
    """The store of checkpoints, batches and records."""
    from ratchet.artifacts.artifact_store import artifact_store  # fsspec, which few commands need

    return artifact_store(settings)


def checkpoint_folder(settings: Settings, row: CheckpointRow) -> str | None:
    """Where the files of a checkpoint lie: a folder, or the address in a remote store; None once they are deleted."""
    place = settings.artifact_url.removeprefix("file://").rstrip("/")
    return f"{place}/{row.artifact}" if row.state != "deleted" else None


def wake(settings: Settings, *systems: str) -> None:
    """Wake these systems. Without Redis, or on another host, a system's next sweep does it."""
    from ratchet.bus.celery_app import wake as wake_queue  # Celery, half a second of imports
    from ratchet.systems import registry

    for name in systems:
        with suppress(TransientError, UnknownPlugin):
            wake_queue(settings, registry.get(name))


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
