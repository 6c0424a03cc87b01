from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ratchet.disk import disk_trouble, home_trouble, replacing, require_writable, write_atomically, write_if_possible
from ratchet.errors import RatchetError, SettingsError, TransientError

from tests.support.disk import SmallDisk, fill, free

KILLED_HALF_WAY = """
import os, pathlib, signal, sys
from ratchet.disk import replacing
with replacing(pathlib.Path(sys.argv[1])) as draft:
    draft.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "status" / "training.json"
    write_atomically(path, "old", durable=durable)
    with open(path) as reader:
        write_atomically(path, "néw\n", durable=durable)
        assert reader.read() == "old"
    assert path.read_bytes() == "néw\n".encode()
    assert os.listdir(path.parent) == ["training.json"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["training.json"]


@pytest.mark.parametrize("old", ["old", None])
def test_a_full_disk_leaves_the_old_file_and_no_draft(
    small_disk: SmallDisk, old: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk(65_536) / "training.json"
    if old is not None:
        write_atomically(path, old)
    fill(path.parent)
    before = sorted(os.listdir(path.parent))
    with pytest.raises(TransientError, match=f"The disk of {path.parent} takes no more: 0 are free"):
        write_atomically(path, "new" * 100)
    assert sorted(os.listdir(path.parent)) == before
    for _ in range(3):
        write_if_possible(path, "new" * 100)
    assert [record.message.split(": ")[0] for record in caplog.records] == [f"{path} cannot be written"]
    assert path.exists() == (old is not None)
    free(path.parent)
    write_if_possible(path, "new")
    assert path.read_text() == "new"
    fill(path.parent)
    write_if_possible(path, "newer")
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
    with replacing(tmp_path / "rows.jsonl", mode=0o640) as draft:
        draft.write_bytes(b"\xff" * 10)
        assert not (tmp_path / "rows.jsonl").exists()
    assert (tmp_path / "rows.jsonl").read_bytes() == b"\xff" * 10
    assert (tmp_path / "rows.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_secret_is_written_for_its_owner_only(tmp_path: Path) -> None:
    write_atomically(tmp_path / "password", "secret", mode=0o600)
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_trouble_of_the_surroundings(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    with pytest.raises(TransientError, match=r"1,000 bytes are needed"), disk_trouble(folder, 1000):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize("trouble", [disk_trouble, home_trouble])
def test_other_errors_of_a_disk_stay_what_they_are(tmp_path: Path, trouble: type) -> None:
    with pytest.raises(FileNotFoundError), trouble(tmp_path):
        open(tmp_path / "absent")  # noqa: SIM115


def test_a_disk_that_can_only_be_read_says_how_to_go_on(small_disk: SmallDisk) -> None:
    folder = small_disk(65_536, "ro")
    for refused in (lambda: write_atomically(folder / "file", "x"), lambda: require_writable(folder / "home")):
        with pytest.raises(TransientError, match=f"{folder}.* is mounted read-only.*Mount it for writing"):
            refused()


@pytest.mark.parametrize("below", [".", "home", "home/serving"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, below: str) -> None:
    blocker = tmp_path / "run"
    blocker.touch()
    with pytest.raises(SettingsError, match=f"{blocker} is a file where a folder is needed.*--home"):
        require_writable(blocker / below)
    with pytest.raises(SettingsError, match=f"{blocker} is a file"), home_trouble(blocker / below):
        (blocker / below).mkdir(parents=True, exist_ok=True)


def test_a_folder_in_the_place_of_a_file_and_a_missing_right_are_named(tmp_path: Path) -> None:
    with pytest.raises(RatchetError, match=f"{tmp_path} is a folder where a file"), home_trouble(tmp_path):
        tmp_path.write_text("")
    with pytest.raises(SettingsError, match=f"{tmp_path}/x: user {os.geteuid()} has no right"), home_trouble(tmp_path):
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))


def test_a_writable_home_is_neither_made_nor_changed(tmp_path: Path) -> None:
    require_writable(tmp_path / "home" / "of" / "mine")
    assert os.listdir(tmp_path) == []
