"""What cannot be restored is refused, and nothing is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.backup import BackupManifest, FinishedBackup, LedgerCopy, make, restore
from ratchet.errors import ArtifactError, PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.tables import WorkerRow
from sqlalchemy import inspect

from tests.support.postgres import Postgres
from tests.support.rows import verdict

from .contents import damage, elsewhere, publish, rows, rows_at


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_folder_without_a_finished_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "backup" / "backup.json").unlink()
    with pytest.raises(PreconditionFailed, match="holds no finished backup"):
        restore(tmp_path / "backup", *elsewhere(tmp_path))


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize("what", ["ledger", "artifact", "manifest"])
def test_a_damaged_backup_is_refused_and_nothing_is_written(made: FinishedBackup, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "backup"
    if what == "ledger":
        (folder / made.manifest.ledger.file).write_bytes(b"rotten")
    elif what == "artifact":
        damage(folder / "artifacts", next(iter(made.manifest.artifacts)))
    else:
        (folder / "backup.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"is damaged|cannot be read"):
        restore(folder, *elsewhere(tmp_path))
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize("what", ["ledger", "artifact"])
def test_a_backup_that_has_lost_a_file_is_refused(made: FinishedBackup, tmp_path: Path, what: str) -> None:
    folder, first = tmp_path / "backup", next(iter(made.manifest.artifacts))
    lost = folder / (made.manifest.ledger.file if what == "ledger" else f"artifacts/{first}/rows.jsonl")
    lost.unlink()
    with pytest.raises(ArtifactError, match=f"{lost}.* is missing"):
        restore(folder, *elsewhere(tmp_path))


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_home_that_is_not_empty_is_refused_and_replaced_by_force(told: Ledger, tmp_path: Path) -> None:
    url, there = elsewhere(tmp_path)
    stranger = publish(there, "stranger")
    with pytest.raises(PreconditionFailed, match="that are not in this backup"):
        restore(tmp_path / "backup", url, there)
    there.delete(stranger)
    restore(tmp_path / "backup", url, there)
    with pytest.raises(PreconditionFailed, match=r"is not empty .* or replace it with --force"):
        restore(tmp_path / "backup", url, there)
    restore(tmp_path / "backup", url, there, force=True)
    assert rows_at(url) == rows(told)
    kept = list((tmp_path / "there").glob("ledger.db.replaced-*"))
    assert [rows_at(f"sqlite:///{file}") for file in kept] == [rows(told)]


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_damaged_ledger_is_replaced_by_force_and_kept(told: Ledger, tmp_path: Path) -> None:
    url, there = elsewhere(tmp_path)
    (tmp_path / "there").mkdir(exist_ok=True)
    (tmp_path / "there" / "ledger.db").write_bytes(b"garbage")
    with pytest.raises(PreconditionFailed, match=r"is not empty \(a damaged file\)"):
        restore(tmp_path / "backup", url, there)
    restore(tmp_path / "backup", url, there, force=True)
    assert rows_at(url) == rows(told)
    kept = list((tmp_path / "there").glob("ledger.db.replaced-*"))
    assert [file.read_bytes() for file in kept] == [b"garbage"]


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_ledger_in_use_is_never_replaced(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    with told.write() as tx:
        tx.session.get_one(WorkerRow, "training@box+0").state = "running"
    with pytest.raises(PreconditionFailed, match=r"using the ledger .*training@box\+0.*stop them first"):
        restore(tmp_path / "backup", told.url, store, force=True)


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_backup_of_a_newer_schema_is_refused(made: FinishedBackup, tmp_path: Path) -> None:
    ledger = made.manifest.ledger.model_copy(update={"revision": "9999"})
    made.manifest.model_copy(update={"ledger": ledger}).write(tmp_path / "backup")
    with pytest.raises(PreconditionFailed, match="schema 9999, which this version does not know"):
        restore(tmp_path / "backup", *elsewhere(tmp_path))


def reseal(folder: Path, change: Callable[[sqlite3.Connection], object] | None = None, **fields: Any) -> None:
    """Change the ledger of a backup or its manifest, and update the checksum."""
    manifest = BackupManifest.read(folder)
    ledger = folder / manifest.ledger.file
    if change is not None:
        with closing(sqlite3.connect(ledger)) as connection, connection:
            change(connection)
    said = {"revision": manifest.ledger.revision, "rows": manifest.ledger.rows, **fields}
    artifacts = said.pop("artifacts", manifest.artifacts)
    copy = LedgerCopy.of(ledger, manifest.ledger.engine, said["revision"], said["rows"])
    manifest.model_copy(update={"ledger": copy, "artifacts": artifacts}).write(folder)


def emptied(connection: sqlite3.Connection) -> None:
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    connection.execute("PRAGMA foreign_keys = OFF")
    for name in names:
        if not name.startswith("sqlite_"):
            connection.execute(f"DROP TABLE {name}")


def without_verdicts(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM verdicts")


def without_revision(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM alembic_version")


def at_0001(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE alembic_version SET version_num = '0001'")


def orphaned(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("UPDATE checkpoints SET parent_id = 'nobody' WHERE parent_id IS NOT NULL")


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize(
    ("change", "fields", "said"),
    [
        (emptied, {}, "holds no ledger"),
        (emptied, {"rows": {}}, "holds no ledger"),
        (emptied, {"rows": {}, "artifacts": {}, "revision": None}, "names no revision"),
        (None, {"revision": None}, "names no revision"),
        (None, {"revision": "0001"}, "schema 0001, which this version does not know"),
        (without_revision, {}, "holds no ledger"),
        (at_0001, {}, "is at 0001, where backup.json says"),
        (without_verdicts, {}, "0 rows in verdicts, where backup.json says"),
        (None, {"rows": {}}, "is not what backup.json says"),
        (orphaned, {}, "is not sound"),
        (None, {"artifacts": {}}, "does not list 1 artifact"),
    ],
)
def test_a_ledger_that_is_not_the_one_that_was_copied_is_refused(
    tmp_path: Path, change: Callable[[sqlite3.Connection], object] | None, fields: dict[str, Any], said: str
) -> None:
    """Though its sum fits."""
    reseal(tmp_path / "backup", change, **fields)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "backup").rglob("*")}
    with pytest.raises((ArtifactError, PreconditionFailed), match=said):
        restore(tmp_path / "backup", *elsewhere(tmp_path))
    assert not (tmp_path / "there").exists()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "backup").rglob("*")} == before


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_file_that_is_no_database_is_refused(made: FinishedBackup, tmp_path: Path) -> None:
    (tmp_path / "backup" / made.manifest.ledger.file).write_bytes(b"rotten" * 1_000)
    reseal(tmp_path / "backup")
    with pytest.raises(ArtifactError, match="is not a readable SQLite file"):
        restore(tmp_path / "backup", *elsewhere(tmp_path))
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize("what", ["backup.json", "ledger", "manifest.json", "rows.jsonl"])
@pytest.mark.parametrize("odd", ["fifo", "device", "loop"])
def test_a_pipe_or_device_in_a_backup_is_refused_by_name(
    made: FinishedBackup, tmp_path: Path, what: str, odd: str
) -> None:
    folder, artifact = tmp_path / "backup", next(iter(made.manifest.artifacts))
    path = {
        "backup.json": folder / "backup.json",
        "ledger": folder / made.manifest.ledger.file,
    }.get(what, folder / "artifacts" / artifact / what)
    path.unlink()
    if odd == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if odd == "device" else path.name)
    said = {"fifo": "is a pipe", "device": "is a device", "loop": "link that loops"}[odd]
    with pytest.raises(ArtifactError, match=f"{path}.*{said}"):
        restore(folder, *elsewhere(tmp_path))
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_foreign_file_in_a_backup_is_not_opened(made: FinishedBackup, told: Ledger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "backup" / "fifo")
    os.mkfifo(tmp_path / "backup" / "artifacts" / "fifo")
    url, there = elsewhere(tmp_path)
    restore(tmp_path / "backup", url, there)
    assert rows_at(url) == rows(told)
    os.mkfifo(tmp_path / "backup" / "artifacts" / next(iter(made.manifest.artifacts)) / "fifo")
    with pytest.raises(ArtifactError, match="fifo is damaged: it is not in the manifest"):
        restore(tmp_path / "backup", *elsewhere(tmp_path / "again"))


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_ledger_is_restored_to_the_engine_that_it_came_from(tmp_path: Path) -> None:
    url = "postgresql+psycopg://ratchet@127.0.0.1:9/ratchet"
    with pytest.raises(PreconditionFailed, match=r"is of a ledger in SQLite, and `ledger.url` names one in PostgreSQL"):
        restore(tmp_path / "backup", url, elsewhere(tmp_path)[1])


@pytest.mark.parametrize("engine", ["postgresql"])
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_dump_is_compared_with_its_manifest_before_anything_is_written(
    made: FinishedBackup, postgres: Postgres, tmp_path: Path
) -> None:
    folder, there = tmp_path / "backup", elsewhere(tmp_path)[1]
    url = postgres.database()
    rows = made.manifest.ledger.rows
    for fields, said in (
        ({"rows": {**rows, "verdicts": rows["verdicts"] + 1}}, "rows in verdicts, where backup.json says"),
        ({"rows": {}}, "is not what backup.json says"),
        ({"rows": rows, "artifacts": {}}, "does not list 1 artifact"),
        ({"rows": rows, "artifacts": made.manifest.artifacts, "revision": "0003"}, "schema 0003, which this version"),
    ):
        reseal(folder, **fields)
        with pytest.raises((ArtifactError, PreconditionFailed), match=said):
            restore(folder, url, there)
    (folder / BackupManifest.read(folder).ledger.file).write_bytes(b"rotten" * 1_000)
    reseal(folder, rows=rows, artifacts=made.manifest.artifacts, revision=made.manifest.ledger.revision)
    with pytest.raises(ArtifactError, match="is not a readable dump"):
        restore(folder, url, there)
    assert list(there.ids()) == []
    assert tables_at(url) == []
    postgres.drop(url)


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("engine", ["postgresql"])
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_database_that_is_not_empty_is_refused_and_replaced_by_force(
    told: Ledger, postgres: Postgres, tmp_path: Path
) -> None:
    url, (_, there) = postgres.database(), elsewhere(tmp_path)
    restore(tmp_path / "backup", url, there)
    with pytest.raises(PreconditionFailed, match=r"is not empty .* or replace it with --force"):
        restore(tmp_path / "backup", url, there)
    ledger = Ledger(url)
    with ledger.write() as tx:
        tx.session.add(verdict("testing", "checkpoint", "later", "fine", tx.now))
    ledger.close()
    restore(tmp_path / "backup", url, there, force=True)
    assert rows_at(url) == rows(told)
    postgres.drop(url)


@pytest.mark.parametrize("engine", ["postgresql"])
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_the_output_of_a_failing_pg_dump_is_shown(
    told: Ledger, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c no_such_setting=1")
    with pytest.raises(PreconditionFailed, match=r"pg_dump failed: .*no_such_setting"):
        make(told, store, tmp_path / "backup")
    assert not (tmp_path / "backup" / "backup.json").exists()


def tables_at(url: str) -> list[str]:
    ledger = Ledger(url)
    try:
        with ledger.read() as session:
            return inspect(session.connection()).get_table_names()
    finally:
        ledger.close()
