"""A fork of the training line: from opening it to going on with the winner, each step one transaction.

There is one line. Its head goes from the parent along the first branch, back to the parent, along the second, and is
put at the winner's tip when the fork closes. Whoever takes a step finds in these rows how far the fork has come, so
that a step taken twice is taken once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from ratchet.errors import ClaimLost
from ratchet.events.catalogue import ForkClosed, ForkOpened
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.line import head, line
from ratchet.ledger.tables import Batch, Branch, Checkpoint, Fork
from ratchet.ledger.undecided import lacks_verdict

OWNER, KIND = "curriculum", "fork"
"""The system that opens and closes forks, and the kind of its subject."""

TRAINER = "training"


def open_fork(session: Session) -> Fork | None:
    """The fork that is under way. One that its owner has given up (a dead letter) holds nobody up."""
    wanted = select(Fork).where(Fork.state == "open", lacks_verdict(OWNER, KIND, cast(Fork.id, Text)))
    return session.scalar(wanted.order_by(Fork.id).limit(1))


def branches(session: Session, fork_id: int) -> Sequence[Branch]:
    """Both branches of a fork, that of the best arm first."""
    return session.scalars(select(Branch).where(Branch.fork_id == fork_id).order_by(Branch.place)).all()


def branch_of(session: Session, batch_id: str) -> Branch | None:
    """The branch of the open fork that this batch was made for."""
    fork = open_fork(session)
    rows = branches(session, fork.id) if fork is not None else ()
    return next((row for row in rows if row.batch_id == batch_id), None)


def lacking(session: Session) -> Branch | None:
    """The first branch of the open fork that has no batch yet."""
    fork = open_fork(session)
    rows = branches(session, fork.id) if fork is not None else ()
    return next((row for row in rows if row.batch_id is None), None)


def budget(session: Session, batch_id: str) -> int | None:
    """Tokens that each branch of the open fork may train on: those of its smaller batch. None for any other batch."""
    branch = branch_of(session, batch_id)
    if branch is None:
        return None
    ids = [row.batch_id for row in branches(session, branch.fork_id)]
    return min(session.scalars(select(Batch.tokens).where(Batch.id.in_(ids))))


def is_in_training(session: Session, batch: Batch) -> bool:
    """Whether training has begun with the batch and not ended: given up by a dead letter is ended, too."""
    undone = select(Batch.id).where(Batch.id == batch.id, lacks_verdict(TRAINER, "batch", Batch.id))
    return batch.started_at is not None and session.scalar(undone) is not None


def begin(tx: Transaction, fork_id: int, arms: Mapping[str, float], curriculum_id: int) -> None:
    """Open a fork of two arms, the best one first, each with the probability it was drawn with. Nothing if it is."""
    if tx.session.get(Fork, fork_id) is not None:
        return
    tx.session.add(
        Fork(
            id=fork_id,
            curriculum_id=curriculum_id,
            parent_id=None,
            adapter_base_id=None,
            winner=None,
            opened_at=tx.now,
            closed_at=None,
        )
    )
    tx.session.flush()
    for place, (arm, probability) in enumerate(arms.items()):
        tx.session.add(
            Branch(
                fork_id=fork_id,
                place=place,
                arm=arm,
                probability=probability,
                batch_id=None,
                tip_id=None,
                adapter_base_id=None,
            )
        )
    tx.emit(ForkOpened(fork_id=fork_id))


def give_batch(tx: Transaction, fork_id: int, place: int, batch_id: str) -> None:
    """Bind a batch to a branch that still lacks one; otherwise it stays an ordinary batch."""
    fork, branch = open_fork(tx.session), tx.session.get_one(Branch, (fork_id, place))
    if fork is not None and fork.id == fork_id and branch.batch_id is None:
        branch.batch_id = batch_id


def enter(tx: Transaction, batch_id: str) -> None:
    """Before the first segment of a branch's batch: note the parent, or go back to it. Nothing for any other batch."""
    branch = branch_of(tx.session, batch_id)
    if branch is None:
        return
    fork, main = tx.session.get_one(Fork, branch.fork_id), line(tx.session)
    if fork.parent_id is None:
        fork.parent_id, fork.fresh_optimizer = main.head_id, main.fresh_optimizer
        fork.adapter_base_id = main.adapter_base_id
    else:
        _back_to_parent(tx, fork)


def complete(tx: Transaction, batch_id: str) -> None:
    """After the last segment of a branch's batch: the line's head is its tip. Nothing for any other batch."""
    branch = branch_of(tx.session, batch_id)
    if branch is not None:
        main = line(tx.session)
        branch.tip_id, branch.adapter_base_id = main.head_id, main.adapter_base_id


def at_rest(tx: Transaction, fork_id: int) -> Fork:
    """The fork, to be closed by one who does not train.

    Raises ClaimLost where it is closed already, or a branch is in training just now: what was decided is outdated.
    """
    fork = tx.session.get_one(Fork, fork_id)
    batches = [tx.session.get_one(Batch, row.batch_id) for row in branches(tx.session, fork_id) if row.batch_id]
    if fork.state != "open" or any(is_in_training(tx.session, batch) for batch in batches):
        raise ClaimLost(f"fork {fork_id} has gone on while it was decided on.")
    return fork


def decide(tx: Transaction, fork: Fork, winner: int, numbers: Mapping[str, Any], reason: str) -> None:
    """Close the fork; training goes on from the winner's tip."""
    rows = branches(tx.session, fork.id)
    if _is_on(tx, fork, rows):
        _go_to(tx, rows[winner])
    _close(tx, fork, "decided", winner, numbers, reason)


def abandon(tx: Transaction, fork: Fork, reason: str, bad_batch_id: str | None = None) -> None:
    """Give the fork up. Training goes on from the first branch that was trained to its end and is sound; else where it
    is, but never on a branch that is bad: then from the parent.

    The batches of bad branches go to quarantine; those that were not begun are ordinary batches from now on.
    """
    rows = branches(tx.session, fork.id)
    bad = {row.batch_id for row in rows if row.batch_id and (row.batch_id == bad_batch_id or _is_broken(tx, row))}
    sound = next((row for row in rows if row.tip_id is not None and row.batch_id not in bad), None)
    if _is_on(tx, fork, rows):
        if sound is not None:
            _go_to(tx, sound)
        elif head(tx.session).batch_id in bad:
            _back_to_parent(tx, fork)
    _quarantine(tx, bad)
    _close(tx, fork, "abandoned", sound.place if sound is not None else None, {}, reason)


def _is_broken(tx: Transaction, row: Branch) -> bool:
    return row.tip_id is not None and tx.session.get_one(Checkpoint, row.tip_id).state != "saved"


def _is_on(tx: Transaction, fork: Fork, rows: Sequence[Branch]) -> bool:
    """Whether the line's head is still the fork's: its parent, or on one of its branches."""
    newest = head(tx.session)
    return fork.parent_id is not None and (
        newest.id == fork.parent_id or newest.batch_id in {row.batch_id for row in rows}
    )


def _go_to(tx: Transaction, row: Branch) -> None:
    assert row.tip_id is not None, "only a branch that was trained to its end is gone on with"
    main = line(tx.session)
    main.head_id, main.fresh_optimizer, main.adapter_base_id = row.tip_id, False, row.adapter_base_id
    main.updated_at = tx.now


def _back_to_parent(tx: Transaction, fork: Fork) -> None:
    assert fork.parent_id is not None, "a branch has begun"
    main = line(tx.session)
    main.head_id, main.fresh_optimizer, main.adapter_base_id = (
        fork.parent_id,
        fork.fresh_optimizer,
        fork.adapter_base_id,
    )
    main.updated_at = tx.now


def _quarantine(tx: Transaction, batch_ids: Collection[str]) -> None:
    for batch_id in batch_ids:
        batch = tx.session.get_one(Batch, batch_id)
        if batch.state in ("queued", "training", "trained"):
            batch.state, batch.finished_at = "quarantined", tx.now


def _close(
    tx: Transaction, fork: Fork, state: str, winner: int | None, numbers: Mapping[str, Any], reason: str
) -> None:
    fork.state, fork.winner, fork.numbers, fork.reason, fork.closed_at = state, winner, dict(numbers), reason, tx.now
    tx.emit(ForkClosed(fork_id=fork.id, checkpoint_id=line(tx.session).head_id))
