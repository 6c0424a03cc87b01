from __future__ import annotations

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.paired_outcomes import CellOutcomes
from ratchet.gate.decision import conclude, weigh
from ratchet.ledger import Ledger
from ratchet.ledger.suites import current
from ratchet.ledger.tables import ChallengeRow, CheckpointRow
from ratchet.settings.judging import GateSettings
from ratchet.views.gate_verdict import gate_verdict
from sqlalchemy import delete

from tests.support.story.past import checkpoint_id

SETTINGS = GateSettings()


def challenge(ledger: Ledger, ordinal: int, gains: int, losses: int, outcome: str | None = "promote") -> None:
    """A challenge of #0 that ended so, in place of all that the story tells."""
    evidence = weigh(
        (CellOutcomes(family="chain_sum", level=1, n=400, gains=gains, losses=losses),),
        champion=checkpoint_id(0),
        challenger=checkpoint_id(ordinal),
        k=1,
        mastered={},
        settings=SETTINGS,
        smoke_passed=True,
    )
    with ledger.write() as tx:
        tx.session.execute(delete(ChallengeRow))
        tx.session.add(
            ChallengeRow(
                champion_id=checkpoint_id(0),
                challenger_id=checkpoint_id(ordinal),
                k=1,
                suite_id=current(tx.session, "confirm").id,
                outcome=outcome,
                numbers=conclude(evidence).model_dump(mode="json") if outcome else {},
                created_at=tx.now,
            )
        )


@pytest.mark.parametrize(
    ("gains", "losses", "answer", "code"), [(60, 20, "better", 0), (3, 2, "not better", 1), (20, 60, "worse", 2)]
)
def test_the_gates_decision_is_a_verdict_with_its_exit_code(
    ledger: Ledger, gains: int, losses: int, answer: str, code: int
) -> None:
    challenge(ledger, 2, gains, losses)
    with ledger.read() as session:
        found = gate_verdict(session, session.get_one(CheckpointRow, checkpoint_id(2)), SETTINGS)
    assert (found.verdict, found.exit_code) == (answer, code)
    assert (found.candidate, found.base) == (checkpoint_id(2), checkpoint_id(0))
    assert found.targets[0].gains == gains


@pytest.mark.parametrize("outcome", [None, "superseded"])
def test_without_a_decision_there_is_no_verdict(ledger: Ledger, outcome: str | None) -> None:
    challenge(ledger, 2, 60, 20, outcome=None)
    with ledger.write() as tx:
        tx.session.query(ChallengeRow).one().outcome = outcome
    with (
        ledger.read() as session,
        pytest.raises(PreconditionFailed, match="#2 was never tested by the gate; `ratchet why 2`"),
    ):
        gate_verdict(session, session.get_one(CheckpointRow, checkpoint_id(2)), SETTINGS)
