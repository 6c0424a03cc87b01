"""Whether the copied ledger of a backup is the one that its manifest describes: a sum that fits proves it of the bytes
alone, and whoever wrote both may have written nonsense. The file is read and never written to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from ratchet.backup.manifest import MANIFEST, BackupManifest
from ratchet.backup.named import named
from ratchet.errors import ArtifactError
from ratchet.files import printable
from ratchet.ledger.migrate import require_known

_REVISIONS = "alembic_version"
_ANOTHER = "take another backup"


def require_whole(copy: Path, manifest: BackupManifest) -> None:
    """Raise ArtifactError unless soundness, revision, rows and artifacts are as the manifest says.

    Raises PreconditionFailed for a revision that is newer than this version.
    """
    if manifest.ledger.revision is None:
        raise ArtifactError(f"{MANIFEST} names no revision of its ledger: it is of no ledger; {_ANOTHER}.")
    require_known(manifest.ledger.revision)
    try:
        with closing(_opened(copy)) as connection:
            _require_sound(connection, copy)
            _require_revision(connection, copy, manifest.ledger.revision)
            _require_rows(connection, copy, manifest.ledger.rows)
            _require_listed(connection, copy, manifest.artifacts)
    except sqlite3.Error as error:
        raise ArtifactError(f"{printable(copy)} is no SQLite file that can be read ({error}); {_ANOTHER}.") from error


def _opened(copy: Path) -> sqlite3.Connection:
    """Immutable: otherwise SQLite would look for a log beside the file, and might make one."""
    return sqlite3.connect(f"{copy.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


def _require_sound(connection: sqlite3.Connection, copy: Path) -> None:
    said = connection.execute("PRAGMA integrity_check").fetchone()[0]
    strays = connection.execute("PRAGMA foreign_key_check").fetchone()
    if said != "ok" or strays is not None:
        why = said if said != "ok" else f"a row of {strays[0]} names one of {strays[2]} that is not there"
        raise ArtifactError(f"{printable(copy)} is not sound ({why}); {_ANOTHER}.")


def _require_revision(connection: sqlite3.Connection, copy: Path, expected: str) -> None:
    if _REVISIONS not in _tables(connection):
        raise ArtifactError(f"{printable(copy)} holds no ledger: it has no table {_REVISIONS}; {_ANOTHER}.")
    found = [revision for (revision,) in connection.execute(f"SELECT version_num FROM {_REVISIONS}")]
    if not found:
        raise ArtifactError(f"{printable(copy)} holds no ledger: it has no revision; {_ANOTHER}.")
    if found != [expected]:
        raise ArtifactError(
            f"{printable(copy)} is at {', '.join(map(str, found))}, where {MANIFEST} says {expected}; {_ANOTHER}."
        )


def _require_rows(connection: sqlite3.Connection, copy: Path, expected: Mapping[str, int]) -> None:
    tables = _tables(connection) - {_REVISIONS}
    if strangers := sorted(tables ^ expected.keys()):
        raise ArtifactError(
            f"{printable(copy)} is not what {MANIFEST} says: only one of them has {strangers[0]}; {_ANOTHER}."
        )
    for name in sorted(tables):
        (found,) = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()
        if found != expected[name]:
            raise ArtifactError(
                f"{printable(copy)} has {found:,} rows in {name}, where {MANIFEST} says {expected[name]:,}; {_ANOTHER}."
            )


def _require_listed(connection: sqlite3.Connection, copy: Path, artifacts: Mapping[str, int]) -> None:
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    with Session(engine) as session:
        missing = sorted(named(session) - artifacts.keys())
    if missing:
        raise ArtifactError(
            f"{MANIFEST} does not list {len(missing):,} artifact(s) that {printable(copy)} counts on, {missing[0]} "
            f"first; {_ANOTHER}."
        )


def _tables(connection: sqlite3.Connection) -> set[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    return {name for (name,) in connection.execute(query)}
