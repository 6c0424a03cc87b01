"""A copy of a ledger that is in use, as one SQLite file that shows one moment of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ratchet.backup.manifest import LedgerCopy
from ratchet.backup.named import named
from ratchet.backup.rows import copy_rows, count_rows
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import head, migrate, require_current

DRAFT = "ledger.draft"


@contextmanager
def opened_copy(path: Path) -> Iterator[Ledger]:
    """An SQLite ledger at a path; it is one file again afterwards, without a log beside it."""
    ledger = Ledger(f"sqlite:///{path}")
    try:
        yield ledger
    finally:
        ledger.close()
    with _sqlite_trouble(path), closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    path.with_name(f"{path.name}.migrating").unlink(missing_ok=True)


def copy_ledger(ledger: Ledger, folder: Path) -> tuple[LedgerCopy, set[str]]:
    """Copy into ``folder`` while others write; returns the copy, and the artifacts that it counts on.

    SQLite is copied by its online backup, PostgreSQL by the rows of one snapshot. Raises PreconditionFailed for a
    ledger of another schema, TransientError where ledger or disk fail.
    """
    require_current(ledger)
    draft = folder / DRAFT
    draft.unlink(missing_ok=True)
    with _sqlite_trouble(draft):
        if ledger.dialect == "sqlite":
            _copy_file(Path(str(ledger.engine.url.database)), draft)
        else:
            _copy_snapshot(ledger, draft)
    with opened_copy(draft) as copy, copy.read() as session:
        rows, needed = count_rows(session.connection()), named(session)
    _require_sound(draft)
    return LedgerCopy.of(draft, head(), rows), needed


def _copy_file(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source, timeout=30.0)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


def _copy_snapshot(ledger: Ledger, target: Path) -> None:
    with opened_copy(target) as copy:
        migrate(copy)
        snapshot = ledger.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with snapshot.connect() as source, copy.write() as tx:
            copy_rows(source, tx.session.connection())


def _require_sound(path: Path) -> None:
    with _sqlite_trouble(path), closing(sqlite3.connect(path)) as connection:
        said = connection.execute("PRAGMA integrity_check").fetchone()[0]
        strays = connection.execute("PRAGMA foreign_key_check").fetchall()
    if said != "ok" or strays:
        raise TransientError(f"the copy of the ledger at {path} is not sound ({said}): is that disk all right?")


@contextmanager
def _sqlite_trouble(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TransientError(f"the copy of the ledger at {path} fails: {error}.") from error
