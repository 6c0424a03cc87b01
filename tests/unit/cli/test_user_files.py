"""Commands that are given a path: whatever it leads to, they end with a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.data.jsonl import LINE_LIMIT_BYTES
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.model_folder import check_folder, weights_digest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import BatchRow

from tests.support.tiny_model import build_tiny_model

from .running import ratchet

GOOD = "".join(f'{{"question": "What is {n}?", "answer": "That is {n}."}}\n' for n in range(12))


def batches(ledger: Ledger) -> list[BatchRow]:
    with ledger.read() as session:
        return session.query(BatchRow).filter(BatchRow.origin == "user").all()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", [("queue", "add"), ("init", "--data")])
def test_a_pipe_a_device_and_a_file_of_the_kernel_are_refused_at_once(
    empty_ledger: Ledger, tmp_path: Path, command: tuple[str, str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    reading, writing = os.pipe()
    try:
        for path in (tmp_path / "fifo", Path(f"/dev/fd/{reading}")):
            said = " ".join(ratchet(*command, str(path), code=2).stderr.split())
            assert "is a pipe, not a file: write what comes out of it to a file first" in said
    finally:
        os.close(reading)
        os.close(writing)
    assert "is a device, not a file" in ratchet(*command, "/dev/zero", code=2).stderr
    assert "cannot be read as a file" in ratchet(*command, "/proc/self/mem", code=2).stderr
    assert batches(empty_ledger) == []


def test_a_file_named_with_bytes_that_are_no_utf8_is_queued_under_a_name_that_can_be_shown(
    empty_ledger: Ledger, home: Path, tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"bad\xff.jsonl")
    file.write_text(GOOD + "{broken\n")
    result = ratchet("queue", "add", str(file), "--json")
    assert r"bad\xff.jsonl:13: " in result.stderr
    [batch] = batches(empty_ledger)
    assert batch.provenance["parents"] == [r"bad\xff.jsonl"]
    assert (json.loads(result.stdout)["rows"], json.loads(result.stdout)["unreadable"]) == (12, 1)
    file.write_text("{broken\n")
    assert r"bad\xff.jsonl:1: not JSON" in ratchet("queue", "add", str(file), code=2).stderr


def test_only_the_beginning_of_an_endless_line_is_copied(empty_ledger: Ledger, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(GOOD + "x" * 20_000_000 + "\n")
    said = json.loads(ratchet("queue", "add", str(file), "--json").stdout)
    assert (said["rows"], said["unreadable"]) == (12, 1)
    [batch] = batches(empty_ledger)
    store = ArtifactStore((home / "artifacts").as_uri())
    assert store.size_bytes(batch.submitted_artifact) < 2 * LINE_LIMIT_BYTES


def test_a_file_that_is_mostly_a_hole_is_refused_as_a_whole(empty_ledger: Ledger, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with file.open("wb") as rows:
        rows.write(GOOD.encode())
        rows.truncate(200_000_000)  # NULs that take no room on the disk, as a download that was cut off leaves them
    assert "this is binary data" in ratchet("queue", "add", str(file), code=2).stderr
    assert batches(empty_ledger) == []


def test_a_config_that_is_no_file_is_refused(home: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, said in (
        (tmp_path / "fifo", "is a pipe"),
        (tmp_path, "is a folder"),
        (tmp_path / ("x" * 300), "no such"),
    ):
        assert said in ratchet("--config", str(path), "config", "show", code=2).stderr


def test_a_password_file_that_is_no_file_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setenv("RATCHET_LEDGER__URL", "postgresql+psycopg://me@host/ledger")
    monkeypatch.setenv("RATCHET_LEDGER__PASSWORD_FILE", str(tmp_path / "fifo"))
    assert "is a pipe, not a file" in ratchet("status", code=2).stderr


def test_an_error_with_an_odd_name_is_shown(home: Path) -> None:
    assert "no such file" in ratchet("--config", os.fsdecode(b"bad\xff.toml"), "config", "show", code=2).stderr


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "more.safetensors"])
def test_a_model_with_a_pipe_in_its_folder_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    model = build_tiny_model(tmp_path / "mine")
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    refused = {"config.json": check_folder, "model.safetensors": check_folder, "more.safetensors": weights_digest}[name]
    with pytest.raises(BrokenCheckpoint, match=name):
        refused(model)
    if name != "config.json":
        assert "is a pipe" in ratchet("init", "--model", str(model), code=2).stderr


def test_settings_that_are_a_link_to_themselves_are_refused(home: Path) -> None:
    Path("ratchet.toml").symlink_to("ratchet.toml")
    assert "link that loops" in ratchet("config", "show", code=2).stderr
    assert "that loops" in ratchet("init", code=2).stderr
