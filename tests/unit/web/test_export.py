"""Exporting from a checkpoint's page: the job, the folder that other programs load, and its download."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import httpx
import pytest
from fastapi.testclient import TestClient
from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CheckpointRow
from ratchet.run.base_model import prepare_base_model
from ratchet.web.app import build_app
from ratchet.web.tar_stream import CHUNK_BYTES, TarStream
from sqlalchemy import select

from tests.support.home import Home, small_home
from tests.support.served_apps import PATIENCE_S, token_of

EXPORT = "/checkpoints/0/export"


def base_model(spec: dict[str, Any]) -> dict[str, Any]:
    return prepare_base_model({**spec, "model": "tiny"}, lambda _: None)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose base model is a real one."""
    with small_home(tmp_path_factory.mktemp("export") / "home", base_model) as home:
        yield home


@pytest.fixture
def page(furnished: Home) -> Iterator[httpx.Client]:
    with TestClient(build_app(furnished.settings, furnished.ledger), base_url="http://localhost") as client:
        client.headers.update(token_of(client))
        yield client


def wait(page: httpx.Client) -> str:
    """The state of the export once it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while "hx-trigger" in (shown := page.get(f"{EXPORT}/state").text):
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)
    return shown


@pytest.mark.slow
def test_a_checkpoint_is_written_downloaded_and_removed(page: httpx.Client, tmp_path: Path) -> None:
    assert "There is no export of" in page.get(EXPORT).text
    assert page.get(f"{EXPORT}/download").status_code == 409

    begun = page.post(EXPORT)
    assert (begun.status_code, begun.headers["hx-redirect"]) == (204, EXPORT)
    assert "is running already" in page.post(EXPORT).json()["error"]
    shown = wait(page)
    assert "ready" in shown
    assert "model.safetensors" in page.get(EXPORT).text

    sent = page.get(f"{EXPORT}/download")
    assert int(sent.headers["content-length"]) == len(sent.content)
    with tarfile.open(fileobj=io.BytesIO(sent.content)) as archive:
        archive.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 100_000
    assert AutoTokenizer.from_pretrained(folder)("3+4=")["input_ids"]

    assert page.post(EXPORT).status_code == 204, "an earlier export is replaced"
    assert "ready" in wait(page)
    assert page.post(f"{EXPORT}/delete").status_code == 204
    assert "There is no export of" in page.get(EXPORT).text


def test_a_checkpoint_without_files_is_not_exported(page: httpx.Client, furnished: Home) -> None:
    furnished.add_checkpoint()
    with furnished.ledger.write() as tx:
        row = tx.session.scalars(select(CheckpointRow).where(CheckpointRow.ordinal == 1)).one()
        row.state, row.reason = "deleted", "to free space"
    assert "#1 is deleted: to free space" in page.post("/checkpoints/1/export").json()["error"]
    assert "Write the folder" not in page.get("/checkpoints/1/export").text


def test_an_unknown_checkpoint_is_refused(page: httpx.Client) -> None:
    assert page.get("/checkpoints/77/export").status_code == 409
    assert page.get("/checkpoints/77/export/download").status_code == 409


def test_a_read_only_page_exports_nothing(furnished: Home) -> None:
    web = furnished.settings.web.model_copy(update={"read_only": True})
    settings = furnished.settings.model_copy(update={"web": web})
    with TestClient(build_app(settings, furnished.ledger), base_url="http://localhost") as page:
        page.headers.update(token_of(page))
        assert page.post(EXPORT).status_code == page.post(f"{EXPORT}/delete").status_code == 409
        assert "hx-post" not in page.get(f"{EXPORT}/state").text


# --- the archive -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_an_archive_has_the_size_that_it_tells(size: int, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(os.urandom(size))
    (folder / f"{'long ' * 40}ünï").write_bytes(b"name")
    archive = TarStream.of(folder)
    sent = b"".join(archive.chunks())
    assert len(sent) == archive.size
    with tarfile.open(fileobj=io.BytesIO(sent)) as opened:
        member = opened.extractfile("model/a")
        assert member is not None
        assert member.read() == (folder / "a").read_bytes()
        assert len(opened.getnames()) == 2


def test_links_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    assert TarStream.of(folder).members == ()


def test_replacing_the_folder_does_not_disturb_a_download(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(name.encode() * 1000)
    chunks = TarStream.of(folder).chunks()
    begin = next(chunks)
    for path in folder.iterdir():
        path.unlink()
    with tarfile.open(fileobj=io.BytesIO(begin + b"".join(chunks))) as opened:
        assert opened.getnames() == ["model/a", "model/b"]


def test_a_file_that_becomes_shorter_breaks_the_download_off(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"a" * 1000)
    archive = TarStream.of(folder)
    (folder / "a").write_bytes(b"a")
    with pytest.raises(OSError, match="shorter"):
        list(archive.chunks())


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PreconditionFailed, match="no finished export"):
        TarStream.of(tmp_path / "nothing")
