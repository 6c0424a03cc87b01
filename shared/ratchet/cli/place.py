"""Where a command stands: its settings, and the ledger and artifacts that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url

from ratchet.artifacts import ArtifactStore
from ratchet.artifacts.configured import artifact_store
from ratchet.disk import home_trouble
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import require_current
from ratchet.settings import Settings, load


@contextmanager
def opened(settings: Settings | None = None) -> Iterator[tuple[Settings, Ledger]]:
    """The settings and the ledger, which must be there and be of this version.

    Raises PreconditionFailed with the way out.
    """
    settings = settings or load()
    _require_ledger(settings)
    ledger = Ledger(settings.ledger_url)
    try:
        require_current(ledger)
        yield settings, ledger
    finally:
        ledger.close()


def artifacts(settings: Settings) -> ArtifactStore:
    return artifact_store(settings)


def _require_ledger(settings: Settings) -> None:
    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        with home_trouble(settings.home), suppress(FileNotFoundError):
            os.scandir(settings.home).close()  # a home that is a file, or another user's, will never have one
        raise PreconditionFailed(f"there is no ledger at {url.database} yet: `ratchet run` makes one.")
