"""A backup holds one moment of ledger and artifacts, whole; what comes back from it is what was there."""

from __future__ import annotations

import os
import resource
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.backup import BackupManifest, make, restore
from ratchet.backup.backup import (
    KEPT_ARTIFACTS,
    RETIRED_ARTIFACTS,
    artifacts_of,
    locked,
    needed_artifacts,
    postgres_address,
)
from ratchet.errors import ArtifactError, PreconditionFailed, TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import require_current
from ratchet.ledger.tables import Base, CheckpointRow, EvaluationRow, VerdictRow
from ratchet.removed import removed_after
from sqlalchemy import select, update

from tests.support.postgres import Postgres
from tests.support.rows import verdict

from .contents import add_checkpoint, damage, elsewhere, publish, retire, rows, rows_at


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_restored_home_equals_the_backed_up_one(
    engine: str, told: Ledger, store: ArtifactStore, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = make(told, store, tmp_path / "backup")
    url, there = elsewhere(tmp_path)
    if engine == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.database()
    restore(tmp_path / "backup", url, there)
    assert rows_at(url) == rows(told)
    assert set(there.ids()) == set(store.ids()) == set(made.manifest.artifacts)
    ledger = Ledger(url)
    try:
        require_current(ledger)
        numbers = {row.id for row in _verdicts(ledger)}
        with ledger.write() as tx:
            tx.session.add(verdict("testing", "checkpoint", "new", "fine", tx.now))
        assert {row.id for row in _verdicts(ledger)} - numbers == {max(numbers) + 1}
    finally:
        ledger.close()
    if engine == "postgresql":
        server.drop(url)


def test_rows_in_a_backup_only_its_user_can_read(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    os.umask(0o022)
    made = make(told, store, tmp_path / "backup")
    files = [tmp_path / "backup" / made.manifest.ledger.file, *artifacts_of(tmp_path / "backup").root.glob("*")]
    assert len(files) > 1
    assert {file.stat().st_mode & 0o077 for file in files if file.name != ".staging"} == {0}


def _verdicts(ledger: Ledger) -> list[VerdictRow]:
    with ledger.read() as session:
        return list(session.scalars(select(VerdictRow)))


def test_a_backup_of_a_remote_store_can_be_restored_into_another(
    told: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
    make(told, store, tmp_path / "backup")
    url = f"memory://there-{uuid.uuid4().hex}"
    there = ArtifactStore(url, cache=tmp_path / "there-cache")
    restore(tmp_path / "backup", elsewhere(tmp_path)[0], there)
    for artifact in store.ids():
        assert list(there.open_lines(artifact)) == list(store.open_lines(artifact))


def test_a_second_backup_copies_only_new_artifacts(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    first = make(told, store, tmp_path / "backup")
    add_checkpoint(told, 6, publish(store, "new"))
    second = make(told, store, tmp_path / "backup")
    assert (first.copied, second.copied, second.removed) == (1, 1, 0)
    assert second.copied_bytes == 200
    retire(told, store, 6)
    third = make(told, store, tmp_path / "backup")
    assert (third.copied, third.removed) == (0, 1)
    assert set(artifacts_of(tmp_path / "backup").ids()) == set(store.ids())
    assert [file.name for file in (tmp_path / "backup").glob("ledger*")] == [third.manifest.ledger.file]


def test_every_ledger_column_with_an_artifact_is_backed_up() -> None:
    columns = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if "artifact" in column.name
    }
    looked_at = {f"{column.class_.__tablename__}.{column.key}" for column in (*KEPT_ARTIFACTS, *RETIRED_ARTIFACTS)}
    # A damaged artifact need not be kept, and a drill makes a planted one again.
    assert columns == looked_at | {"damages.artifact", "drills.planted_artifact"}


def test_a_backup_stays_consistent_while_retention_deletes(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    """During the first round two checkpoints appear; while they are copied, the second of them goes again."""
    calls: list[tuple[int, int]] = []

    def interfere(done: int, of: int, _bytes: int) -> None:
        calls.append((done, of))
        if len(calls) == 1:
            for ordinal in (6, 7):
                add_checkpoint(told, ordinal, publish(store, f"weights {ordinal}"))
        elif len(calls) == 2:
            with told.read() as session:
                there = set(artifacts_of(tmp_path / "backup").ids())
                waiting = [c.ordinal for c in session.query(CheckpointRow) if c.artifact not in there]
            retire(told, store, *waiting)

    manifest = make(told, store, tmp_path / "backup", interfere).manifest
    assert len(calls) >= 3
    with told.read() as session:
        assert needed_artifacts(session.connection()) == set(manifest.artifacts)
    url, there = elsewhere(tmp_path)
    restore(tmp_path / "backup", url, there)
    assert rows_at(url) == rows(told)


def test_a_record_that_retention_removed_is_not_missing(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    with told.write() as tx:
        tx.session.execute(update(EvaluationRow).values(artifact=removed_after(30)))
    manifest = make(told, store, tmp_path / "backup").manifest
    assert removed_after(30) not in manifest.artifacts
    url, there = elsewhere(tmp_path)
    restore(tmp_path / "backup", url, there)
    assert rows_at(url) == rows(told)


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_damaged_artifact_is_named_and_the_previous_backup_stays(
    told: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
    before = make(told, store, tmp_path / "backup").manifest
    needed, spare = publish(store, "needed"), publish(store, "spare")
    add_checkpoint(told, 6, needed)
    damage(tmp_path / "store", spare)
    assert list(make(told, store, tmp_path / "backup").damaged) == [spare]
    file = damage(tmp_path / "store", next(iter(before.artifacts)))
    shutil.rmtree(tmp_path / "backup" / "artifacts" / next(iter(before.artifacts)))
    kept = BackupManifest.read(tmp_path / "backup")
    with pytest.raises(ArtifactError, match=f"{file} is damaged: its content is not what was published"):
        make(told, store, tmp_path / "backup")
    assert BackupManifest.read(tmp_path / "backup") == kept


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_reread_finds_and_repairs_corrupted_files_of_a_backup(
    told: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
    made = make(told, store, tmp_path / "backup")
    damage(tmp_path / "backup" / "artifacts", next(iter(made.manifest.artifacts)))
    assert make(told, store, tmp_path / "backup").copied == 0
    assert make(told, store, tmp_path / "backup", reread=True).copied == 1
    restore(tmp_path / "backup", *elsewhere(tmp_path))


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_folder_of_something_else_is_refused(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(PreconditionFailed, match=r"contains something else \(cat.jpg\)"):
        make(told, store, tmp_path / "photos")
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    with pytest.raises(PreconditionFailed, match="cannot write"):
        make(told, store, tmp_path / "photos" / "cat.jpg")


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_two_backups_at_once_are_refused(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    with locked(tmp_path / "backup"), pytest.raises(PreconditionFailed, match="another backup is being written"):
        make(told, store, tmp_path / "backup")


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_full_disk_is_reported_and_the_same_command_continues(
    told: Ledger, store: ArtifactStore, tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    add_checkpoint(told, 6, store.publish_lines(["x" * 1000] * 2000, "batch", {}).id)
    small_files(1_000_000)
    with pytest.raises(TransientError, match="is full"):
        make(told, store, tmp_path / "backup")
    assert not (tmp_path / "backup" / "backup.json").exists()
    small_files(-1)
    assert make(told, store, tmp_path / "backup").manifest.artifacts.keys() == set(store.ids())


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Limits the size of files in bytes, as a full disk does; -1 removes the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most if most >= 0 else before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_postgres_tools_get_the_password_apart_from_the_address() -> None:
    address, password = postgres_address("postgresql+psycopg://ratchet:s%40fe@hub:5432/ledger?sslmode=require")
    assert (address, password) == ("postgresql://ratchet@hub:5432/ledger?sslmode=require", "s@fe")
