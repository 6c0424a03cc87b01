"""Pause, resume and skip during a segment: each keeps an offset and survives a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.ledger import operator_actions
from ratchet.ledger.queue import depth
from ratchet.ledger.tables import BatchRow, VerdictRow
from sqlalchemy import select

LONG = 1600
"""Rows of a batch whose one segment takes long enough to be interrupted."""


@pytest.fixture
def training(start_training: Callable[..., Any]) -> Any:
    return start_training(hyperparams={"save_steps": None}, monitoring={"preview_backend": "none"})


def when_begun(training: Any, act: Callable[[], None]) -> None:
    """Do something once, when the next segment has begun."""
    run = training.children.run

    def begin(target: str, spec: dict[str, Any], **limits: Any) -> Any:
        training.children.run = run
        act()
        return run(target, spec, **limits)

    training.children.run = begin


def pause(training: Any, paused: bool = True) -> None:
    with training.home.ledger.write() as tx:
        operator_actions.pause(tx, paused=paused)


def skip(training: Any, batch_id: str) -> None:
    with training.home.ledger.write() as tx:
        operator_actions.skip(tx, tx.session.get_one(BatchRow, batch_id))


def verdict(training: Any, batch_id: str) -> VerdictRow:
    with training.home.ledger.read() as session:
        return session.scalars(select(VerdictRow).where(VerdictRow.subject_id == batch_id)).one()


def test_a_pause_saves_the_running_segment_and_resume_continues_at_its_offset(training: Any) -> None:
    batch_id = training.queue(1, rows=LONG)
    when_begun(training, lambda: pause(training))
    training.sweep()
    (first,) = training.checkpoints()
    assert 0 < first.offset < LONG
    assert (training.batch(batch_id).state, training.batch(batch_id).offset) == ("training", first.offset)
    assert training.home.verdicts("training") == {}
    assert training.sweep() == []

    pause(training, paused=False)
    training.sweep()
    assert [spec.config.data.offset for spec in training.children.specs] == [0, first.offset]
    assert training.home.verdicts("training") == {batch_id: "trained"}


def test_a_skip_ends_the_running_segment_and_the_rest_of_the_batch_is_never_trained(training: Any) -> None:
    batch_id, after = training.queue(1, rows=LONG), training.queue(2)
    when_begun(training, lambda: skip(training, batch_id))
    heard = training.sweep()
    (first, last) = training.checkpoints()
    assert 0 < first.offset < LONG
    assert (training.batch(batch_id).state, training.batch(batch_id).offset) == ("skipped", first.offset)
    assert training.home.verdicts("training") == {batch_id: "skipped", after: "trained"}
    assert verdict(training, batch_id).numbers["offset"] == first.offset
    assert (last.parent_id, last.batch_id) == (first.id, after)
    assert heard.count("training.finished") == 2


def test_a_batch_skipped_while_the_trainer_was_away_gets_its_verdict_after_the_restart(
    start_training: Callable[..., Any],
) -> None:
    training = start_training()
    batch_id = training.queue(1)
    training.children.dies_at = 2
    training.sweep()
    offset = training.batch(batch_id).offset
    assert 0 < offset < training.batch(batch_id).examples
    skip(training, batch_id)
    training.sweep()
    assert training.home.verdicts("training") == {batch_id: "skipped"}
    assert training.batch(batch_id).offset == offset
    assert training.line().running_batch_id is None
    assert len(training.checkpoints()) == 1
    with training.home.ledger.read() as session:
        assert depth(session).total == 0
    with pytest.raises(PreconditionFailed, match="is skipped"):
        skip(training, batch_id)
