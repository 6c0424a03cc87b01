"""How a process is started, ends and is killed, and when the supervisor starts it again."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from ratchet.processes.managed_process import ManagedProcess, describe_exit

from tests.support.workers import wait_until


def spawned(*lines: str) -> ManagedProcess:
    """A process that runs these lines; spawned, since a test session has threads and must not fork."""
    with open(os.devnull) as nothing:
        return ManagedProcess.spawn([sys.executable, "-c", "; ".join(lines)], os.environ, stdin=nothing.fileno())


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_the_exit_code_is_known_after_the_end() -> None:
    process = spawned("raise SystemExit(7)")
    assert process.wait(60.0) == 7
    assert process.poll() == 7
    process.terminate()
    process.kill()


def test_a_process_can_be_terminated_or_killed() -> None:
    process = spawned("import time", "time.sleep(1000)")
    assert process.poll() is None
    process.terminate()
    assert process.wait(60.0) == -signal.SIGTERM
    process = spawned("import time", "time.sleep(1000)")
    process.send_signal(signal.SIGKILL)
    assert process.wait(60.0) == -signal.SIGKILL


@pytest.mark.parametrize("then", ["time.sleep(1000)", "pass"])
def test_its_descendants_end_with_it(tmp_path: Path, then: str) -> None:
    told = tmp_path / "pid"
    process = spawned(
        "import pathlib, subprocess, sys, time",
        f"pathlib.Path({str(told)!r}).write_text(str(subprocess.Popen(['sleep', '1000']).pid))",
        then,
    )
    wait_until(lambda: told.exists() and bool(told.read_text()), what="the process that it starts")
    if then != "pass":
        process.kill()
    wait_until(lambda: process.poll() is not None, what="its end")
    wait_until(lambda: not lives(int(told.read_text())), what="the end of what it started")


def test_a_command_writes_to_its_log(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ratchet.processes.managed_process import ManagedProcess;"
        "command = ['sh', '-c', 'echo $GREETING; echo bad >&2'];"
        "raise SystemExit(ManagedProcess.execute(command, {'GREETING': 'hello'}, Path(sys.argv[1])).wait(60))"
    )
    log = tmp_path / "logs" / "command.log"
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", script, str(log)], os.environ)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert log.read_text() == "hello\nbad\n"


@pytest.mark.parametrize(
    ("body", "code"), [("lambda: 3", 3), ("lambda: sys.exit(4)", 4), ("lambda: 1 / 0", 1), ("os.abort", -6)]
)
def test_a_fork_ends_with_its_function(body: str, code: int) -> None:
    script = (
        "import os, sys; from ratchet.processes.managed_process import ManagedProcess;"
        f"print(ManagedProcess.fork({body}).wait(60))"
    )
    read, write = os.pipe()
    process = ManagedProcess.spawn([sys.executable, "-c", script], os.environ, stdin=read, output=write)
    os.close(write)
    with open(read) as output:
        assert output.read().splitlines()[-1] == str(code)
    assert process.wait(60.0) == 0


def test_an_exit_status_is_described_in_words() -> None:
    assert [describe_exit(code) for code in (7, -9)] == ["ended with code 7", "was killed by SIGKILL"]
