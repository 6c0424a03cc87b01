from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ratchet.atomic_files import atomic_replace, atomic_write, sync_folder, write_best_effort
from ratchet.errors import TransientError

from tests.support.disk import SmallDisk, fill, free

KILLED_HALF_WAY = """
import os, pathlib, signal, sys
from ratchet.atomic_files import atomic_replace
with atomic_replace(pathlib.Path(sys.argv[1])) as draft:
    draft.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "status" / "training.json"
    atomic_write(path, "old", durable=durable)
    with open(path) as reader:
        atomic_write(path, "néw\n", durable=durable)
        assert reader.read() == "old"
    assert path.read_bytes() == "néw\n".encode()
    assert os.listdir(path.parent) == ["training.json"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    atomic_write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write(path, "\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["training.json"]


@pytest.mark.parametrize("old", ["old", None])
def test_a_full_disk_leaves_the_old_file_and_no_draft(
    small_disk: SmallDisk, old: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk(65_536) / "training.json"
    if old is not None:
        atomic_write(path, old)
    fill(path.parent)
    before = sorted(os.listdir(path.parent))
    with pytest.raises(TransientError, match=f"The disk of {path.parent} is full: 0 are free"):
        atomic_write(path, "new" * 100)
    assert sorted(os.listdir(path.parent)) == before
    for _ in range(3):
        write_best_effort(path, "new" * 100)
    assert [record.message.split(": ")[0] for record in caplog.records] == [f"{path} cannot be written"]
    assert path.exists() == (old is not None)
    free(path.parent)
    write_best_effort(path, "new")
    assert path.read_text() == "new"
    fill(path.parent)
    write_best_effort(path, "newer")
    assert len(caplog.records) == 2


def test_a_kill_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "admin-token"
    for old in (None, "old"):
        if old is not None:
            path.write_text(old)
        killed = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, path], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert (path.read_text() if path.exists() else None) == old


def test_any_writer_can_fill_the_draft(tmp_path: Path) -> None:
    with atomic_replace(tmp_path / "rows.jsonl", mode=0o640) as draft:
        draft.write_bytes(b"\xff" * 10)
        assert not (tmp_path / "rows.jsonl").exists()
    assert (tmp_path / "rows.jsonl").read_bytes() == b"\xff" * 10
    assert (tmp_path / "rows.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_secret_is_written_for_its_owner_only(tmp_path: Path) -> None:
    atomic_write(tmp_path / "password", "secret", mode=0o600)
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600


def refusing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, folders: bool = False) -> None:
    """As on a file system that lacks this call."""
    real = getattr(os, name)

    def call(handle: int, *arguments: int) -> None:
        if folders and not stat.S_ISDIR(os.fstat(handle).st_mode):
            return real(handle, *arguments)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)


def test_a_file_system_without_modes_or_syncing_of_folders_is_tolerated_where_that_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, "fchmod", errno.EPERM)
    refusing(monkeypatch, "fsync", errno.EINVAL, folders=True)
    atomic_write(tmp_path / "status", "ready", durable=True)
    assert (tmp_path / "status").read_text() == "ready"
    with pytest.raises(PermissionError):
        atomic_write(tmp_path / "password", "secret", mode=0o600)
    assert not (tmp_path / "password").exists()


def test_a_folder_that_cannot_be_synced_for_another_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, "fsync", errno.EIO, folders=True)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)
