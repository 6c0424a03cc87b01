"""Brings a ledger to the schema of this version, one process at a time.

A ledger with a schema that this version does not know, from a later version or a build before the first release, is
refused and not changed. Checking the schema does not import Alembic, which takes a third of a second: the migrations
are read as text, and the revision is read from its table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from ratchet.errors import LedgerBehind, PreconditionFailed
from ratchet.file_lock import FileLock
from ratchet.ledger.ledger import Ledger, translated_errors
from ratchet.ledger.tables import Base

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATION_LOCK = 0x4A7C4E8
FOLDER = Path(__file__).parent / "migrations"
_REVISION = re.compile(r'^(revision|down_revision)\b[^=]*= (?:"(\w+)"|None)', re.MULTILINE)


def migrate(ledger: Ledger) -> str:
    """Upgrade to the newest schema under a lock and return its revision.

    Raises PreconditionFailed for a schema that this version does not know, TransientError for a full disk.
    """
    from alembic import command

    with translated_errors(ledger.url), _alone(ledger) as connection:
        require_known(_revision(connection))
        command.upgrade(alembic_config(connection), "head")
        connection.commit()
        return head()


def require_current(ledger: Ledger) -> None:
    """Raise unless the ledger has exactly this version's schema.

    Raises LedgerBehind if `ratchet migrate` helps, PreconditionFailed if it does not, and TransientError while the
    ledger cannot be reached.
    """
    found = _revision_of(ledger)
    require_known(found)
    if found != head():
        raise LedgerBehind(
            f"the ledger has {f'schema {found}' if found else 'no tables yet'}, this version needs schema {head()}: "
            "run `ratchet migrate`."
        )


def require_known_schema(ledger: Ledger) -> None:
    """Raise PreconditionFailed for a schema that this version does not know, TransientError while the ledger is
    unavailable."""
    require_known(_revision_of(ledger))


def require_known(revision: str | None) -> None:
    """Raise PreconditionFailed for a revision that this version does not know. None is a ledger without tables."""
    if revision is not None and revision not in _known():
        raise PreconditionFailed(
            f"the ledger has schema {revision}, which this version does not know: install the version of Ratchet that "
            "last ran on it, or set `ledger.url` to a new ledger."
        )


def head() -> str:
    """The newest revision that this version knows."""
    (newest,) = set(_known()) - set(_known().values())
    return newest


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the ledger's migrations, to be run on this connection."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    return config


def _revision_of(ledger: Ledger) -> str | None:
    with ledger.read() as session:
        return _revision(session.connection())


def _revision(connection: Connection) -> str | None:
    """None for a ledger without tables. Raises PreconditionFailed for tables of ours that no revision stands for."""
    there = set(inspect(connection).get_table_names())
    revision: str | None = None
    if "alembic_version" in there:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is None and (ours := sorted(there & set(Base.metadata.tables))):
        raise PreconditionFailed(
            f"the ledger has tables ({', '.join(ours[:3])}, …) and no schema version: restore it with "
            "`ratchet backup restore FOLDER --force`, or set `ledger.url` to a new ledger."
        )
    return revision


@cache
def _known() -> dict[str, str | None]:
    """The revisions of this version, each with its predecessor."""
    found = {}
    for file in (FOLDER / "versions").glob("*.py"):
        declared = {name: revision or None for name, revision in _REVISION.findall(file.read_text(encoding="utf-8"))}
        if revision := declared.get("revision"):
            found[revision] = declared.get("down_revision")
    return found


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
    with FileLock.acquire(Path(f"{database}.migrating")), ledger.engine.connect() as connection:
        yield connection
