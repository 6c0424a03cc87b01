"""The page Data: files that are sent become rows of the ledger, refused rows are mended, and tasks are changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.ledger.tables import BatchRow, TaskRow
from ratchet.user_tasks.add import Choice
from ratchet.web.app import build_app
from ratchet.web.uploads import KEPT_S, Uploads, safe_name
from sqlalchemy import select

from tests.support.home import Home, small_home
from tests.support.served_apps import browser_of, served, token_of
from tests.support.user_tasks import DATA, home_of_tasks, task_row

BABI = DATA / "babi_qa1_100.jsonl"
PATIENCE_S = 120.0
"""Only ends a test that hangs."""

WORDS = ("amber", "birch", "cedar", "delta", "ember", "frost", "grove", "heron", "inlet", "jetty", "knoll", "lemon")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "home", hyperparams={"max_length": 1024}) as made:
        yield made


class Viewer:
    """A browser at the page of a home, as far as requests go."""

    def __init__(self, home: Home, **web: Any):
        settings = home.settings.model_copy(update={"web": home.settings.web.model_copy(update=web)})
        self.home, self.app = home, build_app(settings, home.ledger)
        self.client = TestClient(self.app, base_url="http://localhost")
        self.client.headers.update(token_of(self.client))

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, path: str, **fields: str) -> httpx.Response:
        return self.client.post(path, data=fields)

    def send(self, content: bytes, name: str, **options: str) -> httpx.Response:
        return self.client.post("/data/files", params={"name": name, **options}, content=content)

    def check(self, content: bytes, name: str, **options: str) -> str:
        """Send a file; returns the address of its check, which has ended."""
        answer = self.send(content, name, **options)
        assert answer.status_code == 201, answer.text
        return self.ended(answer.json()["job"])

    def add(self, content: bytes, name: str, *, succeeds: bool = True, **options: str) -> str:
        """Send a file and agree; returns the address of the job that adds it, which has ended."""
        address = self.follow(self.post(f"{self.check(content, name, **options)}/add"))
        job = self.app.state.site.jobs.find(address.rpartition("/")[2])
        assert job.has_succeeded == succeeds, job.output
        return address

    def follow(self, answer: httpx.Response) -> str:
        assert answer.status_code == 204, answer.text
        return self.ended(answer.headers["hx-redirect"])

    def ended(self, address: str) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while (job := self.app.state.site.jobs.find(address.rpartition("/")[2])).is_running:
            assert time.monotonic() < deadline, job.output
            time.sleep(0.1)
        return address

    def uploads(self) -> list[Path]:
        folder = self.home.settings.web_home / "uploads"
        return sorted(folder.iterdir()) if folder.is_dir() else []


def batches(home: Home) -> list[BatchRow]:
    with home.ledger.read() as session:
        return list(session.scalars(select(BatchRow).order_by(BatchRow.submitted_at)))


def tasks(home: Home) -> list[str]:
    with home.ledger.read() as session:
        return list(session.scalars(select(TaskRow.name)))


def test_a_file_is_checked_first_and_added_once_the_viewer_agrees(home: Home) -> None:
    viewer = Viewer(home)
    version = viewer.app.state.site.feed.version
    checked = viewer.check(BABI.read_bytes(), BABI.name)
    assert viewer.app.state.site.feed.version > version, "a list of files that was kept is not shown any more"
    assert "100 different rows of babi_qa1_100.jsonl" in viewer.get(checked)
    assert batches(home) == []
    added = viewer.follow(viewer.post(f"{checked}/add"))
    (batch,) = batches(home)
    assert batch.task == "babi_qa1"
    assert batch.provenance["parents"] == [BABI.name]
    assert task_row(home, "babi_qa1").source == BABI.name
    page = viewer.get(added)
    assert f"/data/batches/{batch.id}" in page
    assert "/data/tasks/babi_qa1" in page
    assert viewer.post(f"{checked}/add").headers["hx-redirect"] == added, "a second click starts nothing"
    assert viewer.uploads() == [], "what was added is not kept twice"
    home.bus(CORRECTION).sweep()
    (batch,) = batches(home)
    assert batch.state == "stored"
    assert 0 < batch.examples == batch.submitted_examples - batch.quarantined
    assert "Rows that you added: babi_qa1_100.jsonl" in viewer.get(f"/data/batches/{batch.id}")


def test_the_options_of_the_command_are_kept_from_the_check_to_the_addition(home: Home) -> None:
    viewer = Viewer(home)
    rows = [{"Frage": f"Which word follows {one} {number}?", "Wort": one} for number, one in enumerate(WORDS * 3)]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    refused = viewer.check(content, "rows.jsonl")
    assert "It cannot be added" in viewer.get(refused)
    assert "--map" in viewer.get(refused)
    again = viewer.follow(
        viewer.post(f"{refused}/check", task="words", metric="loss", map="question=Frage,answer=Wort")
    )
    added = viewer.get(viewer.follow(viewer.post(f"{again}/add")))
    assert "The rows were added" in added, added
    assert task_row(home, "words").metric == "loss"
    assert viewer.post(f"{refused}/add").status_code == 409


def test_the_same_file_twice_is_refused_in_the_words_of_the_command_line(home: Home) -> None:
    viewer = Viewer(home)
    viewer.add(BABI.read_bytes(), BABI.name)
    (batch,) = batches(home)
    again = viewer.get(viewer.add(BABI.read_bytes(), BABI.name, succeeds=False))
    assert "the same rows were submitted before" in again
    assert f"/data/batches/{batch.id}" in again
    assert [row.id for row in batches(home)] == [batch.id]


def test_a_file_that_is_none_is_refused_with_a_reason(home: Home) -> None:
    viewer = Viewer(home)
    page = viewer.get(viewer.check(os.urandom(5_000), "rows.jsonl"))
    assert "It cannot be added" in page
    assert "this is binary data, not a file of rows" in page
    assert "it is empty" in viewer.get(viewer.check(b"", "empty.csv"))
    assert tasks(home) == []
    listed = viewer.get("/data")
    assert listed.count(">refused</span>") == 2


def test_a_job_outlives_the_page(home: Home) -> None:
    checked = Viewer(home).check(BABI.read_bytes(), BABI.name)
    later = Viewer(home)
    assert "Add these rows" in later.get(checked)
    assert checked in later.get("/data")
    later.follow(later.post(f"{checked}/add"))
    assert tasks(home) == ["babi_qa1"]
    later.get("/data/jobs/0123456789abcdef", 404)


def test_refused_rows_are_kept_with_their_lines_and_can_be_mended(home: Home) -> None:
    viewer = Viewer(home)
    lines = BABI.read_text().splitlines()
    lines[4:4] = ['{"question": "cut off', '{"foo": 1}']
    viewer.add("\n".join(lines).encode(), BABI.name)
    home.bus(CORRECTION).sweep()
    (batch,) = batches(home)
    assert batch.report["reasons"]["unreadable"] == 2
    assert "2 unreadable" in viewer.get("/data").replace("\n", " ")

    rows = viewer.get(f"/data/batches/{batch.id}/quarantine?reason=unreadable")
    assert "babi_qa1_100.jsonl:5: not JSON" in rows
    assert "babi_qa1_100.jsonl:6: keys found: foo" in rows
    viewer.get(f"/data/batches/{batch.id}/quarantine?reason=other", 409)
    file = viewer.client.get(f"/data/batches/{batch.id}/quarantine.jsonl")
    kept = [json.loads(line) for line in file.text.splitlines()]
    assert len(kept) == batch.quarantined
    assert [row["reason"] for row in kept[:2]] == ["unreadable"] * 2
    assert "attachment" in file.headers["content-disposition"]

    line = kept[0]["line"]
    assert "Send it again" in viewer.get(f"/data/batches/{batch.id}/quarantine/{line}")
    form = f"/data/batches/{batch.id}/quarantine/{line}"
    assert viewer.post(form, question="Where is the mended row?", answer=" ").status_code == 409
    done = viewer.follow(viewer.post(form, question="Where is the mended row?\r\nAnswer in a word.", answer="kitchen"))
    assert "The row was sent again" in viewer.get(done)
    home.bus(CORRECTION).sweep()
    first, second = batches(home)
    assert (second.task, second.state, second.examples) == ("babi_qa1", "stored", 1)
    assert f"<dt>trained on</dt><dd>{first.examples + 1}</dd>" in viewer.get("/data/tasks/babi_qa1")


def test_a_row_that_the_gate_refused_for_its_text_is_mended_as_it_was(home: Home) -> None:
    viewer = Viewer(home)
    lines = BABI.read_text().splitlines()
    turns = [{"role": "user", "content": "Where is the long one? " + "very " * 3_000}]
    turns += [{"role": "assistant", "content": "garden"}]
    lines.append(json.dumps({"messages": turns, "metadata": {"family": "babi_qa1", "note": "kept"}}))
    viewer.add("\n".join(lines).encode(), BABI.name, task="babi_qa1")
    home.bus(CORRECTION).sweep()
    (batch,) = batches(home)
    file = viewer.client.get(f"/data/batches/{batch.id}/quarantine.jsonl").text
    kept = [row for row in map(json.loads, file.splitlines()) if row["reason"] == "too_long"]
    if not kept:
        pytest.skip("the long row was held out")
    line = kept[0]["line"]
    done = viewer.follow(
        viewer.post(f"/data/batches/{batch.id}/quarantine/{line}", question="Where is the short one?", answer="garden")
    )
    assert "The row was sent again" in viewer.get(done)
    sent = [*home.artifacts.open_lines(batches(home)[-1].submitted_artifact)]
    sent += [line for held in task_row(home, "babi_qa1").held_out.values() for line in home.artifacts.open_lines(held)]
    (row,) = (line for line in sent if "short one" in line)
    assert json.loads(row)["metadata"]["note"] == "kept"


def test_mended_rows_may_all_be_held_out(home: Home) -> None:
    """Some of the rows of a growing task are held out, also where each comes alone."""
    viewer = Viewer(home)
    viewer.add(BABI.read_bytes() + b'{"foo": 1}\n' * 3, BABI.name)
    home.bus(CORRECTION).sweep()
    (batch,) = batches(home)
    before = task_row(home, "babi_qa1")
    lines = viewer.client.get(f"/data/batches/{batch.id}/quarantine.jsonl").text.splitlines()
    for number, line in enumerate([json.loads(line)["line"] for line in lines if '"unreadable"' in line]):
        form = f"/data/batches/{batch.id}/quarantine/{line}"
        done = viewer.follow(viewer.post(form, question=f"Where is {WORDS[number]} {number}?", answer="kitchen"))
        assert "The row was sent again" in viewer.get(done)
    after = task_row(home, "babi_qa1")
    taught = sum(row.submitted_examples for row in batches(home)[1:])
    assert after.rows == before.rows + 3
    assert after.held_rows + taught == before.held_rows + 3


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("rows.jsonl", "rows.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\my rows.JSONL.gz", "my rows.JSONL.gz"),
        ("..", "rows"),
        ("", "rows"),
        (".jsonl", "rows.jsonl"),
        (".hidden.csv", "hidden.csv"),
        ("nul\0byte\n.csv", "nulbyte.csv"),
        ("\u202egnp.jsonl", "gnp.jsonl"),
        ("-rf.jsonl", "rf.jsonl"),
        ("🦊.parquet", "🦊.parquet"),
        ("<img src=x onerror=alert(1)>.jsonl", "<img src=x onerror=alert(1)>.jsonl"),
        ("a" * 300 + ".jsonl.zst", "a" * 120 + ".jsonl.zst"),
        ("🦊" * 300 + ".csv", "🦊" * 30 + ".csv"),
        ("x" * 300, "x" * 120),
    ],
)
def test_a_name_keeps_its_safe_last_part(name: str, kept: str) -> None:
    assert safe_name(name) == kept
    assert safe_name(kept) == kept


def test_a_hostile_name_is_a_name_and_nothing_else(home: Home) -> None:
    viewer = Viewer(home)
    name = "../../<img src=x onerror=alert(1)>🦊.jsonl"
    added = viewer.add(BABI.read_bytes(), name)
    (batch,) = batches(home)
    assert batch.provenance["parents"] == ["<img src=x onerror=alert(1)>🦊.jsonl"]
    for page in ("/data", added, f"/data/batches/{batch.id}", f"/data/tasks/{batch.task}"):
        assert "<img src=x" not in viewer.get(page)
    assert not list(home.settings.home.parent.glob("*.jsonl"))


def test_old_files_are_removed_and_those_in_use_stay(tmp_path: Path) -> None:
    store = Uploads(tmp_path / "uploads")
    old, used, new = (store.write("{}", f"{name}.jsonl") for name in ("old", "used", "new"))
    for each in (old, used):
        os.utime(each.path.parent, (time.time() - KEPT_S - 60,) * 2)
    store.remove_old([used.key])
    assert [each.path.exists() for each in (old, used, new)] == [False, True, True]


def begin(url: str, length: int, content: bytes) -> socket.socket:
    """Send the head of a request for a file of that length, and some of it."""
    address = urlsplit(url)
    with browser_of(url) as browser:
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        head = (
            f"POST /data/files?name=rows.jsonl HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: {length}\r\n"
            f"cookie: {cookies}\r\nx-csrf-token: {browser.headers['x-csrf-token']}\r\n\r\n"
        )
    connection = socket.create_connection((address.hostname or "", address.port or 0))
    connection.sendall(head.encode() + content)
    return connection


def test_nothing_is_left_of_a_file_whose_connection_breaks(home: Home) -> None:
    viewer = Viewer(home)
    deadline = time.monotonic() + PATIENCE_S
    with served(viewer.app) as url:
        with begin(url, 50_000_000, b"x" * 3_000_000):
            while not any(file.stat().st_size for folder in viewer.uploads() for file in folder.iterdir()):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        while viewer.uploads():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert viewer.app.state.site.jobs.all() == []


def test_a_file_that_does_not_fit_is_refused_before_it_is_sent(home: Home) -> None:
    viewer = Viewer(home)
    with served(viewer.app) as url, begin(url, 10**15, b"{}") as connection, connection.makefile("rb") as answered:
        answer = answered.read().decode()
    assert answer.startswith("HTTP/1.1 409")
    assert "has room for a file of" in answer
    assert viewer.uploads() == []


def test_a_page_that_only_shows_takes_no_file_and_no_action(tmp_path: Path) -> None:
    with home_of_tasks(tmp_path / "home", {BABI.name: Choice()}) as home:
        home.bus(CORRECTION).sweep()
        viewer = Viewer(home, read_only=True)
        (batch,) = batches(home)
        page = viewer.get("/data") + viewer.get("/data/tasks/babi_qa1") + viewer.get(f"/data/batches/{batch.id}")
        assert "drop-file" not in page
        assert "hx-post" not in re.sub(r'hx-post="/logout"', "", page)
        for path in (f"/data/batches/{batch.id}/skip", "/data/tasks/babi_qa1/protect", "/data/tasks/babi_qa1/judge"):
            assert viewer.post(path, metric="loss").status_code == 409
        assert viewer.send(b"{}", "rows.jsonl").status_code == 409
        assert viewer.uploads() == []
        assert task_row(home, "babi_qa1").metric == "accuracy"


def test_a_task_is_protected_and_judged_as_the_viewer_wants(tmp_path: Path) -> None:
    with home_of_tasks(tmp_path / "home", {BABI.name: Choice()}) as home:
        viewer = Viewer(home)
        assert "Unprotect" in viewer.get("/data/tasks/babi_qa1")
        assert viewer.post("/data/tasks/babi_qa1/protect", protected="no").status_code == 204
        assert not task_row(home, "babi_qa1").protected
        viewer.post("/data/tasks/babi_qa1/judge", metric="accuracy", grader="regex", pattern="[a-z]+")
        assert task_row(home, "babi_qa1").grader == "regex"
        told = viewer.post("/data/tasks/babi_qa1/judge", metric="loss", grader="regex", pattern="[a-z]+")
        assert "is judged by loss" in told.headers["hx-trigger"]
        assert task_row(home, "babi_qa1").metric == "loss"
        assert viewer.post("/data/tasks/babi_qa1/judge", metric="speed").status_code == 409
        viewer.get("/data/tasks/other", 409)
        assert {item.metadata.get("metric") for item in home.suite_items("eval")} == {"loss"}


def test_batches_are_filtered_paged_and_skipped(tmp_path: Path) -> None:
    with home_of_tasks(tmp_path / "home", {BABI.name: Choice()}) as home:
        viewer = Viewer(home)
        (batch,) = batches(home)
        link = f"/data/batches/{batch.id}"
        assert link in viewer.get("/data?state=submitted&origin=user&task=babi_qa1")
        assert "No batch is like that" in viewer.get("/data?state=trained")
        viewer.get("/data?state=other", 409)
        viewer.get("/data?batches=x", 409)
        assert viewer.client.get(link[:-8]).text.count(batch.id) > 0, "the beginning of an id is enough"
        viewer.get("/data/batches/ffffffff", 409)
        assert viewer.post(f"{link}/skip").status_code == 204
        assert batches(home)[0].state == "skipped"
        assert viewer.post(f"{link}/skip").status_code == 409


def test_a_missing_quarantine_file_is_an_error_that_says_so(home: Home) -> None:
    viewer = Viewer(home)
    viewer.add(BABI.read_bytes() + b'{"foo": 1}\n', BABI.name)
    home.bus(CORRECTION).sweep()
    (batch,) = batches(home)
    shutil.rmtree(Path(home.artifacts.disk or "") / str(batch.quarantine_artifact))
    assert "There is no artifact" in viewer.get(f"/data/batches/{batch.id}/quarantine", 409)
    assert str(batch.id) in viewer.get("/data")
