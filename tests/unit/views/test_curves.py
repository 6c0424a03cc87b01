"""Learning curves: what they hold of checkpoints whose loss is not a number."""

from __future__ import annotations

from pathlib import Path

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import CheckpointRow
from ratchet.views.curves import learning_curves
from sqlalchemy import select

from tests.support.synthetic_ledger import build


def test_a_diverged_loss_is_left_out_of_the_curve(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    build(ledger, None)
    with ledger.read() as session:
        before = learning_curves(session, "train_loss")
    with ledger.write() as tx:
        diverged = tx.session.scalars(select(CheckpointRow).where(CheckpointRow.step == before.steps[3])).one()
        diverged.train_loss = float("inf")
    with ledger.read() as session:
        after = learning_curves(session, "train_loss")
    ledger.close()
    assert [*after.steps] == [step for step in before.steps if step != before.steps[3]]
    assert [*after.series["training"]] == [*before.series["training"][:3], *before.series["training"][4:]]
