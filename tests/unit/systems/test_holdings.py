from __future__ import annotations

from pathlib import Path

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import ClaimRow
from ratchet.systems import claims
from ratchet.systems.claims import Claim
from ratchet.systems.holdings import HeldClaims
from ratchet.systems.verdict import Subject
from sqlalchemy import select


def taken(ledger: Ledger, subject_id: str) -> Claim:
    with ledger.write() as tx:
        claim = claims.take(tx, "mine", Subject("toy", subject_id), "a", 1000.0)
    assert claim is not None
    return claim


def held(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return list(session.scalars(select(ClaimRow.subject_id).order_by(ClaimRow.subject_id)))


def test_abandoning_gives_back_what_is_in_hand_and_only_that(ledger: Ledger) -> None:
    holdings = HeldClaims(ledger)
    for subject_id in ("a", "b", "c"):
        holdings.add(taken(ledger, subject_id))
    done = taken(ledger, "d")
    holdings.add(done)
    holdings.settle(done)
    holdings.abandon()
    assert held(ledger) == ["d"]


def test_what_another_has_taken_over_is_not_given_back(ledger: Ledger) -> None:
    holdings = HeldClaims(ledger)
    claim = taken(ledger, "a")
    with ledger.write() as tx:
        claims.require(tx, claim).expires_at = 0.0
    with ledger.write() as tx:
        assert claims.take(tx, "mine", claim.subject, "b", 1000.0)
    holdings.give_back(claim)
    holdings.release_due()
    assert held(ledger) == ["a"]


def test_a_claim_is_owed_while_the_ledger_is_away_and_paid_back_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    locker, impatient = Ledger(url), Ledger(f"{url}?timeout=0.05")
    migrate(locker)
    holdings, claim = HeldClaims(impatient), taken(impatient, "a")
    holdings.add(claim)
    with locker.write():
        holdings.give_back(claim)
    assert held(locker) == ["a"]
    holdings.release_due()
    assert held(locker) == []
    locker.close()
    impatient.close()
