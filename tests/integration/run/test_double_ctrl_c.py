"""A second Ctrl-C ends a run at once, with all processes that it started."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ratchet.ledger.tables import WorkerRow
from ratchet.run.session import EXIT_INTERRUPTED
from sqlalchemy import func, select

from tests.support.workers import wait_until

from .test_whole_loop import PATIENCE_S, Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def living(home: Home) -> list[psutil.Process]:
    """Processes with this home in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RATCHET_HOME") == str(home.path) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_second_ctrl_c_kills_everything_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = home.start("run")
    try:
        home.wait_until(select(func.count()).select_from(WorkerRow).where(WorkerRow.state == "running"), run)
        wait_until(lambda: len(home.read(select(WorkerRow))) == 11, PATIENCE_S, "all workers")
        assert len(living(home)) > 11
        for _ in range(2):
            run.send_signal(signal.SIGINT)
            with suppress(Exception):
                run.wait(0.5)
        out, err = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == EXIT_INTERRUPTED, out + err
        wait_until(lambda: living(home) == [], PATIENCE_S, "the end of all")
    finally:
        for process in living(home):
            process.kill()
