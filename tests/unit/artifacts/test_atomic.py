from __future__ import annotations

import os
from pathlib import Path

import pytest
from ratchet.artifacts.atomic import write_atomically
from ratchet.artifacts.trouble import disk_trouble, remote_trouble
from ratchet.errors import SurroundingsError


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


def test_a_secret_is_written_for_its_owner_only(tmp_path: Path) -> None:
    write_atomically(tmp_path / "password", "secret", mode=0o600)
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_trouble_of_the_surroundings(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    with pytest.raises(SurroundingsError, match=r"1,000 bytes are needed"), disk_trouble(folder, 1000):
        Path("/dev/full").write_text("x")


def test_other_errors_of_a_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_trouble(tmp_path):
        open(tmp_path / "absent")  # noqa: SIM115


def test_an_unreachable_remote_is_trouble_of_the_surroundings() -> None:
    with pytest.raises(SurroundingsError, match="s3://bucket"), remote_trouble("s3://bucket"):
        raise TimeoutError("no answer")


def test_an_error_of_the_code_is_not_waited_out() -> None:
    with pytest.raises(TypeError, match="not a path"), remote_trouble("s3://bucket"):
        raise TypeError("not a path")
