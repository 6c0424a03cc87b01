"""Bringing a ledger to this version's schema, by one process at a time; refusing one that is newer."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from ratchet.errors import LedgerBehind, PreconditionFailed
from ratchet.ledger.ledger import Ledger

MIGRATION_LOCK = 0x4A7C4E8
FOLDER = Path(__file__).parent / "migrations"


def migrate(ledger: Ledger) -> str:
    """Upgrade to the newest schema under a lock;

    returns its revision. Raises PreconditionFailed for a ledger newer than this.
    """
    with _alone(ledger) as connection:
        _refuse_newer(_revision(connection))
        command.upgrade(alembic_config(connection), "head")
        connection.commit()
        return head()


def require_current(ledger: Ledger) -> None:
    """Raise PreconditionFailed unless the ledger has exactly this version's schema, TransientError while it is away.

    What a migration would mend is LedgerBehind.
    """
    with ledger.read() as session:
        found = _revision(session.connection())
    _refuse_newer(found)
    if found != head():
        raise LedgerBehind(
            f"the ledger is at {found or 'nothing'}, this version needs {head()}: run `ratchet migrate`."
        )


def require_known(revision: str | None) -> None:
    """Raise PreconditionFailed for a revision that is newer than this version."""
    _refuse_newer(revision)


def require_not_newer(ledger: Ledger) -> None:
    """Raise PreconditionFailed for a ledger that was migrated by a newer version, TransientError while it is away."""
    with ledger.read() as session:
        found = _revision(session.connection())
    _refuse_newer(found)


def head() -> str:
    """The newest revision that this version knows."""
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert revision is not None
    return revision


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the ledger's migrations, to be run on this connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _known() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def _refuse_newer(found: str | None) -> None:
    if found is not None and found not in _known():
        raise PreconditionFailed(
            f"the ledger is at {found}, which this version does not know: upgrade Ratchet on this host."
        )


@contextmanager
def _alone(ledger: Ledger) -> Iterator[Connection]:
    if ledger.dialect == "postgresql":
        with ledger.engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            try:
                yield connection
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        return
    database = ledger.engine.url.database
    with open(f"{database}.migrating", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ledger.engine.connect() as connection:
            yield connection
