"""Training wired to a real ledger and a real model: batches, segments, checkpoints, resuming, pausing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ratchet.errors import Stopping
from ratchet.inference.tiny import VOCABULARY_SIZE
from ratchet.ledger import operator_actions
from ratchet.ledger.queue import depth
from ratchet.ledger.tables import VerdictRow
from ratchet.systems import Work
from ratchet.systems.system import Lane, System
from ratchet.systems.work import Outcome
from trainer.systems.training import SYSTEM as TRAINING

from tests.support.examples import sums

STEP = 8
SEGMENT = 4 * STEP


def test_a_batch_is_trained_in_segments_each_a_checkpoint_on_the_last(training: Any) -> None:
    batch_id = training.queue(1)
    heard = training.sweep()
    first, second = training.checkpoints()
    assert heard == [
        "training.started",
        "checkpoint.saved",
        "checkpoint.saved",
        "queue.low",
        "training.finished",
    ]
    assert (first.parent_id, second.parent_id) == (training.home.base_id(), first.id)
    assert [(c.batch_id, c.offset, c.step) for c in (first, second)] == [
        (batch_id, SEGMENT, 4),
        (batch_id, 2 * SEGMENT, 8),
    ]
    assert first.weights != second.weights
    assert first.tokens < second.tokens
    batch = training.batch(batch_id)
    assert (batch.state, batch.offset) == ("trained", 64)
    assert training.line().head_id == second.id
    assert training.line().running_batch_id is None
    assert training.home.verdicts("training") == {batch_id: "trained"}


def test_published_checkpoints_are_complete(training: Any) -> None:
    training.queue(1)
    training.sweep()
    for checkpoint in training.checkpoints():
        files = [path.name for path in training.home.artifacts.fetch(checkpoint.artifact).iterdir()]
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(files)
        assert not [name for name in files if "optimizer" in name or name.endswith((".pt", ".bin"))]
        assert training.home.artifacts.fetch(checkpoint.state_artifact).is_dir()


def test_each_segment_starts_from_the_state_of_the_last_across_batches(training: Any) -> None:
    training.queue(1)
    training.queue(2)
    training.sweep()
    states = [spec.config.output.resume_from for spec in training.children.specs]
    saved = [training.home.artifacts.fetch(c.state_artifact) for c in training.checkpoints()[-2:]]
    assert states[0] is None
    assert all(states[1:])
    assert states[3] == saved[0]
    assert [c.step for c in training.checkpoints()] == [4, 8, 12, 16]


def test_a_segment_killed_in_the_middle_is_repeated_and_ends_in_the_same_weights(
    training: Any, start_training: Callable[..., Any], tmp_path: Any
) -> None:
    training.queue(1)
    training.sweep()
    whole = [c.weights for c in training.checkpoints()]
    again = start_training(home=tmp_path / "again")
    batch_id = again.queue(1)
    again.children.dies_at = 2
    again.sweep()
    assert again.batch(batch_id).state == "training"
    assert again.batch(batch_id).offset == SEGMENT
    again.sweep()
    assert [c.weights for c in again.checkpoints()] == whole
    assert again.home.verdicts("training") == {batch_id: "trained"}
    assert again.home.dead() == []


def interrupted(after: int) -> System:
    """Training that is stopped once, when the work is done but has no verdict yet."""
    (lane,) = TRAINING.lanes
    done = []

    def do(work: Work) -> Outcome:
        outcome = lane.do(work)
        done.append(outcome)
        if len(done) == after:
            raise Stopping("killed between record and verdict")
        return outcome

    return System("training", "4090", "", TRAINING.emits, 1.0, (Lane("train", (), lane.find, do),))


@pytest.mark.parametrize("with_long_row", [False, True], ids=["all rows fit", "a row is too long for training"])
def test_between_the_last_checkpoint_and_the_verdict_nothing_is_lost_or_repeated(
    start_training: Callable[..., Any], with_long_row: bool
) -> None:
    training = start_training(hyperparams={"max_length": 60})
    rows = [*sums(31, seed=3), *sums(1, seed=4, longest=2)]
    if with_long_row:
        rows[5] = max(sums(400, seed=9, longest=30), key=lambda row: len(row.to_line()))
    batch_id = training.home.add_batch(rows, state="queued")
    bus = training.home.bus(interrupted(1), children=training.children)
    with pytest.raises(Stopping):
        bus.sweep()
    assert training.home.verdicts("training") == {}
    assert len(training.checkpoints()) == 1
    training.sweep()
    assert len(training.checkpoints()) == 1
    assert training.home.verdicts("training") == {batch_id: "trained"}
    assert training.home.dead() == []


def test_every_epoch_is_trained_and_the_depth_never_goes_negative(start_training: Callable[..., Any]) -> None:
    training = start_training(hyperparams={"num_epochs": 2})
    batch_id = training.queue(1, rows=48)
    training.children.dies_at = 2
    training.sweep()
    assert 0 < training.batch(batch_id).offset < 48
    training.sweep()
    assert training.checkpoints()[-1].offset == 96
    assert training.checkpoints()[-1].step == 12
    assert training.batch(batch_id).offset == 48


def test_a_pause_takes_effect_after_the_running_segment_and_can_be_resumed(
    start_training: Callable[..., Any],
) -> None:
    training = start_training()
    batch_id = training.queue(1)
    ledger, run = training.home.ledger, training.children.run

    def pause_at_the_end(*arguments: Any, **limits: Any) -> Any:
        training.children.run = run
        result = run(*arguments, **limits)
        with ledger.write() as tx:
            operator_actions.pause(tx, paused=True)
        return result

    training.children.run = pause_at_the_end
    training.sweep()
    assert training.batch(batch_id).state == "training"
    assert [c.offset for c in training.checkpoints()] == [SEGMENT]
    assert training.sweep() == []
    with ledger.write() as tx:
        operator_actions.pause(tx, paused=False)
    training.sweep()
    assert training.home.verdicts("training") == {batch_id: "trained"}
    assert [spec.config.data.offset for spec in training.children.specs] == [0, SEGMENT]


def test_without_judges_training_stops_at_its_limit(start_training: Callable[..., Any]) -> None:
    queue = {"low_water": 300, "high_water": 600, "batch_examples": 200, "unjudged_limit": 3}
    training = start_training(queue=queue)
    first, second = training.queue(1), training.queue(2)
    training.sweep()
    assert len(training.checkpoints()) == 2
    assert training.home.verdicts("training") == {first: "trained"}
    assert training.batch(second).state in ("queued", "training")
    training.sweep()
    assert len(training.checkpoints()) == 2
    assert training.home.dead() == []


def test_checkpoints_that_testing_gave_up_long_ago_do_not_stop_training(start_training: Callable[..., Any]) -> None:
    queue = {"low_water": 300, "high_water": 600, "batch_examples": 200, "unjudged_limit": 3}
    training = start_training(queue=queue)
    first, second = training.queue(1), training.queue(2)
    training.sweep()
    assert training.home.verdicts("training") == {first: "trained"}
    with training.home.ledger.write() as tx:
        tx.session.add(judged(training.checkpoints()[-1].id, tx.now))
    training.sweep()
    assert training.home.verdicts("training") == {first: "trained", second: "trained"}


def judged(checkpoint: str, now: float) -> VerdictRow:
    """Testing's verdict on a checkpoint."""
    return VerdictRow(
        system="testing",
        subject_kind="checkpoint",
        subject_id=checkpoint,
        outcome="evaluated",
        reason="",
        numbers={},
        cause=None,
        worker="test",
        created_at=now,
        took_s=0.0,
    )


def test_at_max_steps_training_waits_without_a_failure(start_training: Callable[..., Any]) -> None:
    training = start_training(hyperparams={"max_steps": 4, "save_steps": 3})
    batch_id = training.queue(1)
    training.sweep()
    assert [checkpoint.step for checkpoint in training.checkpoints()] == [3, 4]
    assert training.batch(batch_id).state == "training"
    assert training.sweep() == []
    assert training.home.dead() == []


def test_order_and_seed_of_the_settings_reach_the_segment(start_training: Callable[..., Any]) -> None:
    training = start_training(data={"seed": 7, "shuffle": False}, locked={"vocab_size": VOCABULARY_SIZE})
    training.queue(1)
    training.sweep()
    assert {(spec.config.data.seed, spec.config.data.shuffle) for spec in training.children.specs} == {(7, False)}
    assert {spec.config.locked.vocab_size for spec in training.children.specs} == {VOCABULARY_SIZE}


def test_a_batch_that_cannot_be_read_goes_to_the_dead_letters_and_the_next_is_trained(training: Any) -> None:
    bad = training.queue(1)
    good = training.queue(2)
    path = training.home.artifacts.fetch(training.batch(bad).artifact) / "rows.jsonl"
    path.chmod(0o644)
    path.write_text("nonsense\n")
    for _ in range(6):
        training.sweep()
    assert training.home.verdicts("training") == {good: "trained"}
    assert len(training.home.dead()) == 1
    assert bad in training.home.dead()[0]
    with training.home.ledger.read() as session:
        assert depth(session).total == 0
