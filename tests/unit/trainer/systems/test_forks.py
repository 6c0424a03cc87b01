"""Two branches from one checkpoint, really trained: where they begin, how far they go, and what ends them early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ratchet.ledger import forks
from ratchet.ledger.tables import Batch, Branch, Checkpoint, Fork

TOKENS = 24
"""Put down for each row by the gate."""


def fork(training: Any, *rows: int) -> list[str]:
    """An open fork of two batches of so many rows; their ids."""
    batches = [training.queue(seed, rows=count) for seed, count in zip((11, 12), rows, strict=True)]
    with training.home.ledger.write() as tx:
        for batch_id, count in zip(batches, rows, strict=True):
            tx.session.get_one(Batch, batch_id).tokens = TOKENS * count
        forks.begin(tx, 1, {"mixed": 1.0, "adaptive": 0.5}, 1)
        tx.session.flush()
        for place, batch_id in enumerate(batches):
            forks.give_batch(tx, 1, place, batch_id)
    return batches


def rows_of(training: Any) -> tuple[Fork, list[Branch]]:
    with training.home.ledger.read() as session:
        return session.get_one(Fork, 1), list(forks.branches(session, 1))


def of_batch(training: Any, batch_id: str) -> list[Checkpoint]:
    return [checkpoint for checkpoint in training.checkpoints() if checkpoint.batch_id == batch_id]


def test_two_branches_start_alike_train_alike_and_the_winner_is_gone_on_from(
    start_training: Callable[..., Any],
) -> None:
    training = start_training(retention={"checkpoints_gb": 1e-9, "states": 1})
    training.queue(1, rows=8)
    training.sweep()
    parent = training.checkpoints()[-1]
    batches, after = fork(training, 56, 40), training.queue(2, rows=8)
    training.sweep()
    row, branches = rows_of(training)
    trained = [of_batch(training, batch_id) for batch_id in batches]
    assert row.parent_id == parent.id
    assert [chain[0].parent_id for chain in trained] == [parent.id, parent.id]
    assert [chain[1].parent_id for chain in trained] == [chain[0].id for chain in trained]
    assert [branch.tip_id for branch in branches] == [chain[-1].id for chain in trained]
    first, second = (spec for spec in training.children.specs[1:] if spec["offset"] == 0)
    assert first["model"]["path"] == second["model"]["path"]
    assert first["state"] == second["state"] is not None
    is_as_long(training, parent, trained, 40 * TOKENS)
    is_kept(training, [parent.id, *(str(branch.tip_id) for branch in branches)])
    assert [training.batch(id).state for id in (*batches, after)] == ["trained", "trained", "queued"]
    with training.home.ledger.write() as tx:
        forks.decide(tx, forks.at_rest(tx, 1), 0, {}, "")
    training.sweep()
    (next_one,) = of_batch(training, after)
    assert next_one.parent_id == branches[0].tip_id
    assert training.children.specs[-1]["max_tokens"] is None
    assert training.children.specs[-1]["state"] is not None


def is_as_long(training: Any, parent: Checkpoint, trained: list[list[Checkpoint]], budget: int) -> None:
    """Both branches took as many tokens, as the gate counts them, within one row."""
    longest_row, first_of_a_row = 40, 1  # a row's first token is predicted by nothing: a checkpoint does not count it
    spent = [chain[-1].tokens - parent.tokens + first_of_a_row * chain[-1].offset for chain in trained]
    assert all(budget - longest_row < tokens <= budget for tokens in spent)
    assert {spec["max_tokens"] for spec in training.children.specs[1:]} == {budget}


def is_kept(training: Any, wanted: list[str]) -> None:
    """Whatever the limits of retention are, with its state."""
    saved = [checkpoint for checkpoint in training.checkpoints() if checkpoint.state == "saved"]
    assert {c.id: c.state_artifact is not None for c in saved} == dict.fromkeys(wanted, True)


def test_a_diverging_branch_is_left_for_the_other_and_not_for_the_champion(training: Any) -> None:
    first, second = fork(training, 8, 8)
    training.children.poison = training.batch(second).artifact
    training.sweep()
    row, branches = rows_of(training)
    assert (row.state, row.winner) == ("abandoned", 0)
    assert (training.batch(first).state, training.batch(second).state) == ("trained", "quarantined")
    assert training.line().head_id == branches[0].tip_id
    assert not training.line().fresh_optimizer


def test_where_the_first_branch_diverges_the_second_batch_is_trained_from_the_parent(training: Any) -> None:
    first, second = fork(training, 8, 8)
    training.children.poison = training.batch(first).artifact
    training.sweep()
    assert (rows_of(training)[0].state, training.batch(first).state) == ("abandoned", "quarantined")
    assert [c.parent_id for c in of_batch(training, second)] == [training.home.base_id()]


def made_up(training: Any, batch_id: str) -> str:
    """A branch's checkpoint, as if it had been trained."""
    with training.home.ledger.write() as tx:
        forks.enter(tx, batch_id)
        tx.session.get_one(Batch, batch_id).started_at = tx.now
    checkpoint = training.home.add_checkpoint(batch_id)
    with training.home.ledger.write() as tx:
        forks.complete(tx, batch_id)
        tx.session.get_one(Batch, batch_id).state = "trained"
    return str(checkpoint)


def test_a_broken_checkpoint_sends_the_line_to_the_other_branch(training: Any) -> None:
    first, second = (made_up(training, batch_id) for batch_id in fork(training, 8, 8))
    break_(training, second)
    heard = training.sweep()
    assert training.line().head_id == first
    assert training.home.verdicts("training")[second] == "rewound"
    assert "fork.closed" in heard
    states = [training.batch(str(branch.batch_id)).state for branch in rows_of(training)[1]]
    assert states == ["trained", "quarantined"]


def test_a_broken_checkpoint_of_the_branch_that_was_left_is_for_the_curriculum_to_answer(training: Any) -> None:
    first, second = (made_up(training, batch_id) for batch_id in fork(training, 8, 8))
    break_(training, first)
    training.sweep()
    assert training.home.verdicts("training")[first] == "left behind"
    assert (training.line().head_id, rows_of(training)[0].state) == (second, "open")


def test_a_broken_parent_ends_the_fork_and_the_line_goes_back_to_the_champion(training: Any) -> None:
    parent = training.home.add_checkpoint()
    for batch_id in fork(training, 8, 8):
        made_up(training, batch_id)
    break_(training, parent)
    training.sweep()
    assert rows_of(training)[0].state == "abandoned"
    assert training.line().head_id == training.home.base_id()
    assert training.line().fresh_optimizer


def break_(training: Any, checkpoint_id: str) -> None:
    with training.home.ledger.write() as tx:
        tx.session.get_one(Checkpoint, checkpoint_id).state = "broken"
