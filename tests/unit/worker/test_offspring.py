from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from ratchet.worker.offspring import FIRST_WAIT_S, WELL_AFTER_S, Offspring, executed

from tests.support.workers import wait_until


def spawned(*lines: str) -> Offspring:
    """A member whose process runs these lines; spawned, since a test session has threads and must not fork."""
    command = [sys.executable, "-c", "; ".join(lines)]
    return Offspring("toy", lambda: os.posix_spawn(command[0], command, os.environ))


def tend_until_down(member: Offspring, now: float) -> None:
    def down() -> bool:
        member.tend(now)
        return member.pid is None

    wait_until(down, what="the end of the process")


def test_it_is_started_once_and_its_death_is_noticed() -> None:
    member = spawned("raise SystemExit(7)")
    member.tend(0.0)
    pid = member.pid
    assert pid is not None
    tend_until_down(member, 0.0)
    assert (member.exit_code, member.restarts) == (7, 1)


def test_it_waits_longer_after_each_death_up_to_a_limit() -> None:
    member = spawned("pass")
    now, waits = 0.0, []
    for _ in range(10):
        member.tend(now)
        tend_until_down(member, now)
        waits.append(member.due_at - now)
        member.tend(member.due_at - 0.001)
        assert member.pid is None
        now = member.due_at
    assert waits[0] == pytest.approx(FIRST_WAIT_S)
    assert waits[1:] == [pytest.approx(min(2 * wait, member.last_wait_s)) for wait in waits[:-1]]
    assert waits[-1] == pytest.approx(member.last_wait_s)


def test_a_good_while_makes_it_trusted_again() -> None:
    member = spawned("pass")
    member.wait_s = member.last_wait_s
    member.tend(0.0)
    tend_until_down(member, WELL_AFTER_S)
    assert member.due_at == pytest.approx(WELL_AFTER_S + FIRST_WAIT_S)


def test_what_is_not_wanted_is_not_started_again() -> None:
    member = spawned("import time", "time.sleep(1000)")
    member.tend(0.0)
    member.wanted = False
    member.kill(signal.SIGKILL)
    tend_until_down(member, 1.0)
    member.tend(1000.0)
    assert (member.pid, member.restarts, member.exit_code) == (None, 0, -signal.SIGKILL)
    member.kill(signal.SIGKILL)


def test_a_command_writes_to_its_log(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ratchet.worker.offspring import executed; import os;"
        "start = executed(['sh', '-c', 'echo $GREETING; echo bad >&2'], {'GREETING': 'hello'}, Path(sys.argv[1]));"
        "os.waitpid(start(), 0)"
    )
    log = tmp_path / "logs" / "command.log"
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", script, str(log)], os.environ)
    os.waitpid(pid, 0)
    assert log.read_text() == "hello\nbad\n"
    assert callable(executed(["true"], {}, log))
