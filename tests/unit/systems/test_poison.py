from __future__ import annotations

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.tables import ClaimRow, DeadLetterRow, VerdictRow
from ratchet.settings.control import ControlSettings
from ratchet.systems import claims, poison
from ratchet.systems.claims import Claim
from ratchet.systems.verdict import Subject
from sqlalchemy import select

from tests.support.rows import verdict

CONTROL = ControlSettings(backoff_first_s=0.001, backoff_last_s=0.001, poison_failures=3, poison_kills=5)
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
            poison.count(tx, claim, ValueError("bad toy"), killed, CONTROL)


def die(ledger: Ledger, times: int) -> None:
    for _ in range(times):
        claim = taken(ledger)
        with ledger.write() as tx:
            poison.count_death(tx, claim, CONTROL)


def another_succeeds(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.add(verdict("mine", "toy", "other", "fine", tx.now))


def letters(ledger: Ledger) -> list[DeadLetterRow]:
    with ledger.read() as session:
        return list(session.scalars(select(DeadLetterRow)))


def test_two_failures_are_remembered(ledger: Ledger) -> None:
    fail(ledger, 2)
    assert letters(ledger) == []
    assert taken(ledger).failures == 2


def test_three_failures_are_poison_with_error_and_traceback(ledger: Ledger) -> None:
    fail(ledger, 3)
    (letter,) = letters(ledger)
    assert (letter.subject_kind, letter.subject_id, letter.failures) == ("toy", "t1", 3)
    assert letter.error == "ValueError: bad toy"
    assert "ValueError" in letter.traceback
    with ledger.read() as session:
        assert session.get(ClaimRow, ("mine", "toy", "t1")) is None


@pytest.mark.parametrize("how", ["child", "worker"])
def test_five_deaths_are_poison_only_while_others_succeed(ledger: Ledger, how: str) -> None:
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


def test_success_of_others_before_the_first_try_proves_nothing(ledger: Ledger) -> None:
    another_succeeds(ledger)
    with ledger.write() as tx:
        tx.session.scalars(select(VerdictRow)).one().created_at = tx.now - 1000.0
    die(ledger, 6)
    assert letters(ledger) == []


def test_four_deaths_and_two_failures_are_not_poison(ledger: Ledger) -> None:
    another_succeeds(ledger)
    die(ledger, 4)
    fail(ledger, 2)
    assert letters(ledger) == []


def test_the_first_death_lets_the_subject_be_tried_again_at_once(ledger: Ledger) -> None:
    claim = taken(ledger)
    with ledger.write() as tx:
        poison.count_death(tx, claim, CONTROL)
        assert claims.take(tx, "mine", TOY, "b", 10.0) is not None


def test_a_claimed_subject_that_is_overdue_is_known(ledger: Ledger) -> None:
    die(ledger, 5)
    claim = taken(ledger)
    with ledger.write() as tx:
        assert not poison.overdue(tx, claim, CONTROL)
    another_succeeds(ledger)
    with ledger.write() as tx:
        assert poison.overdue(tx, claim, CONTROL)
        poison.bury(tx, claim, "enough", "")
    assert [letter.error for letter in letters(ledger)] == ["enough"]


def test_a_retry_gives_a_clean_count_once(ledger: Ledger) -> None:
    fail(ledger, 3)
    (letter,) = letters(ledger)
    with ledger.write() as tx:
        poison.retry(tx, letter.id, "me")
    (letter,) = letters(ledger)
    assert (letter.resolution, letter.resolved_at is not None) == ("retried by me", True)
    assert taken(ledger).failures == 0
    with pytest.raises(PreconditionFailed, match=f"no open dead letter {letter.id}"), ledger.write() as tx:
        poison.retry(tx, letter.id, "me")


@pytest.mark.parametrize(("backoff_first_s", "backoff_last_s", "rest_s"), [(40.0, 500.0, 40.0), (40.0, 7.0, 7.0)])
def test_how_long_a_failed_subject_rests_is_set(
    ledger: Ledger, backoff_first_s: float, backoff_last_s: float, rest_s: float
) -> None:
    settings = ControlSettings(backoff_first_s=backoff_first_s, backoff_last_s=backoff_last_s)
    claim = taken(ledger)
    with ledger.write() as tx:
        poison.count(tx, claim, ValueError("bad toy"), False, settings)
        assert tx.session.scalars(select(ClaimRow)).one().not_before_at - tx.now == pytest.approx(rest_s, abs=0.01)


@pytest.mark.parametrize("poison_failures", [1, 2])
def test_after_how_many_failures_a_subject_is_given_up_is_set(ledger: Ledger, poison_failures: int) -> None:
    settings = CONTROL.model_copy(update={"poison_failures": poison_failures})
    claim = taken(ledger)
    with ledger.write() as tx:
        poison.count(tx, claim, ValueError("bad toy"), False, settings)
    assert len(letters(ledger)) == (1 if poison_failures == 1 else 0)


@pytest.mark.parametrize("poison_kills", [1, 2])
def test_after_how_many_deaths_a_subject_is_given_up_is_set(ledger: Ledger, poison_kills: int) -> None:
    settings = CONTROL.model_copy(update={"poison_kills": poison_kills})
    claim = taken(ledger)
    another_succeeds(ledger)
    with ledger.write() as tx:
        poison.count(tx, claim, ValueError("bad toy"), True, settings)
    assert len(letters(ledger)) == (1 if poison_kills == 1 else 0)
