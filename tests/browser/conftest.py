"""A real browser on real pages: of a run, and of made-up histories.

Without Chromium tests are skipped with the reason; where CI is set they fail. Each page is made for one file of tests
and ends with it: a run would take both cores from the tests that follow.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from ratchet.ledger import Ledger
from ratchet.ledger.tables import DeploymentRow
from ratchet.ports import free_port
from ratchet.settings import Settings
from ratchet.web.address import announced_page
from sqlalchemy import func, select

from tests.support.pages import RATCHET, Run, Serve, Served, environment_of, synthetic_home
from tests.support.visits import Visit

RUN_S = 900.0
"""Only ends a run that hangs: its first deployment takes a minute on two idle cores."""
FAMILIES = [{"name": "sort_digits", "levels": [1, 2]}, {"name": "reverse", "levels": [1, 2]}]
"""Few levels, so that testing is quick; the first one is learned from the first batch."""


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
    asked = {"serving__port": 0, "web__port": 0, "metrics__port": free_port(), "suites__families": FAMILIES}
    log = home.with_name("run.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*RATCHET, "run"],
            cwd=home.parent,
            env=environment_of(home, asked),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    settings = Settings(home=home, serving={"port": 0}, web={"port": 0})
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


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page over a made-up history. Tests that act take ``serve`` with a home of their own."""
    served = Served(synthetic_home(tmp_path_factory.mktemp("synthetic") / "home"))
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
    """``serve(home, web__read_only=True)`` starts a page; ``synthetic_home(tmp_path / "home")`` makes a home for it."""
    all_served: list[Served] = []

    def start(home: Path, **settings: Any) -> Served:
        all_served.append(Served(home, **settings))
        return all_served[-1]

    yield start
    for served in all_served:
        served.stop()
