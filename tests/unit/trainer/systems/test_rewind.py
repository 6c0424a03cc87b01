"""Going back to the champion: what is quarantined, what stays, and where training goes on."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.ledger.tables import CheckpointRow, RegressionRow


def break_(training: Any, checkpoint_id: str) -> None:
    with training.home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, checkpoint_id).state = "broken"


def regress(training: Any, checkpoint_id: str, severity: str = "critical") -> None:
    with training.home.ledger.write() as tx:
        tx.session.add(
            RegressionRow(
                checkpoint_id=checkpoint_id, baseline_id=None, severity=severity, numbers={}, created_at=tx.now
            )
        )


@pytest.mark.parametrize("go_bad", [break_, regress])
def test_the_line_goes_back_to_the_champion_and_the_batches_since_to_quarantine(training: Any, go_bad: Any) -> None:
    kept = training.queue(1)
    training.sweep()
    champion = training.checkpoints()[-1].id
    training.make_champion(champion)
    since = [training.queue(2), training.queue(3)]
    training.sweep()
    go_bad(training, training.checkpoints()[2].id)
    heard = training.sweep()
    assert heard == ["training.failed", "training.failed", "queue.low"]
    assert training.line().head_id == champion
    assert training.line().fresh_optimizer
    assert [training.batch(id).state for id in since] == ["quarantined", "quarantined"]
    assert training.batch(kept).state == "trained"


def test_training_goes_on_from_the_champion_with_a_fresh_optimizer_once(training: Any) -> None:
    training.queue(1)
    training.sweep()
    break_(training, training.checkpoints()[0].id)
    training.sweep()
    training.queue(2)
    training.sweep()
    begun = training.children.specs[2:]
    assert [spec.config.output.resume_from is None for spec in begun] == [True, False]
    assert [spec.config.data.offset for spec in begun] == [0, 32]
    assert training.checkpoints()[2].parent_id == training.home.base_id()
    assert not training.line().fresh_optimizer


def test_one_rewind_answers_all_bad_checkpoints_of_the_line_left(training: Any) -> None:
    training.queue(1)
    training.sweep()
    first, second = (checkpoint.id for checkpoint in training.checkpoints())
    break_(training, first)
    regress(training, second)
    training.sweep()
    verdicts = training.home.verdicts("training")
    assert {verdicts[first], verdicts[second]} == {"rewound", "left behind"}
    assert training.line().head_id == training.home.base_id()


def test_a_warning_is_no_reason_to_rewind(training: Any) -> None:
    training.queue(1)
    training.sweep()
    regress(training, training.checkpoints()[-1].id, "warning")
    training.sweep()
    assert training.line().head_id == training.checkpoints()[-1].id


def test_a_champion_that_regressed_itself_is_not_rewound_to(training: Any) -> None:
    batch_id = training.queue(1)
    training.sweep()
    champion = training.checkpoints()[-1].id
    training.make_champion(champion)
    regress(training, champion)
    training.sweep()
    assert training.home.verdicts("training")[champion] == "left behind"
    assert training.batch(batch_id).state == "trained"


def test_a_rewind_does_not_wait_for_the_end_of_the_batch(training: Any) -> None:
    training.queue(1)
    training.sweep()
    bad = training.checkpoints()[-1].id
    running, after = training.queue(2), training.queue(3)

    class Breaking(list[Any]):
        def append(self, spec: Any) -> None:
            super().append(spec)
            if len(self) == 3:
                break_(training, bad)

    training.children.specs = Breaking(training.children.specs)
    training.sweep()
    assert training.batch(running).state == "quarantined"
    assert training.home.verdicts("training")[bad] == "rewound"
    assert training.batch(after).state == "trained"
    assert training.checkpoints()[3].parent_id == training.home.base_id()


def test_with_a_champion_of_another_branch_all_since_the_fork_is_quarantined(training: Any) -> None:
    kept = training.queue(1)
    training.sweep()
    fork = training.checkpoints()[-1].id
    one = training.queue(2)
    training.sweep()
    left = training.checkpoints()[-1].id
    training.make_champion(fork)
    break_(training, left)
    training.sweep()
    other = training.queue(3)
    training.sweep()
    training.make_champion(left)
    break_(training, training.checkpoints()[-1].id)
    training.sweep()
    assert training.line().head_id == left
    assert training.batch(other).state == "quarantined"
    assert (training.batch(kept).state, training.batch(one).state) == ("trained", "quarantined")


def test_a_poisonous_batch_is_quarantined_and_the_line_is_back_at_the_champion(training: Any) -> None:
    good = training.queue(1)
    training.sweep()
    champion = training.checkpoints()[-1].id
    training.make_champion(champion)
    poison = training.queue(2)
    training.children.poison = training.batch(poison).artifact
    after = training.queue(3)
    heard = training.sweep()
    assert heard[:3] == ["training.started", "queue.low", "training.failed"]
    assert training.home.verdicts("training") == {good: "trained", poison: "quarantined", after: "trained"}
    assert training.batch(poison).state == "quarantined"
    assert training.checkpoints()[2].parent_id == champion
    assert training.children.specs[-2].config.output.resume_from is None
    assert training.home.dead() == []
