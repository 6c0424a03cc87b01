"""Why a checkpoint is or is not live: what the deployment of one waits for."""

from __future__ import annotations

from ratchet.ledger import Ledger
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, SuiteRow, VerdictRow
from ratchet.systems import registry
from ratchet.views.verdicts import explain
from sqlalchemy import delete

from tests.support.rows import verdict


def waits_for(ledger: Ledger, ordinal: int) -> dict[str, str]:
    with ledger.read() as session:
        row = session.query(CheckpointRow).filter_by(ordinal=ordinal).one()
        return {str(entry["who"]): str(entry["reason"]) for entry in explain(session, row)["waits_for"]}


def test_a_challenge_that_runs_is_what_its_deployment_waits_for(ledger: Ledger) -> None:
    with ledger.write() as tx:
        champion = tx.session.get_one(CheckpointRow, serving(tx.session).desired_id)
        rival = (
            tx.session.query(CheckpointRow).filter(CheckpointRow.id != champion.id, CheckpointRow.ordinal > 0).first()
        )
        assert rival is not None
        rival.state, number, live = "saved", rival.ordinal, champion.ordinal
        for table, column in ((VerdictRow, VerdictRow.subject_id), (ChallengeRow, ChallengeRow.challenger_id)):
            tx.session.execute(delete(table).where(column == rival.id))
        for system in ("testing", *registry.judges(tx.session)):
            tx.session.add(verdict(system, "checkpoint", rival.id, "cleared"))
    assert "waits for a better-ranked checkpoint, or for its own challenge" in waits_for(ledger, number)["deployment"]
    with ledger.write() as tx:
        ids = {row.ordinal: row.id for row in tx.session.query(CheckpointRow)}
        suite = tx.session.query(SuiteRow).first()
        assert suite is not None
        pair = {"champion_id": ids[live], "challenger_id": ids[number], "suite_id": suite.id}
        tx.session.add(ChallengeRow(**pair, k=7, outcome=None, numbers={}, created_at=1.0))
    assert waits_for(ledger, number)["deployment"] == f"it is in challenge 7 of #{live}, tested on the confirm suite"
