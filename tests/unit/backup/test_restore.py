"""What cannot be restored is refused, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.backup import BackupManifest, LedgerCopy, Made, restore
from ratchet.errors import ArtifactError, Refused
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import head, migrate
from ratchet.ledger.tables import Worker
from ratchet.testing.ledgers import migrate_to

from .contents import damage, elsewhere, publish, rows, rows_at


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_folder_without_a_finished_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "backup" / "backup.json").unlink()
    with pytest.raises(Refused, match="holds no finished backup"):
        restore(tmp_path / "backup", *elsewhere(tmp_path))


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize("what", ["ledger", "artifact", "manifest"])
def test_a_damaged_backup_is_refused_and_nothing_is_written(made: Made, tmp_path: Path, what: str) -> None:
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
def test_a_backup_that_has_lost_a_file_is_refused(made: Made, tmp_path: Path, what: str) -> None:
    folder, first = tmp_path / "backup", next(iter(made.manifest.artifacts))
    lost = folder / (made.manifest.ledger.file if what == "ledger" else f"artifacts/{first}/rows.jsonl")
    lost.unlink()
    with pytest.raises(ArtifactError, match=f"{lost}.* is missing"):
        restore(folder, *elsewhere(tmp_path))


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_place_that_is_not_empty_is_refused_and_replaced_by_force(told: Ledger, tmp_path: Path) -> None:
    url, there = elsewhere(tmp_path)
    stranger = publish(there, "stranger")
    with pytest.raises(Refused, match="that this backup does not know"):
        restore(tmp_path / "backup", url, there)
    there.delete(stranger)
    restore(tmp_path / "backup", url, there)
    with pytest.raises(Refused, match=r"is not empty .* or replace it with --force"):
        restore(tmp_path / "backup", url, there)
    restore(tmp_path / "backup", url, there, force=True)
    assert rows_at(url) == rows(told)
    kept = list((tmp_path / "there").glob("ledger.db.replaced-*"))
    assert [rows_at(f"sqlite:///{file}") for file in kept] == [rows(told)]


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_ledger_that_is_at_work_is_never_replaced(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    with told.write() as tx:
        tx.session.get_one(Worker, "training@box+0").state = "running"
    with pytest.raises(Refused, match=r"at work .*training@box\+0.*stop them first"):
        restore(tmp_path / "backup", told.url, store, force=True)


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_backup_of_a_newer_schema_is_refused(made: Made, tmp_path: Path) -> None:
    ledger = made.manifest.ledger.model_copy(update={"revision": "9999"})
    made.manifest.model_copy(update={"ledger": ledger}).write(tmp_path / "backup")
    with pytest.raises(Refused, match="upgrade Ratchet"):
        restore(tmp_path / "backup", *elsewhere(tmp_path))


@pytest.mark.parametrize("revision", [None, "0001"])
def test_a_backup_of_an_older_schema_is_migrated(tmp_path: Path, revision: str | None) -> None:
    (tmp_path / "backup").mkdir()
    draft = tmp_path / "backup" / "draft"
    draft.touch()
    if revision is not None:
        first = Ledger(f"sqlite:///{draft}")
        migrate_to(first, revision)
        first.close()
    old = LedgerCopy.of(draft, revision, {})
    BackupManifest(version="0.0.1", made_at=0.0, ledger=old, artifacts={}).write(tmp_path / "backup")
    url, there = elsewhere(tmp_path)
    restore(tmp_path / "backup", url, there)
    ledger = Ledger(url)
    assert migrate(ledger) == head()
    ledger.close()
    assert not any(rows_at(url).values())
