from __future__ import annotations

from pathlib import Path

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import ClaimRow
from ratchet.systems import claims
from ratchet.systems.claims import Claim, HeldClaims, Subject
from sqlalchemy import select


def taken(ledger: Ledger, subject_id: str) -> Claim:
    with ledger.write() as tx:
        claim = claims.take(tx, "mine", Subject("toy", subject_id), "a", 1000.0)
    assert claim is not None
    return claim


def held(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return list(session.scalars(select(ClaimRow.subject_id).order_by(ClaimRow.subject_id)))


def test_release_all_releases_what_is_held_and_only_that(ledger: Ledger) -> None:
    held_claims = HeldClaims(ledger)
    for subject_id in ("a", "b", "c"):
        held_claims.add(taken(ledger, subject_id))
    done = taken(ledger, "d")
    held_claims.add(done)
    held_claims.drop(done)
    held_claims.release_all()
    assert held(ledger) == ["d"]


def test_what_another_has_taken_over_is_not_released(ledger: Ledger) -> None:
    held_claims = HeldClaims(ledger)
    claim = taken(ledger, "a")
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
    held_claims, claim = HeldClaims(impatient), taken(impatient, "a")
    held_claims.add(claim)
    with locker.write():
        held_claims.release(claim)
    assert held(locker) == ["a"]
    held_claims.retry_releases()
    assert held(locker) == []
    locker.close()
    impatient.close()
