"""Claims and their fencing tokens, the claims a worker holds, and the heartbeat that renews one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import ClaimLost
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import ClaimRow
from ratchet.settings.control import ControlSettings
from ratchet.systems import claims
from ratchet.systems.claims import Claim, Heartbeat, HeldClaims, Pulse, Subject
from ratchet.watchdog import Watchdog
from sqlalchemy import select

from tests.support.workers import wait_until

TOY = Subject("toy", "t1")
LONG_S, OVER_S = 1000.0, -1.0


def take(ledger: Ledger, owner: str = "a", lease_s: float = LONG_S) -> Claim | None:
    with ledger.write() as tx:
        return claims.take(tx, "mine", TOY, owner, lease_s)


def taken(ledger: Ledger, owner: str = "a", lease_s: float = LONG_S) -> Claim:
    claim = take(ledger, owner, lease_s)
    assert claim is not None
    return claim


def row(ledger: Ledger) -> ClaimRow | None:
    with ledger.read() as session:
        return session.get(ClaimRow, ("mine", "toy", "t1"))


def test_a_claimed_subject_cannot_be_claimed_again(ledger: Ledger) -> None:
    taken(ledger)
    assert take(ledger, "b") is None
    assert take(ledger, "a") is None


def test_an_expired_lease_is_taken_over_without_counting_as_a_failure(ledger: Ledger) -> None:
    first = taken(ledger, "a", OVER_S)
    second = taken(ledger, "b")
    assert second.token > first.token
    assert (second.kills, second.failures) == (0, 0)


def test_a_stale_token_can_neither_renew_release_nor_commit(ledger: Ledger) -> None:
    stale = taken(ledger, "a", OVER_S)
    fresh = taken(ledger, "b")
    for late in (
        lambda tx: claims.renew(tx, stale, LONG_S, 1, "late"),
        lambda tx: claims.finish(tx, stale),
        lambda tx: claims.release(tx, stale),
        lambda tx: claims.count_failure(tx, stale, 0.0),
        lambda tx: claims.count_kill(tx, stale, 0.0),
    ):
        with pytest.raises(ClaimLost, match="stale"), ledger.write() as tx:
            late(tx)
    found = row(ledger)
    assert found is not None
    assert (found.owner, found.token, found.failures, found.kills) == ("b", fresh.token, 0, 0)


def test_a_token_is_stale_even_for_the_same_owner(ledger: Ledger) -> None:
    stale = taken(ledger, "a", OVER_S)
    taken(ledger, "a")
    with pytest.raises(ClaimLost), ledger.write() as tx:
        claims.finish(tx, stale)


def test_renewal_extends_the_lease_and_notes_the_progress(ledger: Ledger) -> None:
    claim = taken(ledger, "a", OVER_S)
    with ledger.write() as tx:
        claims.renew(tx, claim, LONG_S, 7, "at seven")
    assert take(ledger, "b") is None
    found = row(ledger)
    assert found is not None
    assert (found.progress, found.note) == (7, "at seven")


def test_a_released_claim_is_free_and_leaves_no_trace(ledger: Ledger) -> None:
    claim = taken(ledger)
    with ledger.write() as tx:
        claims.release(tx, claim)
    assert row(ledger) is None
    assert take(ledger, "b") is not None


def test_a_released_claim_keeps_its_failure_count(ledger: Ledger) -> None:
    claim = taken(ledger)
    with ledger.write() as tx:
        claims.count_failure(tx, claim, rest_s=OVER_S)
    again = taken(ledger)
    with ledger.write() as tx:
        claims.release(tx, again)
    assert taken(ledger).failures == 1


def test_a_failed_subject_is_tried_again_after_a_pause(ledger: Ledger) -> None:
    claim = taken(ledger)
    with ledger.write() as tx:
        claims.count_failure(tx, claim, rest_s=LONG_S)
    assert take(ledger, "b") is None


def test_a_successor_inherits_only_the_claims_of_its_name(ledger: Ledger) -> None:
    claim = taken(ledger, "a")
    with ledger.write() as tx:
        claims.take(tx, "mine", Subject("toy", "t2"), "b", LONG_S)
    with ledger.read() as session:
        assert claims.inherited(session, "a") == [claim]
        assert claims.inherited(session, "c") == []


def test_the_next_claim_due_is_the_first_to_expire_or_to_end_its_pause(ledger: Ledger) -> None:
    with ledger.read() as session:
        assert claims.next_due_at(session, "mine") is None
    claim = taken(ledger, "a", 500.0)
    with ledger.write() as tx:
        claims.take(tx, "mine", Subject("toy", "t2"), "a", LONG_S)
        claims.take(tx, "theirs", Subject("toy", "t3"), "a", OVER_S)
        now = tx.now
    with ledger.read() as session:
        assert claims.next_due_at(session, "mine") == pytest.approx(now + 500.0, abs=5.0)
    with ledger.write() as tx:
        claims.count_failure(tx, claim, rest_s=100.0)
    with ledger.read() as session:
        assert claims.next_due_at(session, "mine") == pytest.approx(now + 100.0, abs=5.0)


def test_tokens_only_grow_over_all_systems(ledger: Ledger, tmp_path: Path) -> None:
    tokens = []
    for number in range(5):
        with ledger.write() as tx:
            claim = claims.take(tx, f"system-{number % 2}", Subject("toy", str(number)), "a", LONG_S)
            assert claim is not None
            tokens.append(claim.token)
            claims.finish(tx, claim)
    assert tokens == sorted(set(tokens))


def claimed(ledger: Ledger, subject_id: str) -> Claim:
    with ledger.write() as tx:
        claim = claims.take(tx, "mine", Subject("toy", subject_id), "a", 1000.0)
    assert claim is not None
    return claim


def held(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return list(session.scalars(select(ClaimRow.subject_id).order_by(ClaimRow.subject_id)))


def test_release_all_releases_only_held_claims(ledger: Ledger) -> None:
    held_claims = HeldClaims(ledger)
    for subject_id in ("a", "b", "c"):
        held_claims.add(claimed(ledger, subject_id))
    done = claimed(ledger, "d")
    held_claims.add(done)
    held_claims.drop(done)
    held_claims.release_all()
    assert held(ledger) == ["d"]


def test_a_claim_taken_over_by_another_is_not_released(ledger: Ledger) -> None:
    held_claims = HeldClaims(ledger)
    claim = claimed(ledger, "a")
    with ledger.write() as tx:
        claims.require(tx, claim).expires_at = 0.0
    with ledger.write() as tx:
        assert claims.take(tx, "mine", claim.subject, "b", 1000.0)
    held_claims.release(claim)
    held_claims.retry_releases()
    assert held(ledger) == ["a"]


def test_a_claim_is_released_later_while_the_ledger_is_away(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    locker, impatient = Ledger(url), Ledger(f"{url}?timeout=0.05")
    migrate(locker)
    held_claims, claim = HeldClaims(impatient), claimed(impatient, "a")
    held_claims.add(claim)
    with locker.write():
        held_claims.release(claim)
    assert held(locker) == ["a"]
    held_claims.retry_releases()
    assert held(locker) == []
    locker.close()
    impatient.close()


OFTEN = ControlSettings(lease_s=0.06)


class Failing:
    """A ledger that fails in a given way."""

    def __init__(self, error: Exception):
        self._error = error

    def write(self) -> Any:
        raise self._error


def beating(error: Exception, watchdog: Watchdog, pulse: Pulse) -> Heartbeat:
    ledger: Any = Failing(error)
    return Heartbeat(ledger, Claim("toys", Subject("toy", "a"), "toys@here+0", 7, 0, 0), pulse, OFTEN, watchdog)


def test_an_unexpected_error_of_the_keeper_is_a_problem() -> None:
    watchdog = Watchdog()
    with beating(ValueError("not as expected"), watchdog, Pulse()):
        wait_until(lambda: watchdog.problem is not None)
        assert watchdog.problem == "thread heartbeat-7 has ended unexpectedly"


def test_a_lost_claim_ends_the_keeper_without_a_problem() -> None:
    watchdog, pulse = Watchdog(), Pulse()
    with beating(ClaimLost("another has it"), watchdog, pulse):
        wait_until(lambda: pulse.lost)
    assert watchdog.check() is None


HOUR_S = 3600.0


def written_an_hour_ahead(ledger: Ledger) -> None:
    """As a row that was written before the clock was set back by an hour."""
    with ledger.write() as tx:
        for found in tx.session.scalars(select(ClaimRow)):
            for column in ("claimed_at", "heartbeat_at", "expires_at", "not_before_at"):
                setattr(found, column, getattr(found, column) + HOUR_S)


def test_a_dead_owner_holds_its_claim_no_longer_where_the_clock_is_set_back(ledger: Ledger) -> None:
    taken(ledger, "dead", lease_s=0.0)
    written_an_hour_ahead(ledger)
    assert take(ledger, "b") is None
    claims.follow_clock(ledger, "another system")
    assert take(ledger, "b") is None
    claims.follow_clock(ledger, "mine")
    assert take(ledger, "b") is not None


def test_what_is_left_of_a_lease_or_a_pause_stays_where_the_clock_is_set_back(ledger: Ledger) -> None:
    claim = taken(ledger, "living", lease_s=60.0)
    written_an_hour_ahead(ledger)
    claims.follow_clock(ledger, "mine")
    found = row(ledger)
    assert found is not None
    assert 50.0 < found.expires_at - ledger.now() <= 60.0
    with ledger.write() as tx:
        claims.postpone(tx, claim, 30.0)
    written_an_hour_ahead(ledger)
    claims.follow_clock(ledger, "mine")
    found = row(ledger)
    assert found is not None
    assert 20.0 < found.not_before_at - ledger.now() <= 30.0
