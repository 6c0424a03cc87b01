"""`ratchet run` from the outside, with real workers, a real Redis, a real model and small settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import BatchRow, CheckpointRow, VerdictRow
from ratchet.metrics.hub import discovery
from ratchet.ports import free_port
from ratchet.run import run_lock
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings
from ratchet.systems.registry import systems
from ratchet.web.address import ADDRESS_FILE, announced_page
from sqlalchemy import func, select

from tests.support.scrape import Scrape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PATIENCE_S = 600.0
SMALL = {
    "SERVING__PORT": "0",
    "WEB__PORT": "0",
    "SERVING__WATCH_S": "1",
    "QUEUE__BATCH_EXAMPLES": "1200",
    "QUEUE__LOW_WATER": "1500",
    "QUEUE__HIGH_WATER": "4000",
    "SUITES__FAMILIES": '[{"name": "reverse", "levels": [1, 2, 3]}]',
    "SUITES__PROBE_ITEMS": "40",
    "SUITES__EVAL_ITEMS": "90",
    "SUITES__CONFIRM_ITEMS": "60",
    "SUITES__MAX_NEW_TOKENS": "16",
}
RATCHET = [sys.executable, "-c", "from ratchet.cli.main import app; app()"]


class Home:
    """One home, and the commands that work on it."""

    def __init__(self, folder: Path):
        self.path = folder / "run"
        self._folder = folder
        settings = {f"RATCHET_{name}": value for name, value in SMALL.items()}
        settings["RATCHET_METRICS__PORT"] = str(free_port())
        self._environment = {**os.environ, **settings, "RATCHET_HOME": str(self.path), "OMP_NUM_THREADS": "1"}
        self._environment.pop("RATCHET_CONFIG", None)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command whose output is kept, unless the options of its process say otherwise."""
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*RATCHET, *arguments], cwd=self._folder, env=self._environment, text=True, **(piped | options)
        )

    def call(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def redis_pid(self) -> int:
        """Process id of the embedded Redis, once it is ready; a stop removes the file with its address."""
        deadline = time.monotonic() + PATIENCE_S
        while not (self.path / "redis" / "url").exists():
            assert time.monotonic() < deadline, "no Redis was started"
            time.sleep(0.1)
        return int((self.path / "redis" / "redis.pid").read_text())

    def answer(self, question: str) -> dict[str, Any]:
        """The served model's answer, once one is live."""
        deadline, err = time.monotonic() + PATIENCE_S, "none is live"
        while time.monotonic() < deadline:
            if self._is_served():  # each call takes seconds of CPU from the run
                code, out, err = self.call("ask", question, "--json")
                if code == 0:
                    answer: dict[str, Any] = json.loads(out)
                    return answer
            time.sleep(0.5)
        pytest.fail(f"no model was served in time: {err}")

    def _is_served(self) -> bool:
        address = announced_url(Settings(home=self.path).serving_home)
        with suppress(httpx.HTTPError):
            return address is not None and httpx.get(f"{address}/health", timeout=60.0).json()["live"] is not None
        return False

    def page(self) -> str:
        """The address of the Control Room, once it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                address = announced_page(self.path / "web")
                if address and "Control Room" in httpx.get(address).raise_for_status().text:
                    return address
            time.sleep(0.2)
        pytest.fail("no page is served")

    def pages(self) -> dict[str, Scrape]:
        """The pages of all Prometheus targets once they are registered: workers and server by system, and the hub.

        Until a checkpoint has answers both right and wrong, none is calibrated, and the hub has no number for that.
        """
        deadline = time.monotonic() + PATIENCE_S
        with discovery(Settings(home=self.path), "127.0.0.1", 0) as hub:
            while True:
                targets = httpx.get(f"http://127.0.0.1:{hub.server_port}/targets", timeout=PATIENCE_S).json()
                with suppress(OSError):
                    found = {t["labels"]["system"]: Scrape.of(f"http://{t['targets'][0]}/metrics") for t in targets}
                    page = Scrape.of(f"http://127.0.0.1:{hub.server_port}/metrics")
                    is_calibrated = any(sample.name == "ratchet_calibration_ece_ratio" for sample in page.samples)
                    if found.keys() == {*systems(), "serving"} and is_calibrated:
                        return {**found, "hub": page}
                assert time.monotonic() < deadline, targets
                time.sleep(2.0)  # every worker and the hub have answered

    def wait_until(self, query: object, process: subprocess.Popen[str]) -> None:
        """Wait until the query counts something in the ledger of the running run."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            if (self.path / "run.lock").exists() and self._count(query):
                return
            time.sleep(0.5)
        pytest.fail(f"it did not come about: {query}")

    def read(self, query: Any) -> list[Any]:
        """Rows of the ledger."""
        ledger = Ledger(f"sqlite:///{self.path / 'ledger.db'}")
        try:
            with ledger.read() as session:
                return list(session.scalars(query))
        finally:
            ledger.close()

    def _count(self, query: object) -> int:
        ledger = Ledger(f"sqlite:///{self.path / 'ledger.db'}")
        try:
            with ledger.engine.connect() as connection:
                tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'verdicts'")
                return int(connection.scalar(query) or 0) if tables.scalar() else 0  # type: ignore[call-overload]
        finally:
            ledger.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    holder = run_lock.find_run(made.path)
    if holder is not None and holder.pid is not None:
        os.kill(holder.pid, signal.SIGKILL)


def test_a_run_ends_after_its_cycles_and_the_next_run_continues(home: Home, tmp_path: Path) -> None:
    words = ("abc", "dog", "cat", "sun", "map", "pen", "cup", "fox", "jam", "kit", "log", "net")
    rows = [{"question": f"reverse:{word}", "answer": word[::-1], "family": "reverse"} for word in words]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    first = home.start("run", "--cycles", "1")
    home.wait_until(select(func.count()).select_from(CheckpointRow), first)
    check_that_a_killed_page_comes_back(home)

    code, _, err = home.call("run")
    assert (code, f"process {first.pid}" in err) == (2, True)

    code, out, err = home.call("queue", "add", "mine.jsonl", "--json")
    assert (code, "mine.jsonl:13:" in err) == (0, True), err
    assert json.loads(out)["unreadable"] == 1

    out, err = first.communicate(timeout=PATIENCE_S)
    assert (first.returncode, err) == (0, "")
    assert out.startswith("ratchet: the Control Room is at http://127.0.0.1:")
    assert "trained, judged and decided" in out
    assert "No dead letters." in out
    assert "deployment   #0 is live" in out

    second = home.start("run")
    os.kill(home.redis_pid(), signal.SIGKILL)
    trained = select(func.count()).select_from(BatchRow).where(BatchRow.origin == "user", BatchRow.state == "trained")
    home.wait_until(trained, second)
    assert home.answer("reverse abc")["ratchet"]["checkpoint"].startswith("c0")

    check_metrics(home.pages())
    answered = back_up(home, tmp_path / "backup")

    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0, err
    assert "Redis has exited: restarting now" in out
    assert "continues from here" in out
    assert run_lock.find_run(home.path) is None
    assert "nothing is running" in home.call("stop")[1]
    assert _living(home) == []
    check_that_it_goes_on_elsewhere(tmp_path, answered)


def check_that_a_killed_page_comes_back(home: Home) -> None:
    """The page is served from the start, and again at the same address after its process was killed."""
    address = home.page()
    os.kill(json.loads((home.path / "web" / ADDRESS_FILE).read_text())["pid"], signal.SIGKILL)
    assert home.page() == address


def back_up(home: Home, folder: Path) -> dict[str, Any]:
    """A backup of a running run, and its answers at that time; deployment is frozen, so the model stays the same."""
    code, _, err = home.call("deploy", "freeze", "--reason", "for a backup")
    assert code == 0, err
    answered = home.answer("reverse abc")
    code, out, err = home.call("backup", "create", str(folder))
    assert (code, "restores it" in out) == (0, True), err
    return answered


def check_that_it_goes_on_elsewhere(tmp_path: Path, answered: dict[str, Any]) -> None:
    """A restored home serves the same model, continues from there, and trains nothing twice."""
    (tmp_path / "elsewhere").mkdir()
    there = Home(tmp_path / "elsewhere")
    code, out, err = there.call("backup", "restore", str(tmp_path / "backup"))
    assert (code, "continue from there" in out) == (0, True), err
    restored = there.read(select(CheckpointRow))
    finished = {batch.id for batch in there.read(select(BatchRow).where(BatchRow.state == "trained"))}
    run = there.start("run")
    again = there.answer("reverse abc")
    assert [again[key] for key in ("choices", "ratchet")] == [answered[key] for key in ("choices", "ratchet")]
    there.wait_until(select(func.count()).select_from(CheckpointRow).where(CheckpointRow.ordinal >= len(restored)), run)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, "No dead letters." in out) == (0, True), err
    new = [row for row in there.read(select(CheckpointRow)) if row.id not in {old.id for old in restored}]
    assert min(row.ordinal for row in new) == len(restored)
    assert [row.id for row in new if row.batch_id in finished] == []
    steps = [(row.batch_id, row.offset) for row in (*restored, *new)]
    assert len(set(steps)) == len(steps)
    assert _living(there) == []


def check_metrics(pages: dict[str, Scrape]) -> None:
    """Every part of a run exports its metrics, with the right values."""
    hub = pages["hub"]
    assert hub["ratchet_ledger_up"] == 1
    assert hub.value("ratchet_workers", system="training") == 1
    assert hub["ratchet_checkpoint_newest_ordinal"] >= 1
    assert hub.value("ratchet_accuracy_items", role="newest") == 90
    assert 0 <= hub.value("ratchet_accuracy_overall_ratio", role="newest") <= 1
    # Of the champion and the newest checkpoint, whose calibration may not be there yet.
    assert 0 <= hub.value("ratchet_calibration_ece_ratio", kind="raw") <= 2
    assert hub["ratchet_queue_left_seconds"] >= 0
    assert pages["training"]["ratchet_training_updated_timestamp_seconds"] > 1e9
    assert pages["training"]["ratchet_claims_total"] >= 1
    assert pages["serving"]["ratchet_serving_requests_total"] >= 1


def test_ratchet_stop_ends_a_run_before_its_first_checkpoint(home: Home) -> None:
    run = home.start("run")
    home.wait_until(select(func.count()).select_from(VerdictRow), run)
    code, out, _ = home.call("stop")
    assert (code, "continues from here" in out) == (0, True)
    run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0
    assert _living(home) == []


def _living(home: Home) -> list[str]:
    """Command lines of processes that outlive a run of this home; one that is still starting gets time to exit."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := _processes(home)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _processes(home: Home) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(home.path).encode() in environment and int(process.name) != os.getpid():
            found.append(command.replace(b"\0", b" ").decode())
    return found
