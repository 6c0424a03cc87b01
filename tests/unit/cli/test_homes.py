"""Commands on a home that is full, can only be read, or is a file: a sentence with the way out, and no trace of it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
import typer
from ratchet.cli.main import app
from ratchet.ledger import Ledger
from ratchet.run import run_lock
from ratchet.serving.server_home import token_path

from tests.support.disk import SmallDisk, fill, free

from .running import ratchet

COMMANDS = [
    ("run", "--cycles", "1"),
    ("serve", "--port", "0"),
    ("migrate",),
]
"""What writes to the home first of all."""


@pytest.fixture(params=["full", "read-only", "file"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bad_home(kind: str, home: Path, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> Path:
    if kind == "file":
        home.touch()
        return home
    path = small_disk(65_536 if kind == "full" else 4_000_000_000, "rw" if kind == "full" else "ro") / "run"
    if kind == "full":
        path.mkdir()
        fill(path)
    monkeypatch.setenv("RATCHET_HOME", str(path))
    return path


def is_one_sentence_with_a_way_out(said: str, kind: str, place: Path) -> bool:
    (line,) = said.strip().splitlines()
    words = {
        "full": ("No space left on device", "Make room"),
        "read-only": ("mounted read-only", "Mount it for writing"),
        "file": ("is a file where a folder is needed", "Move it away"),
    }[kind]
    return line.startswith("ratchet: ") and str(place) in line and all(word in line for word in words)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_that_write_to_a_bad_home_name_the_way_out(
    bad_home: Path, kind: str, command: tuple[str, ...]
) -> None:
    result = ratchet(*command, code=2)
    assert is_one_sentence_with_a_way_out(result.stderr, kind, bad_home), result.output


@pytest.mark.parametrize("command", ["status", "watch", "queue list", "doctor", "logs"])
def test_commands_that_read_a_bad_home_end_without_a_traceback(bad_home: Path, kind: str, command: str) -> None:
    result = ratchet(*command.split(), code=1 if command == "doctor" else 2)
    assert "Traceback" not in result.output
    if command not in ("doctor", "logs"):
        said = f"ratchet: {bad_home} is a file" if kind == "file" else "ratchet: there is no ledger"
        assert result.stderr.startswith(said)


def test_stop_and_reset_find_nothing_in_a_bad_home(bad_home: Path) -> None:
    assert "nothing is running" in ratchet("stop").stdout
    result = ratchet("reset", "--yes", code=2 if bad_home.exists() else 0)
    assert result.output.count("\n") == 1
    assert "does not look like a home" in result.stderr or "there is nothing at" in result.stdout


def test_doctor_reports_a_bad_home(bad_home: Path, kind: str) -> None:
    said = {line.split()[1]: line for line in ratchet("doctor", code=1).stdout.splitlines()}
    assert said["disk"].startswith("bad")
    assert {"full": "is full", "read-only": "read-only", "file": "is a file"}[kind] in said["disk"]


def test_a_run_refused_on_a_full_disk_does_not_block_the_next_one(home: Path, small_disk: SmallDisk) -> None:
    path = small_disk(65_536) / "run"
    path.mkdir()
    os.environ["RATCHET_HOME"] = str(path)
    fill(path)
    ratchet("run", "--cycles", "1", code=2)
    ratchet("serve", "--port", "0", code=2)
    assert "nothing is running" in ratchet("stop").stdout
    free(path)
    assert (token_path(path / "serving").exists(), run_lock.find_run(path)) == (False, None)
    with run_lock.hold_home(path):
        assert run_lock.find_run(path) == run_lock.RunHolder(os.getpid())


@pytest.mark.parametrize("room", [False, True])
def test_init_writes_the_whole_file_or_none(home: Path, small_disk: SmallDisk, room: bool) -> None:
    folder = small_disk(262_144)
    os.chdir(folder)
    if room:
        ratchet("init")
        before = Path("ratchet.toml").read_text()
        Path("ratchet.toml").chmod(0o600)
    fill(folder)
    result = ratchet("init", "--force", code=2)
    assert is_one_sentence_with_a_way_out(result.stderr, "full", folder)
    assert Path("ratchet.toml").exists() == room
    free(folder)
    ratchet("init", *(["--force"] * room))
    assert sorted(os.listdir(folder)) == ["ratchet.toml"]
    if room:
        assert Path("ratchet.toml").read_text() == before
        assert Path("ratchet.toml").stat().st_mode & 0o777 == 0o600


def test_init_overwrites_a_settings_file_that_is_a_mount_point(home: Path, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside.toml", tmp_path / "ratchet.toml"
    for file in (outside, inside):
        file.write_text("# by hand\n")
    mounted = subprocess.run(
        ["mount", "--bind", str(outside), str(inside)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file cannot be mounted here: {mounted.stderr.strip()}")
    try:
        ratchet("init", "--force")
        assert "[serving]" in outside.read_text()
    finally:
        subprocess.run(["umount", str(inside)], check=True)


def test_init_adds_the_whole_data_or_none(home: Path, small_disk: SmallDisk) -> None:
    """Nothing is left of an attempt on a full disk that a later run could take for data."""
    folder = small_disk(65_536)
    os.environ["RATCHET_HOME"] = str(folder / "run")
    rows = "".join(f'{{"question": "reverse {n}", "answer": "{str(n)[::-1]}"}}\n' for n in range(10_000, 12_000))
    Path("mine.jsonl").write_text(rows)
    result = ratchet("init", "--data", "mine.jsonl", code=2)
    assert "is full" in result.stderr
    assert not Path("ratchet.toml").exists()


def test_a_disk_error_without_a_file_names_the_home(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    group = typer.main.get_command(app)
    group.commands["fail"] = typer.main.get_command(failing)  # type: ignore[attr-defined]
    home.mkdir()
    assert group.main(["fail"], standalone_mode=False) == 2
    said = capsys.readouterr().err
    assert str(home) in said
    assert "is full" in said


def test_reset_empties_a_mount_point_that_stays(home: Path, small_disk: SmallDisk) -> None:
    path = small_disk(262_144)
    os.environ["RATCHET_HOME"] = str(path)
    (path / "artifacts" / "deep").mkdir(parents=True)
    (path / "artifacts" / "deep" / "file").touch()
    (path / "link").symlink_to(home.parent)
    (path / run_lock.LOCK_FILE).touch()
    assert f"emptied {path}, which is a mount point and stays" in ratchet("reset", "--yes").stdout
    assert list(path.iterdir()) == []
    assert home.parent.exists()


def test_an_incomplete_reset_can_be_repeated(home: Path, small_disk: SmallDisk) -> None:
    path = small_disk(262_144)
    os.environ["RATCHET_HOME"] = str(path)
    (path / run_lock.LOCK_FILE).touch()
    (path / "ledger.db").touch()
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
    assert "mounted read-only" in ratchet("reset", "--yes", code=2).stderr
    subprocess.run(["mount", "-o", "remount,rw", str(path)], check=True)
    assert "emptied" in ratchet("reset", "--yes").stdout


def test_a_run_with_an_empty_lock_file_still_counts_as_running(home: Path, ledger: Ledger) -> None:
    with run_lock.hold_home(home):
        (home / run_lock.LOCK_FILE).write_bytes(b"")
        said, file = ratchet("stop", code=2).stderr, home / run_lock.LOCK_FILE
        assert f"{file} does not name its process: find it with `fuser {file}` or `lslocks`" in said
        assert "is running in" in ratchet("reset", "--yes", code=2).stderr
        assert "is running in" in ratchet("backup", "restore", "somewhere", code=2).stderr
        assert "running, a process that run.lock does not name" in ratchet("status").stdout
        values = json.loads(ratchet("status", "--json").stdout)
        assert (values["running"], values["running_pid"]) == (True, None)
        doctor = {found["check"]: found["text"] for found in json.loads(ratchet("doctor", "--json", code=1).stdout)}
        assert doctor["server"].startswith("part of the run, a process that run.lock does not name")
        (home / run_lock.LOCK_FILE).write_text(str(2**22))
        assert "not on this machine or not in this container: stop it there" in ratchet("stop", code=2).stderr
    assert home.exists()
