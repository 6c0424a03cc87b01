"""Carrying a fork through: open it, wait for its branches and their records, and let the paired test decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ratchet.evaluation.flips import added, flip_table
from ratchet.evaluation.record import Evaluation
from ratchet.evaluation.stored import readable
from ratchet.ledger import Transaction
from ratchet.ledger import forks as ledger
from ratchet.ledger.forks import KIND, OWNER, branches
from ratchet.ledger.ledger import clock
from ratchet.ledger.requests import ask, outdated
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import Batch, Branch, Checkpoint, Curriculum, DeadLetter, Fork
from ratchet.ledger.tables import Verdict as VerdictRow
from ratchet.ledger.undecided import lacks_verdict
from ratchet.settings import Settings
from ratchet.systems import NotReady, Outcome, Subject, Verdict, Work
from ratchet.systems.backlog import made_anew
from sqlalchemy import ColumnElement, Text, and_, cast, exists, func, select
from sqlalchemy.orm import Session

from datagen.experiment import Experiment
from datagen.fork import ForkResult, contestants, judge
from datagen.trials import keep, new_trial, tokens_between

GIVEN_UP = "given-up fork"
"""The kind of subject that a fork in the dead letters is: nothing is left of it but to close it."""

IN_TRAINING = "its branch in training"

LOST = ("rejected", "quarantined", "skipped")
"""States of a batch that is never trained to its end."""


def find_fork(session: Session, settings: Settings) -> list[Subject]:
    """One that is to be closed, being a dead letter; the fork that lacks its verdict; else the next one that is due."""
    dead = select(Fork.id).where(
        Fork.state == "open",
        exists().where(_is_letter_of(cast(Fork.id, Text))),
        lacks_verdict(OWNER, GIVEN_UP, cast(Fork.id, Text)),
    )
    given_up = session.scalar(dead.limit(1))
    if given_up is not None:
        return [Subject(GIVEN_UP, str(given_up))]
    undecided = select(Fork.id).where(lacks_verdict(OWNER, KIND, cast(Fork.id, Text))).order_by(Fork.id).limit(1)
    found = session.scalar(undecided)
    if found is None and _is_due(session, settings.curriculum.fork_every):
        found = (session.scalar(select(func.max(Fork.id))) or 0) + 1
    return [Subject(KIND, str(found))] if found is not None else []


def _is_letter_of(fork_id: Any) -> ColumnElement[bool]:
    """Whether a dead letter is that of this fork, and open."""
    return and_(
        DeadLetter.system == OWNER,
        DeadLetter.subject_kind == KIND,
        DeadLetter.subject_id == fork_id,
        DeadLetter.resolved_at.is_(None),
    )


def _is_due(session: Session, every: int) -> bool:
    """Whether so many batches were trained since the last fork, and the experiment is open."""
    if not every or session.scalar(select(Fork.id).where(Fork.state == "open").limit(1)) is not None:
        return False
    since = session.scalar(select(func.max(Fork.closed_at))) or 0.0
    trained = select(func.count()).select_from(Batch).where(Batch.state == "trained", Batch.finished_at > since)
    newest = session.scalar(select(Curriculum).order_by(Curriculum.id.desc()).limit(1))
    is_open = newest is not None and newest.experiment.get("state") == "open"
    return is_open and (session.scalar(trained) or 0) >= every


@dataclass(frozen=True)
class Look:
    """A fork at one moment. ``objection`` is why it can never be decided, ``waits_for`` what it still lacks."""

    fork: Fork
    rows: Sequence[Branch]
    objection: str | None
    waits_for: str | None


def carry_on(work: Work) -> Outcome:
    """Whatever the fork's next step is; each is one transaction, and taken once."""
    fork_id = int(work.subject.id)
    with work.read() as session:
        fork = session.get(Fork, fork_id)
        if fork is None:
            return _opened(session, fork_id)
        look = _look(session, fork, work.settings)
    if fork.state != "open":
        return Verdict(fork.state, fork.reason)
    if look.objection is not None:
        return _abandoned(look)
    return NotReady(look.waits_for) if look.waits_for is not None else _judged(work, look)


def _opened(session: Session, fork_id: int) -> NotReady:
    newest = session.scalars(select(Curriculum).order_by(Curriculum.id.desc()).limit(1)).one()
    arms = contestants(Experiment.model_validate(newest.experiment).shares(), fork_id)
    return NotReady(f"a batch of each of {' and '.join(arms)}", lambda tx: ledger.begin(tx, fork_id, arms, newest.id))


def _look(session: Session, fork: Fork, settings: Settings) -> Look:
    rows = branches(session, fork.id)
    batches = [session.get(Batch, row.batch_id) if row.batch_id else None for row in rows]
    if any(batch is not None and ledger.is_in_training(session, batch) for batch in batches):
        return Look(fork, rows, None, IN_TRAINING)
    objections = (_objection(session, row, batch) for row, batch in zip(rows, batches, strict=True))
    objection = next((words for words in objections if words is not None), None)
    waits_for = next((f"the {row.arm} branch to be trained" for row in rows if row.tip_id is None), None)
    limit_s = settings.curriculum.fork_limit_s
    if objection is None and clock(session) - fork.opened_at > limit_s:
        objection = f"it took longer than {limit_s:.0f} s (curriculum.fork_limit_s)"
    return Look(fork, rows, objection, waits_for)


def _objection(session: Session, row: Branch, batch: Batch | None) -> str | None:
    if row.tip_id is not None and session.get_one(Checkpoint, row.tip_id).state != "saved":
        return f"{row.tip_id} of the {row.arm} branch is {session.get_one(Checkpoint, row.tip_id).state}"
    if batch is None:
        return None
    if batch.state in LOST:
        return f"the batch of the {row.arm} branch was {batch.state}"
    is_given_up = batch.started_at is not None and row.tip_id is None
    return f"training has given up the batch of the {row.arm} branch" if is_given_up else None


def _abandoned(look: Look) -> Verdict:
    fork_id, reason = look.fork.id, str(look.objection)

    def effects(tx: Transaction) -> None:
        ledger.abandon(tx, ledger.at_rest(tx, fork_id), reason)

    return Verdict("abandoned", reason, {"arms": [row.arm for row in look.rows]}, effects)


def give_up(work: Work) -> Outcome:
    """Close a fork that lies in the dead letters, so that the next one may begin; `ratchet dead show` has the cause."""
    fork_id = int(work.subject.id)
    with work.read() as session:
        letter = session.scalar(select(DeadLetter).where(_is_letter_of(work.subject.id)))
        look = _look(session, session.get_one(Fork, fork_id), work.settings)
    if letter is None or look.fork.state != "open":
        return Verdict("left", "it was tried again, or is closed already")
    if look.waits_for == IN_TRAINING:
        return NotReady(look.waits_for)
    return _abandoned(
        replace(look, objection=f"it could not be carried through (dead letter {letter.id}): {letter.error}")
    )


def _judged(work: Work, look: Look) -> Outcome:
    """Compare the tips on the probe suite, once they and the parent have a record made under the same conditions."""
    ids = [str(look.fork.parent_id), *(str(row.tip_id) for row in look.rows)]
    with work.read() as session:
        suite = current(session, "probe").id
        found = {id: evaluation(session, id, suite) for id in ids}
        missing = {id for id, row in found.items() if row is None}
        asked = [id for id in missing if id != ids[-1] or _was_passed_over(session, id)]
    if missing:
        return _asking(asked, suite, ids[-1], f"the probe records of {', '.join(sorted(missing))}")
    records = [row for row in found.values() if row is not None]
    for record in records:
        older = outdated(record, records[-1])
        if older is not None:
            other = records[-1] if older is record else record
            return _asking([older.checkpoint_id], suite, other.checkpoint_id, "records that compare")
    tips = [(row, readable(work.artifacts, row)) for row in records[1:]]
    damaged = next((row for row, record in tips if record is None), None)
    if damaged is not None:
        return made_anew(damaged, OWNER)
    return _decided(work, look, [record for _, record in tips if record is not None])


def _was_passed_over(session: Session, checkpoint_id: str) -> bool:
    """Whether testing has given its verdict on it, so that no record comes unless it is asked for.

    The newest checkpoint is tested in any case, and is asked for only then.
    """
    verdict = select(VerdictRow.id).where(
        VerdictRow.system == "testing", VerdictRow.subject_kind == "checkpoint", VerdictRow.subject_id == checkpoint_id
    )
    return session.scalar(verdict) is not None


def _asking(checkpoint_ids: Sequence[str], suite_id: str, beside: str, waits_for: str) -> NotReady:
    def effects(tx: Transaction) -> None:
        for checkpoint_id in checkpoint_ids:
            ask(tx, checkpoint_id, suite_id, OWNER, beside)

    return NotReady(waits_for, effects)


def _decided(work: Work, look: Look, records: Sequence[Evaluation]) -> Verdict:
    """``records`` are those of both tips. The branches' trials are kept where none is yet."""
    best, challenger = records
    result = judge(
        (look.rows[0].arm, look.rows[1].arm),
        added(flip_table(best, challenger)),
        _tokens(work, look),
        work.settings.curriculum.certainty,
    )
    return _closed(work, look, result)


def _tokens(work: Work, look: Look) -> tuple[int, int]:
    """Trained on each branch."""
    with work.read() as session:
        parent, first, second = (
            session.get_one(Checkpoint, id) for id in (look.fork.parent_id, *(row.tip_id for row in look.rows))
        )
    return tokens_between(parent, first), tokens_between(parent, second)


def _closed(work: Work, look: Look, result: ForkResult) -> Verdict:
    fork_id, numbers = look.fork.id, result.model_dump(mode="json")
    with work.read() as session:
        trials = [new_trial(session, work.artifacts, str(row.tip_id)) for row in look.rows]

    def effects(tx: Transaction) -> None:
        ledger.decide(tx, ledger.at_rest(tx, fork_id), result.winner, numbers, result.sentence)
        for trial in trials:
            keep(tx, trial)

    return Verdict("decided", result.sentence, numbers, effects)
