"""Any path is read as a regular file or refused by name, without blocking."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, SettingsError
from ratchet.printable import printable
from ratchet.settings import load
from ratchet.settings.stores import read_secret
from ratchet.user_files import TEXT_LIMIT_BYTES, open_regular, read_text

ODD = {
    "fifo": "is a pipe, not a file",
    "device": "is a device, not a file",
    "folder": "is a folder, not a file",
    "socket": "is a socket, not a file",
    "loop": "a symbolic link that loops",
    "link to a fifo": "is a pipe, not a file",
    "link to nothing": "no such file",
    "nothing": "no such file",
    "secret": "may not read it",
    "too long": "its name is too long",
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A path that is no regular file, and its error."""
    name, path = str(request.param), tmp_path / "odd.jsonl"
    server = socket.socket(socket.AF_UNIX)
    if name == "fifo":
        os.mkfifo(path)
    elif name == "device":
        path = Path("/dev/zero")
    elif name == "folder":
        path.mkdir()
    elif name == "socket":
        server.bind(str(path))
    elif name == "loop":
        path.symlink_to(path)
    elif name == "link to a fifo":
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to(tmp_path / "fifo")
    elif name == "link to nothing":
        path.symlink_to(tmp_path / "nothing")
    elif name == "secret":
        path.touch(mode=0)
        if os.access(path, os.R_OK):
            server.close()
            pytest.skip("root may read it")
    elif name == "too long":
        path = tmp_path / ("x" * 300)
    yield path, ODD[name]
    server.close()


READERS: list[tuple[Callable[[Path], object], type[Exception]]] = [
    (open_regular, DataError),
    (read_text, DataError),
    (lambda path: list(read_examples(path)), DataError),
    (read_secret, SettingsError),
]


@pytest.mark.parametrize(("read", "kind"), READERS)
def test_a_pipe_or_device_is_refused_by_name(
    odd: tuple[Path, str], read: Callable[[Path], object], kind: type[Exception]
) -> None:
    path, said = odd
    with pytest.raises((kind, SettingsError), match=said) as raised:
        read(path)
    assert printable(path)[:200] in str(raised.value)


def test_a_settings_file_that_is_no_file_is_refused_by_name(
    odd: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said = odd
    if not os.path.lexists(path):
        said = "no such file"
    with pytest.raises(SettingsError, match=f"{said}|no such file"):
        load(path)
    if os.path.lexists(path):
        monkeypatch.setenv("RATCHET_CONFIG", str(path))
        with pytest.raises(SettingsError, match=said):
            load()


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 1_000)
    (tmp_path / "link").symlink_to(file)
    for path in (file, tmp_path / "link"):
        with open_regular(path) as stream:
            assert stream.read(10) == bytes(range(10))
            assert stream.readline() == b"\n"
            assert len(stream.read()) == 256_000 - 11
            stream.seek(0)
            assert stream.read() == file.read_bytes()


def test_bytes_appended_meanwhile_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"one\n")
    with open_regular(file) as stream, file.open("ab") as more:
        more.write(b"two\n")
        more.flush()
        assert stream.read() == b"one\n"


def test_a_kernel_file_is_read_or_refused_by_name() -> None:
    with open_regular(Path("/proc/self/mem")) as stream, pytest.raises(DataError, match="cannot be read as a file"):
        stream.read()


def test_a_file_of_unknown_size_is_read() -> None:
    with open_regular(Path("/proc/self/status")) as stream:
        assert stream.read().startswith(b"Name:")


def test_a_text_is_small_and_utf8(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("é".encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8 at byte 0"):
        read_text(file, SettingsError)
    with file.open("wb") as large:
        large.truncate(TEXT_LIMIT_BYTES + 1)
    with pytest.raises(SettingsError, match="more than 10,000,000 bytes"):
        read_text(file, SettingsError)


def test_rows_of_a_file_with_a_bad_name_are_named(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"bad\xff.jsonl")
    file.write_bytes(b"{broken\n")
    [(_, error)] = read_examples(file)
    assert str(error).startswith(r"bad\xff.jsonl:1: ")
    assert str(error).encode()
