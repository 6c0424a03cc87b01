"""What dead workers leave behind is removed, and nothing that is in use or may be somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.leases.slots import claim_name
from ratchet.ledger import Ledger
from ratchet.ledger.health import LISTED_S
from ratchet.ledger.tables import CheckpointRow, WorkerRow
from ratchet.settings import Settings
from ratchet.worker.housekeeping import (
    keep_house,
    remove_orphans,
    remove_work_folders,
    retire_workers,
)

from tests.support.rows import worker_row
from tests.support.stores import store

__all__ = ["store"]


@pytest.fixture
def engine() -> str:
    """The files and rows are the same on both."""
    return "sqlite"


def published(
    store: ArtifactStore, folder: Path, content: str, parent: str, *requires: str, kind: str = "checkpoint"
) -> str:
    file = folder / f"{content}.safetensors"
    file.write_text(content)
    return store.publish(file, kind, {"parent": parent}, requires=requires).id  # type: ignore[arg-type]


def name(ledger: Ledger, ordinal: int, artifact: str, **columns: object) -> None:
    row = CheckpointRow(
        id=f"c{ordinal}",
        ordinal=ordinal,
        offset=0,
        step=0,
        tokens=0,
        weights="w",
        artifact=artifact,
        size_bytes=1,
        created_at=0.0,
    )
    for column, value in columns.items():
        setattr(row, column, value)
    with ledger.write() as tx:
        tx.session.add(row)


def test_only_artifacts_of_lost_claims_are_removed(ledger: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    base = published(store, tmp_path, "base", "elsewhere")
    name(ledger, 0, base)
    head = published(store, tmp_path, "head", "c0")
    state = published(store, tmp_path, "state", "c0", kind="state")
    name(ledger, 1, head, state_artifact=state)
    lost = [published(store, tmp_path, "lost", "c0"), published(store, tmp_path, "lost state", "c0", kind="state")]
    strange = published(store, tmp_path, "strange", "of-another-ledger")
    batch = store.publish_lines(["{}"], "batch", {"parent": "c0"}).id
    assert remove_orphans(ledger, store) == 0, "what is young may be about to be named"
    assert remove_orphans(ledger, store, unused_s=0) == len("lost" + "lost state")
    assert {*store.ids()} == {base, head, state, strange, batch}
    assert not any(store.exists(artifact) for artifact in lost)


def test_what_a_checkpoint_needs_stays_though_retention_gave_its_own_row_up(
    ledger: Ledger, store: ArtifactStore, tmp_path: Path
) -> None:
    name(ledger, 0, published(store, tmp_path, "base", "elsewhere"))
    needed, leftover = (published(store, tmp_path, content, "c0") for content in ("needed", "leftover"))
    name(ledger, 1, needed, state="deleted")
    name(ledger, 2, leftover, state="deleted")
    name(ledger, 3, published(store, tmp_path, "adapters", "c0", needed))
    remove_orphans(ledger, store, unused_s=0)
    assert (store.exists(needed), store.exists(leftover)) == (True, False)


def test_content_that_is_published_again_counts_as_new(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = published(store, tmp_path, "same", "c0")
    if store.disk is not None:
        os.utime(store.disk / artifact / "manifest.json", (0, 0))
    before = store.published_at(artifact)
    assert published(store, tmp_path, "same", "c0") == artifact
    assert store.published_at(artifact) > before


def test_workers_unseen_for_a_day_run_no_longer(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.add(worker_row("testing", tx.now - LISTED_S - 1))
        tx.session.add(worker_row("mining", tx.now - LISTED_S + 60))
        tx.session.add(worker_row("training", tx.now - LISTED_S - 1, state="failed", error="why"))
    retire_workers(ledger)
    with ledger.read() as session:
        states = {row.system: (row.state, row.error) for row in session.query(WorkerRow)}
    assert states["testing"][0] == "stopped"
    assert "not been seen for a day" in (states["testing"][1] or "")
    assert states["mining"][0] == "running"
    assert states["training"] == ("failed", "why")


def test_work_folders_of_names_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for folder in ("testing@box+0", "testing@box+1", "tmp1234", "answers", "base"):
        (settings.work_folder / folder / "7").mkdir(parents=True)
    remove_work_folders(settings)
    assert len(os.listdir(settings.work_folder)) == 5, "they are not old enough"
    with claim_name("testing", "box", settings.lease_folder).lock:
        remove_work_folders(settings, unused_s=0)
    assert sorted(os.listdir(settings.work_folder)) == ["answers", "base", "testing@box+0"]


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_one_worker_of_a_home_does_it_now_and_then(ledger: Ledger, store: ArtifactStore, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert keep_house(settings, ledger, store)
    assert not keep_house(settings, ledger, store)
    os.utime(settings.lease_folder / "housekeeping", (0, 0))
    assert keep_house(settings, ledger, store)
