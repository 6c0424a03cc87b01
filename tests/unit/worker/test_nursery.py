from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings
from ratchet.settings.reveal import reveal
from ratchet.worker.nursery import Nursery

from tests.support.workers import wait_until


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    settings = Settings(home=tmp_path, control=ControlSettings(grace_s=1.0))
    with Nursery(settings, {"RATCHET_SYSTEMS": ""}) as nursery:
        yield nursery


def run(nursery: Nursery, folder: Path, name: str, script: str) -> int:
    nursery.command(name, ["sh", "-c", script], folder / f"{name}.log")
    pid = nursery.pid_of(name)
    assert pid is not None
    return pid


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_command_that_dies_is_started_again(nursery: Nursery, tmp_path: Path) -> None:
    log = tmp_path / "toy.log"
    log.touch()
    pid = run(nursery, tmp_path, "toy", "echo $$; exec sleep 1000")
    wait_until(lambda: log.read_text().split() == [str(pid)], what="its first words")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: nursery.pid_of("toy") not in (None, pid), what="another process")
    member = nursery.report()["toy"]
    assert (member.restarts, member.exit_code) == (1, -signal.SIGKILL)
    pids = [str(pid), str(member.pid)]
    wait_until(lambda: log.read_text().split() == pids, what="both in the log")


def test_a_command_that_is_stopped_stays_down(nursery: Nursery, tmp_path: Path) -> None:
    run(nursery, tmp_path, "toy", "exec sleep 1000")
    nursery.stop("toy")
    wait_until(lambda: nursery.pid_of("toy") is None, what="its end")
    assert nursery.report()["toy"].restarts == 0


def test_a_name_that_does_not_exist_is_refused_and_nothing_else_happens(nursery: Nursery, tmp_path: Path) -> None:
    pid = run(nursery, tmp_path, "toy", "exec sleep 1000")
    with pytest.raises(PreconditionFailed, match="no process 'boy'; there are: toy"):
        nursery.stop("boy")
    assert nursery.pid_of("toy") == pid


def test_closing_ends_even_what_does_not_listen(nursery: Nursery, tmp_path: Path) -> None:
    pids = [
        run(nursery, tmp_path, "meek", "exec sleep 1000"),
        run(nursery, tmp_path, "deaf", "trap '' TERM; while true; do sleep 0.1; done"),
    ]
    wait_until(lambda: all(lives(pid) for pid in pids), what="both processes")
    nursery.close()
    wait_until(lambda: not any(lives(pid) for pid in pids), what="the end of both")


def test_a_supervisor_that_is_gone_is_trouble_of_the_surroundings(nursery: Nursery) -> None:
    os.kill(nursery.pid, signal.SIGKILL)
    with pytest.raises(TransientError, match=r"supervisor\.log"):
        nursery.report()


def test_settings_arrive_with_their_secrets(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, redis={"url": "redis://:secret@here/0"}, control={"lease_s": 30.0})
    copy = Settings(**reveal(settings))
    assert copy == settings
    assert copy.redis.url is not None
    assert copy.redis.url.get_secret_value() == "redis://:secret@here/0"


def test_a_supervisor_that_stands_still_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, control=ControlSettings(grace_s=1.0))
    with Nursery(settings, {"RATCHET_SYSTEMS": ""}, answer_s=20.0) as nursery:
        pid = run(nursery, tmp_path, "toy", "exec sleep 1000")
        nursery._answer_s = 1.0
        os.kill(nursery.pid, signal.SIGSTOP)
        with pytest.raises(TransientError, match="has said nothing for 1 s and was ended"):
            nursery.report()
        wait_until(lambda: not lives(pid), what="the end of what it started")


def test_killed_it_leaves_nothing_behind(nursery: Nursery, tmp_path: Path) -> None:
    pids = [
        run(nursery, tmp_path, "meek", "exec sleep 1000"),
        run(nursery, tmp_path, "deaf", "trap '' TERM; while true; do sleep 0.1; done"),
    ]
    wait_until(lambda: all(lives(pid) for pid in pids), what="both processes")
    nursery.report()
    nursery.kill()
    wait_until(lambda: not any(lives(pid) for pid in pids), what="the end of both")
