"""`ratchet backup` and `ratchet backup restore` as somebody types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ratchet.artifacts import ArtifactStore
from ratchet.backup.backup import KEPT_ARTIFACTS
from ratchet.ledger import Ledger
from ratchet.ledger.tables import CheckpointRow, WorkerRow
from ratchet.run import run_lock
from sqlalchemy import update

from .running import ratchet


def publish(home: Path, ledger: Ledger) -> str:
    artifact = ArtifactStore((home / "artifacts").as_uri()).publish_lines(["a row"], "batch", {}).id
    with ledger.write() as tx:
        for column in (*KEPT_ARTIFACTS, CheckpointRow.artifact):
            tx.session.execute(update(column.class_).where(column.is_not(None)).values({column.key: artifact}))
        tx.session.execute(update(WorkerRow).values(state="stopped"))
    return artifact


def test_a_home_is_backed_up_and_restored_elsewhere(ledger: Ledger, home: Path, tmp_path: Path) -> None:
    artifact, folder = publish(home, ledger), str(tmp_path / "backup")
    said = ratchet("backup", "create", folder).stdout
    assert "1 artifacts" in said
    assert f"ratchet backup restore {folder}" in said
    assert json.loads(ratchet("backup", "create", folder, "--json").stdout)["copied"] == 0

    before = ratchet("show", "leaderboard", "--json").stdout
    os.environ["RATCHET_HOME"] = str(tmp_path / "there")
    assert "are as they were at" in ratchet("backup", "restore", folder).stdout
    moved = before.replace(str(home), str(tmp_path / "there"))  # where the files of each checkpoint lie
    assert ratchet("show", "leaderboard", "--json").stdout == moved
    assert list(ArtifactStore((tmp_path / "there" / "artifacts").as_uri()).ids()) == [artifact]
    assert "--force" in ratchet("backup", "restore", folder, code=2).stderr


def test_an_empty_or_incomplete_backup_is_refused_with_the_reason(ledger: Ledger, home: Path, tmp_path: Path) -> None:
    ArtifactStore((home / "artifacts").as_uri()).delete(publish(home, ledger))
    assert "the ledger needs" in ratchet("backup", "create", str(tmp_path / "backup"), code=2).stderr
    assert "no finished backup" in ratchet("backup", "restore", str(tmp_path / "backup"), code=2).stderr
    os.environ["RATCHET_HOME"] = str(tmp_path / "empty")
    assert "there is no ledger" in ratchet("backup", "create", str(tmp_path / "other"), code=2).stderr


def test_a_home_with_a_running_run_is_not_restored_into(home: Path, tmp_path: Path) -> None:
    with run_lock.hold_home(home):
        assert (
            "`ratchet stop` first" in ratchet("backup", "restore", str(tmp_path / "backup"), "--force", code=2).stderr
        )
    assert not (home / "ledger.db").exists()
