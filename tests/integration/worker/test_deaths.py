"""Workers and children that are killed at the worst moments: every subject still gets exactly one verdict."""

from __future__ import annotations

import signal

import psutil
import pytest
from ratchet.ledger.tables import OutboxRow
from sqlalchemy import select

from tests.support.playground import Open, Playground
from tests.support.workers import wait_until


@pytest.mark.parametrize("point", ["after-claim", "after-artifact", "after-work", "before-relay", "after-commit"])
def test_a_worker_killed_at_any_point_continues_after_its_restart(playground: Playground, point: str) -> None:
    before = playground.all_restarts()
    playground.arm(point)
    playground.throw(f"artifact-{point}")
    playground.wait_counted(f"artifact-{point}")
    wait_until(lambda: playground.all_restarts() == before + 1, what="one restart")
    assert not playground.armed(point)


def test_events_of_a_worker_killed_before_its_relay_are_relayed_by_another(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", max_backoff_s=5.0)
    playground.stack.supervisor.stop_process("counting")
    wait_until(lambda: playground.stack.supervisor.processes()["counting"].pid is None, what="the end of counting")
    playground.arm("before-relay")
    playground.throw("ball")
    wait_until(lambda: not playground.armed("before-relay"), what="the death")
    playground.stack.supervisor.start_worker("counting")
    playground.wait_counted("ball")
    wait_until(lambda: not _unrelayed(playground), what="an empty outbox")


def test_a_killed_worker_is_succeeded_by_one_of_the_same_name(playground: Playground) -> None:
    playground.throw("slow-1")
    playground.wait_working("slow-1")
    worker = playground.claims()[0].owner
    playground.signal(signal.SIGKILL)
    playground.wait_counted("slow-1")
    assert playground.verdict_worker("slow-1") == worker
    wait_until(lambda: playground.claims() == [], what="no claims left")
    wait_until(lambda: not list(playground.stack.settings.work_folder.glob("*/*")), what="an empty work folder")


def test_a_killed_child_is_run_again(playground: Playground) -> None:
    pid = playground.pid()
    playground.throw("child-1")
    playground.wait_working("child-1")
    playground.kill_child()
    playground.wait_counted("child-1")
    assert playground.pid() == pid


def test_child_processes_end_with_their_worker(playground: Playground) -> None:
    playground.throw("child-2")
    playground.wait_working("child-2")
    family = psutil.Process(playground.pid()).children(recursive=True)
    assert family
    playground.signal(signal.SIGKILL)
    wait_until(lambda: not any(_lives(child) for child in family), what="the end of all children")
    playground.wait_counted("child-2")


def test_a_second_worker_takes_over_an_orphaned_claim(open_playground: Open) -> None:
    playground = open_playground("catching", "counting")
    playground.throw("slow-1")
    playground.wait_working("slow-1")
    first = playground.claims()[0].owner
    playground.stack.supervisor.start_worker("catching", name="second")
    playground.signal(signal.SIGSTOP)
    playground.wait_counted("slow-1")
    assert playground.verdict_worker("slow-1") != first
    playground.signal(signal.SIGCONT)
    playground.throw("ball")
    playground.wait_counted("slow-1", "ball")


def test_a_frozen_workers_late_commit_is_refused(open_playground: Open) -> None:
    playground = open_playground("catching", "counting")
    playground.throw("frozen-1")
    playground.wait_working("frozen-1")
    first = playground.claims()[0].owner
    playground.stack.supervisor.start_worker("catching", name="second")
    playground.signal(signal.SIGSTOP)
    (playground.stack.settings.home / "thaw").touch()
    playground.wait_counted("frozen-1")
    assert playground.verdict_worker("frozen-1") != first
    playground.signal(signal.SIGCONT)
    wait_until(lambda: "catching lost toy frozen-1" in playground.stack.log("catching"), what="a refused commit")
    playground.check_once("frozen-1")


def test_a_stopped_worker_releases_its_claim_and_exits_with_0(playground: Playground) -> None:
    playground.throw("slow-2")
    playground.wait_working("slow-2")
    playground.stack.supervisor.stop_process("catching")
    wait_until(lambda: playground.stack.supervisor.processes()["catching"].exit_code == 0, what="exit code 0")
    assert playground.claims() == []
    assert ("catching", "slow-2") not in playground.verdicts()
    playground.stack.supervisor.start_worker("catching")
    playground.wait_counted("slow-2")


def test_work_that_ignores_a_stop_is_abandoned_and_its_claim_released(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", grace_s=1.0)
    playground.throw("stubborn-1")
    wait_until(lambda: bool(playground.claims()), what="a claim")
    playground.stack.supervisor.stop_process("catching")
    wait_until(lambda: playground.stack.supervisor.processes()["catching"].exit_code == 0, what="exit code 0")
    assert playground.claims() == []
    playground.stack.supervisor.start_worker("catching")
    playground.wait_counted("stubborn-1")


def test_a_second_stop_request_ends_the_worker_at_once(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", grace_s=250.0)
    playground.throw("stubborn-1")
    wait_until(lambda: bool(playground.claims()), what="a claim")

    def ended() -> bool:
        playground.stack.supervisor.stop_process("catching")
        return playground.stack.supervisor.processes()["catching"].exit_code == 0

    wait_until(ended, timeout_s=120.0, what="exit code 0")
    assert playground.claims() == []


def _unrelayed(playground: Playground) -> list[OutboxRow]:
    with playground.stack.ledger.read() as session:
        return list(session.scalars(select(OutboxRow).where(OutboxRow.relayed_at.is_(None))))


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
