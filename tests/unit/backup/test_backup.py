"""A backup holds one moment of ledger and artifacts, whole; what comes back from it is what was there."""

from __future__ import annotations

import resource
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.backup import BackupManifest, LedgerCopy, Made, make, restore
from ratchet.backup.make import locked
from ratchet.backup.manifest import artifacts_of
from ratchet.backup.named import KEPT, named
from ratchet.backup.rows import TABLES
from ratchet.errors import ArtifactError, Refused, SurroundingsError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import head, migrate
from ratchet.ledger.tables import Checkpoint, Verdict, Worker
from ratchet.testing.postgres import Postgres
from ratchet.testing.story import checkpoint_id, write_story
from sqlalchemy import select, update

Snapshot = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    if request.param == "local":
        yield ArtifactStore((tmp_path / "store").as_uri())
        return
    url = f"memory://store-{uuid.uuid4().hex}"
    yield ArtifactStore(url, cache=tmp_path / "cache")
    filesystem, root = fsspec.url_to_fs(url)
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)


@pytest.fixture
def engine() -> str:
    """SQLite; the tests of both engines say so."""
    return "sqlite"


@pytest.fixture
def told(ledger: Ledger, store: ArtifactStore) -> Ledger:
    """A ledger with a story in it, whose artifacts are in the store."""
    artifact = publish(store, "rows")
    with ledger.write() as tx:
        write_story(tx)
        for column in (*KEPT, Checkpoint.artifact):
            tx.session.execute(update(column.class_).where(column.is_not(None)).values({column.key: artifact}))
        tx.session.execute(update(Worker).values(state="stopped"))
    return ledger


def publish(store: ArtifactStore, text: str) -> str:
    return store.publish_lines([text] * 50, "batch", {}).id


def elsewhere(tmp_path: Path) -> tuple[str, ArtifactStore]:
    return f"sqlite:///{tmp_path / 'there' / 'ledger.db'}", ArtifactStore((tmp_path / "there" / "artifacts").as_uri())


def rows(ledger: Ledger) -> Snapshot:
    with ledger.read() as session:
        return {
            table.name: sorted((tuple(row) for row in session.execute(select(table))), key=repr) for table in TABLES
        }


def rows_at(url: str) -> Snapshot:
    ledger = Ledger(url)
    try:
        return rows(ledger)
    finally:
        ledger.close()


def add_checkpoint(ledger: Ledger, ordinal: int, artifact: str) -> None:
    with ledger.write() as tx:
        tx.session.add(
            Checkpoint(
                id=checkpoint_id(ordinal),
                ordinal=ordinal,
                parent_id=checkpoint_id(ordinal - 1),
                batch_id=None,
                soup_of=None,
                step=1,
                tokens=1,
                weights="f" * 64,
                artifact=artifact,
                state_artifact=None,
                size_bytes=1,
                train_loss=None,
                tokens_per_s=None,
                created_at=tx.now,
            )
        )


def retire(ledger: Ledger, store: ArtifactStore, ordinal: int) -> None:
    """As retention does it: the ledger first, then the bytes."""
    with ledger.write() as tx:
        row = tx.session.get_one(Checkpoint, checkpoint_id(ordinal))
        row.state, artifact = "deleted", row.artifact
    store.delete(artifact)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_what_is_restored_is_what_was_backed_up_on_any_engine(
    told: Ledger, store: ArtifactStore, target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = make(told, store, tmp_path / "backup")
    url, there = elsewhere(tmp_path)
    if target == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.database()
    restore(tmp_path / "backup", url, there)
    assert rows_at(url) == rows(told)
    assert set(there.ids()) == set(store.ids()) == set(made.manifest.artifacts)
    ledger = Ledger(url)
    try:
        numbers = {row.id for row in _verdicts(ledger)}
        with ledger.write() as tx:
            tx.session.add(
                Verdict(
                    system="testing",
                    subject_kind="checkpoint",
                    subject_id="new",
                    outcome="fine",
                    reason="",
                    numbers={},
                    worker="w",
                    created_at=tx.now,
                    took_s=0.0,
                )
            )
        assert {row.id for row in _verdicts(ledger)} - numbers == {max(numbers) + 1}
    finally:
        ledger.close()
    if target == "postgresql":
        server.drop(url)


def _verdicts(ledger: Ledger) -> list[Verdict]:
    with ledger.read() as session:
        return list(session.scalars(select(Verdict)))


def test_a_remote_store_comes_back_in_another(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    make(told, store, tmp_path / "backup")
    url = f"memory://there-{uuid.uuid4().hex}"
    there = ArtifactStore(url, cache=tmp_path / "there-cache")
    restore(tmp_path / "backup", elsewhere(tmp_path)[0], there)
    for artifact in store.ids():
        assert list(there.open_lines(artifact)) == list(store.open_lines(artifact))


def test_the_second_time_only_what_is_new_is_copied(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
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


def test_every_column_that_names_an_artifact_is_looked_at() -> None:
    columns = {
        f"{table.name}.{column.name}" for table in TABLES for column in table.columns if "artifact" in column.name
    }
    looked_at = {f"{column.class_.__tablename__}.{column.key}" for column in KEPT}
    assert columns == looked_at | {"checkpoints.artifact", "checkpoints.state_artifact"}


def test_it_names_only_what_it_holds_while_retention_deletes(
    told: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
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
                waiting = [c.ordinal for c in session.query(Checkpoint) if c.artifact not in there]
            retire(told, store, *waiting)

    manifest = make(told, store, tmp_path / "backup", interfere).manifest
    assert len(calls) >= 3
    with told.read() as session:
        assert named(session) == set(manifest.artifacts)
    url, there = elsewhere(tmp_path)
    restore(tmp_path / "backup", url, there)
    assert rows_at(url) == rows(told)


def damage(folder: Path, artifact: str) -> Path:
    file = folder / artifact / "rows.jsonl"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    return file


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_an_artifact_that_is_needed_and_damaged_is_named_and_the_old_backup_stays(
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
def test_reading_again_finds_and_mends_what_has_rotted(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    made = make(told, store, tmp_path / "backup")
    damage(tmp_path / "backup" / "artifacts", next(iter(made.manifest.artifacts)))
    assert make(told, store, tmp_path / "backup").copied == 0
    assert make(told, store, tmp_path / "backup", reread=True).copied == 1
    restore(tmp_path / "backup", *elsewhere(tmp_path))


@pytest.fixture
def made(told: Ledger, store: ArtifactStore, tmp_path: Path) -> Made:
    return make(told, store, tmp_path / "backup")


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_folder_of_something_else_is_refused(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(Refused, match=r"holds something else \(cat.jpg\)"):
        make(told, store, tmp_path / "photos")
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    with pytest.raises(Refused, match="cannot write"):
        make(told, store, tmp_path / "photos" / "cat.jpg")


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_two_at_once_are_refused(told: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    with locked(tmp_path / "backup"), pytest.raises(Refused, match="another backup is being written"):
        make(told, store, tmp_path / "backup")


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


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_backup_of_an_older_schema_is_migrated(store: ArtifactStore, tmp_path: Path) -> None:
    """The oldest there is: a ledger before the first schema."""
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "draft").touch()
    old = LedgerCopy.of(tmp_path / "backup" / "draft", None, {})
    BackupManifest(version="0.0.1", made_at=0.0, ledger=old, artifacts={}).write(tmp_path / "backup")
    url, there = elsewhere(tmp_path)
    restore(tmp_path / "backup", url, there)
    ledger = Ledger(url)
    assert migrate(ledger) == head()
    ledger.close()
    assert not any(rows_at(url).values())


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_full_disk_is_told_and_the_same_command_goes_on(
    told: Ledger, store: ArtifactStore, tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    add_checkpoint(told, 6, store.publish_lines(["x" * 1000] * 2000, "batch", {}).id)
    small_files(1_000_000)
    with pytest.raises(SurroundingsError, match="takes no more"):
        make(told, store, tmp_path / "backup")
    assert not (tmp_path / "backup" / "backup.json").exists()
    small_files(-1)
    assert make(told, store, tmp_path / "backup").manifest.artifacts.keys() == set(store.ids())


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Lets no file grow above so many bytes, as a full disk does; -1 lets them grow again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most if most >= 0 else before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
