from __future__ import annotations

import pytest
from ratchet.backoff import FIRST_S
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.tables import ClaimRow, DeadLetterRow, VerdictRow
from ratchet.settings.control import ControlSettings
from ratchet.systems import claims, dead_letters
from ratchet.systems.claims import Claim, Subject
from sqlalchemy import select

from tests.support.rows import verdict

CONTROL = ControlSettings(max_backoff_s=0.001, max_failures=3, max_kills=5)
TOY = Subject("toy", "t1")


def taken(ledger: Ledger) -> Claim:
    while True:
        with ledger.write() as tx:
            claim = claims.take(tx, "mine", TOY, "a", 1000.0)
        if claim is not None:
            return claim


def fail(ledger: Ledger, times: int, *, killed: bool = False) -> None:
    for _ in range(times):
        claim = taken(ledger)
        with ledger.write() as tx:
            dead_letters.record_failure(tx, claim, ValueError("bad toy"), killed, CONTROL)


def die(ledger: Ledger, times: int) -> None:
    for _ in range(times):
        claim = taken(ledger)
        with ledger.write() as tx:
            dead_letters.record_death(tx, claim, CONTROL)


def another_succeeds(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.add(verdict("mine", "toy", "other", "fine", tx.now))


def letters(ledger: Ledger) -> list[DeadLetterRow]:
    with ledger.read() as session:
        return list(session.scalars(select(DeadLetterRow)))


def test_two_failures_are_counted(ledger: Ledger) -> None:
    fail(ledger, 2)
    assert letters(ledger) == []
    assert taken(ledger).failures == 2


def test_three_failures_make_a_dead_letter_with_error_and_traceback(ledger: Ledger) -> None:
    fail(ledger, 3)
    (letter,) = letters(ledger)
    assert (letter.subject_kind, letter.subject_id, letter.failures) == ("toy", "t1", 3)
    assert letter.error == "ValueError: bad toy"
    assert "ValueError" in letter.traceback
    with ledger.read() as session:
        assert session.get(ClaimRow, ("mine", "toy", "t1")) is None


@pytest.mark.parametrize("how", ["child", "worker"])
def test_five_deaths_make_a_dead_letter_only_while_others_succeed(ledger: Ledger, how: str) -> None:
    def kill(times: int) -> None:
        if how == "child":
            fail(ledger, times, killed=True)
        else:
            die(ledger, times)

    kill(6)
    assert letters(ledger) == []
    another_succeeds(ledger)
    kill(1)
    (letter,) = letters(ledger)
    assert (letter.kills, letter.failures) == (7, 0)


def test_successes_before_the_first_attempt_do_not_count(ledger: Ledger) -> None:
    another_succeeds(ledger)
    with ledger.write() as tx:
        tx.session.scalars(select(VerdictRow)).one().created_at = tx.now - 1000.0
    die(ledger, 6)
    assert letters(ledger) == []


def test_four_deaths_and_two_failures_make_no_dead_letter(ledger: Ledger) -> None:
    another_succeeds(ledger)
    die(ledger, 4)
    fail(ledger, 2)
    assert letters(ledger) == []


def test_after_the_first_death_the_subject_is_retried_at_once(ledger: Ledger) -> None:
    claim = taken(ledger)
    with ledger.write() as tx:
        dead_letters.record_death(tx, claim, CONTROL)
        assert claims.take(tx, "mine", TOY, "b", 10.0) is not None


def test_an_overdue_claim_is_found(ledger: Ledger) -> None:
    die(ledger, 5)
    claim = taken(ledger)
    with ledger.write() as tx:
        assert not dead_letters.is_over_kill_limit(tx, claim, CONTROL)
    another_succeeds(ledger)
    with ledger.write() as tx:
        assert dead_letters.is_over_kill_limit(tx, claim, CONTROL)
        dead_letters.dead_letter(tx, claim, "enough", "")
    assert [letter.error for letter in letters(ledger)] == ["enough"]


def test_a_retry_gives_a_clean_count_once(ledger: Ledger) -> None:
    fail(ledger, 3)
    (letter,) = letters(ledger)
    with ledger.write() as tx:
        dead_letters.retry(tx, letter.id, "me")
    (letter,) = letters(ledger)
    assert (letter.resolution, letter.resolved_at is not None) == ("retried by me", True)
    assert taken(ledger).failures == 0
    with pytest.raises(PreconditionFailed, match=f"no open dead letter {letter.id}"), ledger.write() as tx:
        dead_letters.retry(tx, letter.id, "me")


@pytest.mark.parametrize(("max_backoff_s", "rest_s"), [(500.0, FIRST_S), (0.2, 0.2)])
def test_the_longest_retry_pause_follows_the_setting(ledger: Ledger, max_backoff_s: float, rest_s: float) -> None:
    settings = ControlSettings(max_backoff_s=max_backoff_s)
    claim = taken(ledger)
    with ledger.write() as tx:
        dead_letters.record_failure(tx, claim, ValueError("bad toy"), False, settings)
        assert tx.session.scalars(select(ClaimRow)).one().not_before_at - tx.now == pytest.approx(rest_s, abs=0.01)


@pytest.mark.parametrize("max_failures", [1, 2])
def test_the_failure_limit_follows_the_setting(ledger: Ledger, max_failures: int) -> None:
    settings = CONTROL.model_copy(update={"max_failures": max_failures})
    claim = taken(ledger)
    with ledger.write() as tx:
        dead_letters.record_failure(tx, claim, ValueError("bad toy"), False, settings)
    assert len(letters(ledger)) == (1 if max_failures == 1 else 0)


@pytest.mark.parametrize("max_kills", [1, 2])
def test_the_death_limit_follows_the_setting(ledger: Ledger, max_kills: int) -> None:
    settings = CONTROL.model_copy(update={"max_kills": max_kills})
    claim = taken(ledger)
    another_succeeds(ledger)
    with ledger.write() as tx:
        dead_letters.record_failure(tx, claim, ValueError("bad toy"), True, settings)
    assert len(letters(ledger)) == (1 if max_kills == 1 else 0)
