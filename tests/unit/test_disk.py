from __future__ import annotations

import os
from pathlib import Path

import pytest
from ratchet import disk
from ratchet.atomic_files import atomic_write
from ratchet.disk import (
    NOT_LOCAL,
    disk_errors,
    file_system,
    home_errors,
    keep_private,
    others_may_enter,
    require_writable,
)
from ratchet.errors import RatchetError, SettingsError, TransientError
from ratchet.ledger import Ledger

from tests.support.disk import SmallDisk


def test_a_full_disk_is_a_transient_error(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    with pytest.raises(TransientError, match=r"1,000 bytes are needed"), disk_errors(folder, 1000):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize("trouble", [disk_errors, home_errors])
def test_other_disk_errors_are_unchanged(tmp_path: Path, trouble: type) -> None:
    with pytest.raises(FileNotFoundError), trouble(tmp_path):
        open(tmp_path / "absent")  # noqa: SIM115


def test_a_read_only_disk_is_an_error_with_the_way_out(small_disk: SmallDisk) -> None:
    folder = small_disk(65_536, "ro")
    for refused in (lambda: atomic_write(folder / "file", "x"), lambda: require_writable(folder / "home")):
        with pytest.raises(TransientError, match=f"{folder}.* is mounted read-only.*Mount it for writing"):
            refused()


@pytest.mark.parametrize("below", [".", "home", "home/serving"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, below: str) -> None:
    blocker = tmp_path / "run"
    blocker.touch()
    with pytest.raises(SettingsError, match=f"{blocker} is a file where a folder is needed.*--home"):
        require_writable(blocker / below)
    with pytest.raises(SettingsError, match=f"{blocker} is a file"), home_errors(blocker / below):
        (blocker / below).mkdir(parents=True, exist_ok=True)


def test_a_folder_in_the_place_of_a_file_and_a_missing_right_are_named(tmp_path: Path) -> None:
    with pytest.raises(RatchetError, match=f"{tmp_path} is a folder where a file"), home_errors(tmp_path):
        tmp_path.write_text("")
    with (
        pytest.raises(SettingsError, match=f"{tmp_path}/x: user {os.geteuid()} has no permission"),
        home_errors(tmp_path),
    ):
        raise PermissionError(13, "Permission denied", str(tmp_path / "x"))


def test_a_writable_home_is_neither_made_nor_changed(tmp_path: Path) -> None:
    require_writable(tmp_path / "home" / "of" / "mine")
    assert os.listdir(tmp_path) == []


def modes_below(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o077 for path in (folder, *folder.rglob("*"))}


def test_what_is_written_into_a_home_only_its_user_can_read(tmp_path: Path) -> None:
    os.umask(0o022)
    home = tmp_path / "home"
    keep_private(home)
    atomic_write(home / "status" / "training.json", "an answer")
    (home / "logs").mkdir()
    (home / "logs" / "training.log").write_text("a row")
    assert modes_below(home) == {0}
    assert not others_may_enter(home)


def test_a_home_that_a_group_may_write_to_stays_open_to_the_group(tmp_path: Path) -> None:
    os.umask(0o002)
    tmp_path.chmod(0o775)
    keep_private(tmp_path)
    (tmp_path / "logs").mkdir()
    atomic_write(tmp_path / "logs" / "file", "a row")
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o770
    assert (tmp_path / "logs" / "file").stat().st_mode & 0o777 == 0o640
    assert others_may_enter(tmp_path)


def test_a_file_for_others_is_readable_where_its_folder_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    atomic_write(tmp_path / "report.html", "for others")
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o644


def test_a_ledger_on_a_disk_of_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(f"sqlite:///{tmp_path / 'here' / 'ledger.db'}").close()
    there = tmp_path / "there"
    monkeypatch.setattr(disk, "mounted", lambda: [("/", "ext4"), (str(there), "nfs4")])
    there.mkdir()
    with pytest.raises(
        SettingsError, match=rf"{there}/home is on a file system of type nfs4.*RATCHET_HOME.*ledger.url"
    ):
        Ledger(f"sqlite:///{there / 'home' / 'ledger.db'}")
    assert not (there / "home").exists()
    Ledger("sqlite:///:memory:").close()


def test_mounts_are_read_as_linux_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("/proc", "proc") in disk.mounted()
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "mounts")
    assert disk.mounted() == []
    disk.MOUNTS.write_bytes(
        rb"server:/a\040b /mnt/a\040b\134c nfs4 rw,relatime 0 0" + b"\n/dev/sda1 /\xff ext4 rw 0 0\n"
    )
    assert disk.mounted() == [("/mnt/a b\\c", "nfs4"), ("/\udcff", "ext4")]


def test_the_file_system_of_a_folder_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = [("/", "ext4"), (str(tmp_path / "mnt"), "cifs"), (str(tmp_path / "mnt-of-mine"), "xfs")]
    (tmp_path / "mnt").mkdir()
    assert file_system(tmp_path / "mnt" / "home", mounts) == "cifs"
    assert file_system(tmp_path, mounts) == "ext4"
    assert file_system(tmp_path, []) == ""
    assert {"cifs", "nfs4"} <= NOT_LOCAL
    assert not {"ext4", "xfs", "btrfs", "overlay", "tmpfs", "apfs"} & NOT_LOCAL
