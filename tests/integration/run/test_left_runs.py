"""How a run ends that its user leaves: with a second Ctrl-C, or by closing the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import termios
from contextlib import suppress
from pathlib import Path
from select import select as select_ready

import psutil
import pytest
from ratchet.errors import TransientError
from ratchet.ledger.tables import WorkerRow
from ratchet.run import run_lock
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


def test_a_run_whose_terminal_is_closed_stops_cleanly(tmp_path: Path) -> None:
    home, errors = Home(tmp_path), tmp_path / "errors"
    keyboard, terminal = pty.openpty()
    with errors.open("w") as stderr:
        run = home.start(
            "run",
            stdin=terminal,
            stdout=terminal,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(terminal)
    shown = bytearray()

    def has_workers() -> bool:
        while select_ready([keyboard], [], [], 0)[0]:
            shown.extend(os.read(keyboard, 65_536))
        with suppress(TransientError):  # the ledger is still being made
            return len(home.read(select(WorkerRow))) == 11
        return False

    try:
        wait_until(has_workers, PATIENCE_S, "all workers")
        os.close(keyboard)
        assert run.wait(PATIENCE_S) == 0, errors.read_text()
        assert b"Control Room" in shown
        assert errors.read_text() == ""
        assert run_lock.find_run(home.path) is None
        wait_until(lambda: living(home) == [], PATIENCE_S, "the end of all")
    finally:
        for process in living(home):
            process.kill()
