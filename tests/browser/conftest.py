"""A real browser on real pages: of a run, and of made-up histories.

Without Chromium tests are skipped with the reason; where CI is set they fail. Each page is made for one file of tests
and ends with it: a run would take both cores from the tests that follow.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from ratchet.ledger import Ledger
from ratchet.ledger.tables import DeploymentRow
from ratchet.ports import free_port
from ratchet.settings import Settings
from ratchet.web.address import announced_page
from sqlalchemy import func, select

from tests.support.pages import RATCHET, Run, Serve, Served, environment_of, synthetic_home
from tests.support.visits import PATIENCE_MS, Visit

RUN_S = 900.0
"""Only ends a run that hangs: its first deployment takes a minute on two idle cores."""
SMALL: dict[str, Any] = {
    "suites": {
        "families": [{"name": "sort_digits", "levels": [1, 2]}],
        "probe_items": 40,
        "eval_items": 40,
        "confirm_items": 80,
        "max_new_tokens": 32,
    },
    "queue": {"low_water": 3_000, "high_water": 7_000, "batch_examples": 3_000},
    "serving": {"port": 0},
    "web": {"port": 0},
}
"""Little to train on and to test: the first level is learned from a batch or two."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first waits for the run."""
    for item in items:
        if "run" in getattr(item, "fixturenames", ()) and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(RUN_S + 300))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for a file of tests: while it runs, asyncio.run cannot be called in this thread."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium: apt-get install chromium")
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        expect.set_options(timeout=PATIENCE_MS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    made = Visit(browser)
    yield made
    made.close()
    assert not made.problems


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """It runs on while tests look at it, from the first deployment over the base model."""
    home = tmp_path_factory.mktemp("run") / "home"
    settings = Settings(home=home, metrics={"port": free_port()}, **SMALL)
    log = home.with_name("run.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*RATCHET, "run"],
            cwd=home.parent,
            env=environment_of(home, {**SMALL, "metrics": {"port": settings.metrics.port}}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    ledger = None
    try:
        wait_for(lambda: process.poll() is not None or announced_page(settings.web_home), log)
        ledger = Ledger(settings.ledger_url)
        wait_for(lambda: process.poll() is not None or _deployments(ledger) >= 2, log)
        assert process.poll() is None, log.read_text()
        yield Run(announced_page(settings.web_home) or "", home, ledger, settings, process.pid)
    finally:
        if ledger is not None:
            ledger.close()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _deployments(ledger: Ledger) -> int:
    with ledger.read() as session:
        return session.scalar(select(func.count()).select_from(DeploymentRow)) or 0


def wait_for(is_so: Callable[[], object], log: Path, patience_s: float = RUN_S) -> None:
    """Wait until something is so. Raises AssertionError with the end of the log if it takes too long."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline, log.read_text()[-4_000:]
        time.sleep(0.2)


@pytest.fixture(scope="session")
def template_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up history to copy: making one takes seconds, so the processes of tests share the first one's."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    template = shared / "made-up"
    with (shared / "made-up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            synthetic_home(tmp_path_factory.mktemp("template") / "home").rename(template)
    return template


@pytest.fixture(scope="module")
def synthetic(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page over a made-up history. Tests that act have a copy of their own."""
    served = Served(shutil.copytree(template_home, tmp_path_factory.mktemp("synthetic") / "home"))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same where all text from outside is hostile."""
    served = Served(synthetic_home(tmp_path_factory.mktemp("hostile") / "home", hostile=True))
    yield served
    served.stop()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(home, web__read_only=True)`` starts a page; ``template_home`` can be copied to be its home."""
    all_served: list[Served] = []

    def start(home: Path, **settings: Any) -> Served:
        all_served.append(Served(home, **settings))
        return all_served[-1]

    yield start
    for served in all_served:
        served.stop()
