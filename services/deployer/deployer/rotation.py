"""Rotation of the confirm suite: every use leaks a little of it, so after its budget fresh items take its place."""

from __future__ import annotations

from ratchet.evaluation.build_suites import rotate_confirm
from ratchet.evaluation.load_evaluation import load_suite, suite_row
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import champion
from ratchet.ledger.suites import current
from ratchet.ledger.tables import ChallengeRow, SuiteRow
from ratchet.systems import Work
from sqlalchemy import select


def rotate_if_worn(work: Work) -> None:
    """Retire a confirm suite that has had ``suites.confirm_uses`` challenges, and publish the next version.

    The subject's own challenge, if it is under way, keeps its suite; another that was left open meets the fresh one.
    Suites of a user's own rows alone cannot be drawn anew, and stay.
    """
    suites = work.settings.suites
    with work.read() as session:
        worn = current(session, "confirm")
        in_use = session.scalar(
            select(ChallengeRow.id).where(
                ChallengeRow.suite_id == worn.id,
                ChallengeRow.champion_id == champion(session).id,
                ChallengeRow.challenger_id == work.subject.id,
                ChallengeRow.outcome.is_(None),
            )
        )
    if worn.uses < suites.confirm_uses or in_use is not None or not suites.families:
        return
    fresh = rotate_confirm(suites, load_suite(work.artifacts, worn))
    artifact = work.artifacts.publish_lines(fresh.to_lines(), "suite", {"pool": fresh.pool, "suite": fresh.id})

    def effects(tx: Transaction) -> None:
        tx.session.get_one(SuiteRow, worn.id).retired_at = tx.now
        tx.session.add(suite_row(fresh, artifact.id, tx.now))

    work.commit(effects)
