from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ratchet.backoff import STABLE_AFTER_S
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.processes.messages import ProcessState
from ratchet.processes.supervisor import FIRST_PAUSE_S, SupervisedProcess
from ratchet.processes.supervisor_client import HURRIED_S, SupervisorClient
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings
from ratchet.settings.section import reveal

from tests.support.workers import wait_until


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[SupervisorClient]:
    settings = Settings(home=tmp_path, control=ControlSettings(grace_s=1.0))
    with SupervisorClient(settings, {"RATCHET_SYSTEMS": ""}) as supervisor:
        yield supervisor


def run(supervisor: SupervisorClient, folder: Path, name: str, script: str) -> int:
    supervisor.start_command(name, ["sh", "-c", script], folder / f"{name}.log")
    pid = supervisor.processes()[name].pid
    assert pid is not None
    return pid


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_command_that_exits_is_restarted(supervisor: SupervisorClient, tmp_path: Path) -> None:
    log = tmp_path / "toy.log"
    log.touch()
    pid = run(supervisor, tmp_path, "toy", "echo $$; exec sleep 1000")
    wait_until(lambda: log.read_text().split() == [str(pid)], what="its first words")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: supervisor.processes()["toy"].pid not in (None, pid), what="another process")
    member = supervisor.processes()["toy"]
    assert (member.restarts, member.exit_code) == (1, -signal.SIGKILL)
    pids = [str(pid), str(member.pid)]
    wait_until(lambda: log.read_text().split() == pids, what="both in the log")


def test_a_command_that_is_stopped_stays_down(supervisor: SupervisorClient, tmp_path: Path) -> None:
    run(supervisor, tmp_path, "toy", "exec sleep 1000")
    supervisor.stop_process("toy")
    wait_until(lambda: supervisor.processes()["toy"].pid is None, what="its end")
    assert supervisor.processes()["toy"].restarts == 0


def test_a_command_that_is_started_again_while_it_stops_comes_back(
    supervisor: SupervisorClient, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'sleep 0.5; exit 0' TERM; touch {ready}; while true; do sleep 0.1; done"
    pid = run(supervisor, tmp_path, "toy", script)
    wait_until(ready.exists, what="its trap")
    supervisor.stop_process("toy")
    assert run(supervisor, tmp_path, "toy", script) == pid
    wait_until(lambda: supervisor.processes()["toy"].pid not in (None, pid), what="another process")


def test_an_unknown_name_is_refused_and_nothing_else_happens(supervisor: SupervisorClient, tmp_path: Path) -> None:
    pid = run(supervisor, tmp_path, "toy", "exec sleep 1000")
    with pytest.raises(PreconditionFailed, match="no process 'boy'; there are: toy"):
        supervisor.stop_process("boy")
    assert supervisor.processes()["toy"].pid == pid


def test_closing_kills_a_process_that_ignores_sigterm(supervisor: SupervisorClient, tmp_path: Path) -> None:
    pids = [
        run(supervisor, tmp_path, "meek", "exec sleep 1000"),
        run(supervisor, tmp_path, "deaf", "trap '' TERM; while true; do sleep 0.1; done"),
    ]
    wait_until(lambda: all(lives(pid) for pid in pids), what="both processes")
    supervisor.close()
    wait_until(lambda: not any(lives(pid) for pid in pids), what="the end of both")


def test_a_dead_supervisor_is_a_transient_error(supervisor: SupervisorClient) -> None:
    os.kill(supervisor.pid, signal.SIGKILL)
    with pytest.raises(TransientError, match=r"supervisor\.log"):
        supervisor.processes()


def test_settings_arrive_with_their_secrets(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, redis={"url": "redis://:secret@here/0"}, control={"lease_s": 30.0})
    copy = Settings(**reveal(settings))
    assert copy == settings
    assert copy.redis.url is not None
    assert copy.redis.url.get_secret_value() == "redis://:secret@here/0"


def test_a_stalled_supervisor_is_killed_with_its_children(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, control=ControlSettings(grace_s=1.0))
    with SupervisorClient(settings, {"RATCHET_SYSTEMS": ""}, reply_s=20.0) as supervisor:
        pid = run(supervisor, tmp_path, "toy", "exec sleep 1000")
        supervisor._reply_s = 1.0
        os.kill(supervisor.pid, signal.SIGSTOP)
        with pytest.raises(TransientError, match="it has not answered for 1 s and was killed"):
            supervisor.processes()
        wait_until(lambda: not lives(pid), what="the end of what it started")


def test_closing_a_suspended_supervisor_lets_it_stop_everything(supervisor: SupervisorClient, tmp_path: Path) -> None:
    words, ready = tmp_path / "words", tmp_path / "ready"
    script = f"trap 'echo saved >{words}; exit 0' TERM; touch {ready}; while true; do sleep 0.1; done"
    pid = run(supervisor, tmp_path, "toy", script)
    wait_until(ready.exists, what="its trap")
    os.kill(supervisor.pid, signal.SIGSTOP)
    supervisor.close()
    assert words.read_text() == "saved\n"
    assert not lives(pid)


def test_once_all_is_to_stop_no_reply_is_waited_for_long(supervisor: SupervisorClient, tmp_path: Path) -> None:
    pid = run(supervisor, tmp_path, "toy", "exec sleep 1000")
    supervisor.hurry()
    supervisor._hurried_at = time.monotonic() - HURRIED_S
    os.kill(supervisor.pid, signal.SIGSTOP)
    with pytest.raises(TransientError, match="and was killed"):
        supervisor.processes()
    wait_until(lambda: not lives(pid), what="the end of what it started")


def test_a_killed_supervisor_ends_its_children(supervisor: SupervisorClient, tmp_path: Path) -> None:
    pids = [
        run(supervisor, tmp_path, "meek", "exec sleep 1000"),
        run(supervisor, tmp_path, "deaf", "trap '' TERM; while true; do sleep 0.1; done"),
    ]
    wait_until(lambda: all(lives(pid) for pid in pids), what="both processes")
    supervisor.processes()
    supervisor.kill()
    wait_until(lambda: not any(lives(pid) for pid in pids), what="the end of both")


class Stub:
    """A process that ends on SIGTERM."""

    def __init__(self) -> None:
        self.pid, self.code, self.signals = 1, None, list[str]()

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.signals.append("TERM")


def supervised(last_pause_s: float = 30.0) -> tuple[SupervisedProcess, list[Stub]]:
    started: list[Any] = []

    def start() -> Any:
        started.append(Stub())
        return started[-1]

    return SupervisedProcess(start, last_pause_s), started


def test_a_command_is_started_once_and_its_exit_noticed() -> None:
    process, started = supervised()
    process.check(0.0)
    process.check(0.1)
    assert len(started) == 1
    started[0].code = 7
    process.check(0.2)
    assert process.state == ProcessState(None, 1, 7)


def test_the_restart_pause_grows_up_to_a_limit() -> None:
    process, started = supervised(last_pause_s=1.0)
    now = 0.0
    for number, pause_s in enumerate([0.2, 0.4, 0.8, 1.0, 1.0], start=1):
        process.check(now)
        assert len(started) == number
        started[-1].code = 1
        process.check(now)
        process.check(now + pause_s - 0.001)
        assert len(started) == number
        now += pause_s


def test_a_command_that_ran_long_restarts_after_the_first_pause() -> None:
    process, started = supervised()
    now = 0.0
    for _ in range(6):
        process.check(now)
        started[-1].code = 1
        process.check(now)
        now += 30.0
    process.check(now)
    started[-1].code = 1
    now += STABLE_AFTER_S
    process.check(now)
    process.check(now + FIRST_PAUSE_S)
    assert len(started) == 8


def test_a_stopped_command_is_not_restarted() -> None:
    process, started = supervised()
    process.check(0.0)
    process.stop()
    assert started[0].signals == ["TERM"]
    started[0].code = 0
    process.check(1.0)
    process.check(1000.0)
    assert process.state == ProcessState(None, 0, 0)


def test_a_failed_fork_is_retried() -> None:
    tries: list[float] = []

    def start() -> Any:
        tries.append(len(tries))
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    process = SupervisedProcess(start)
    process.check(0.0)
    process.check(0.1)
    process.check(0.2)
    assert len(tries) == 2
