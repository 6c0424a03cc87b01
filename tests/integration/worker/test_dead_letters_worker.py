"""Subjects that always fail, or kill their workers, become dead letters and do not block others."""

from __future__ import annotations

from ratchet.bus.celery_app import wake
from ratchet.systems import dead_letters

from tests.support.playground import Open, Playground
from tests.support.toys.catching import SYSTEM
from tests.support.workers import wait_until


def test_a_subject_that_always_fails_becomes_a_dead_letter_and_can_be_retried(playground: Playground) -> None:
    playground.throw("failing-1", "good-1", "good-2")
    wait_until(lambda: bool(playground.letters("failing-1")), what="a dead letter")
    playground.wait_counted("good-1", "good-2")
    (letter,) = playground.letters("failing-1")
    assert (letter.failures, letter.kills, letter.error) == (3, 0, "ValueError: failing-1 always fails")
    assert 'raise ValueError(f"{work.subject.id} always fails")' in letter.traceback
    (playground.stack.settings.home / "antidote").touch()
    with playground.stack.ledger.write() as tx:
        dead_letters.retry(tx, letter.id, "test")
    wake(playground.stack.settings, SYSTEM)
    wait_until(lambda: ("counting", "failing-1") in playground.verdicts(), what="the cured toy")
    assert playground.catches("failing-1") == 1


def test_a_subject_that_kills_its_workers_becomes_a_dead_letter_while_others_pass(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", max_kills=3, max_backoff_s=3.0)
    playground.throw("deadly-1")
    wait_until(lambda: playground.restarts() > 0, what="a death")
    playground.throw("good-1", "good-2")
    wait_until(lambda: bool(playground.letters("deadly-1")), what="a dead letter")
    playground.wait_counted("good-1", "good-2")
    (letter,) = playground.letters("deadly-1")
    assert letter.failures == 0
    assert letter.kills >= 3
    pid = playground.pid()
    playground.throw("good-3")
    playground.wait_counted("good-3")
    assert playground.pid() == pid
