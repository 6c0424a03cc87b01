"""Access to this home: its settings, ledger and artifacts, and waking its systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed, TransientError, UnknownPlugin
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import require_current
from ratchet.settings import Settings, load

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore


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


def wake(settings: Settings, *systems: str) -> None:
    """Wake these systems. Without Redis, or on another host, a system's next sweep does it."""
    from ratchet.bus.celery_app import wake as wake_queue  # Celery, half a second of imports
    from ratchet.systems import registry

    for name in systems:
        with suppress(TransientError, UnknownPlugin):
            wake_queue(settings, registry.get(name))
