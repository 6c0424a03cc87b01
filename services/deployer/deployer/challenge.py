"""A challenge from screen to decision: which records it needs, and what the gate says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.evaluation.load_evaluation import load_evaluation, load_if_intact
from ratchet.evaluation.record import Evaluation, mastered_levels
from ratchet.failpoint import failpoint
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import champion
from ratchet.ledger.suites import current, evaluation, outdated_record, request_evaluation
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, SuiteRow
from ratchet.settings import Settings
from ratchet.systems import NotReady, Work
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from deployer.gate import decide
from deployer.proof import Promote, Refuse
from deployer.screen import Screen, screen


@dataclass(frozen=True)
class Pair:
    """Champion and challenger on one suite; a record is None while testing has not made it.

    ``damaged`` names those that have one which cannot be read, and is to be made anew.
    """

    champion: CheckpointRow
    challenger: CheckpointRow
    suite: SuiteRow
    champion_record: Evaluation | None
    challenger_record: Evaluation | None
    damaged: frozenset[str] = frozenset()

    @property
    def lacking(self) -> tuple[CheckpointRow, ...]:
        sides = ((self.champion, self.champion_record), (self.challenger, self.challenger_record))
        return tuple(checkpoint for checkpoint, record in sides if record is None)


def pair(work: Work, challenger_id: str, pool: str) -> Pair:
    """Both sides' records on the pool's suite in force; of two that do not compare, the older counts as lacking."""
    with work.read() as session:
        holder, challenger = champion(session), session.get_one(CheckpointRow, challenger_id)
        suite = current(session, pool)
        rows = [evaluation(session, checkpoint.id, suite.id) for checkpoint in (holder, challenger)]
    theirs, ours = rows
    older = outdated_record(theirs, ours) if theirs is not None and ours is not None else None
    usable = [row if row is not older else None for row in rows]
    records = [load_if_intact(work.artifacts, row) if row is not None else None for row in usable]
    damaged = {row.checkpoint_id for row, record in zip(usable, records, strict=True) if row and record is None}
    theirs_read, ours_read = records
    return Pair(holder, challenger, suite, theirs_read, ours_read, frozenset(damaged))


def screened(work: Work, challenger_id: str) -> Screen | NotReady:
    """The free screen on the eval suite."""
    sides = pair(work, challenger_id, "eval")
    if sides.champion_record is None or sides.challenger_record is None:
        return asking(sides)
    return screen(sides.champion_record, sides.challenger_record, work.settings.gate)


def asking(sides: Pair) -> NotReady:
    """Ask testing for the records that are lacking; nothing is asked for twice."""

    def effects(tx: Transaction) -> None:
        for checkpoint in sides.lacking:
            other = sides.champion if checkpoint is sides.challenger else sides.challenger
            is_damaged = checkpoint.id in sides.damaged
            request_evaluation(tx, checkpoint.id, sides.suite.id, "deployment", other.id, is_damaged=is_damaged)

    names = " and ".join(checkpoint.id for checkpoint in sides.lacking)
    return NotReady(f"{sides.suite.pool} records of {names}", effects)


def opened(work: Work, sides: Pair) -> ChallengeRow:
    """The challenge of this pair, opened if it was not. Opening spends: k is counted before anything is known.

    One that was left open while the suite was rotated goes on with the suite in force, as a use of that suite.
    """

    def open_it(tx: Transaction) -> None:
        begun = _challenge(tx.session, sides)
        if begun is not None and begun.suite_id == sides.suite.id:
            return
        tx.session.get_one(SuiteRow, sides.suite.id).uses += 1
        if begun is not None:
            begun.suite_id = sides.suite.id
            return
        spent = (
            tx.session.scalar(select(func.max(ChallengeRow.k)).where(ChallengeRow.champion_id == sides.champion.id))
            or 0
        )
        tx.session.add(
            ChallengeRow(
                champion_id=sides.champion.id,
                challenger_id=sides.challenger.id,
                k=spent + 1,
                suite_id=sides.suite.id,
                outcome=None,
                numbers={},
                created_at=tx.now,
            )
        )

    work.commit(open_it)
    failpoint("after-challenge")
    with work.read() as session:
        row = _challenge(session, sides)
    assert row is not None
    return row


def decided(work: Work, sides: Pair, k: int, smoke_passed: bool) -> Promote | Refuse:
    """The gate's word on a pair with both confirm records."""
    assert sides.champion_record is not None
    assert sides.challenger_record is not None
    mastered = protected_levels(work, sides.champion.id)
    return decide(
        sides.champion_record, sides.challenger_record, k, mastered, work.settings.gate, smoke_passed=smoke_passed
    )


def protected_levels(work: Work, champion_id: str) -> dict[str, frozenset[int]]:
    """What the champion masters on its eval record, in the families that settings protect."""
    with work.read() as session:
        row = evaluation(session, champion_id, current(session, "eval").id)
    if row is None:
        return {}
    gate = work.settings.gate
    mastered = mastered_levels(load_evaluation(work.artifacts, row), gate.mastery, gate.mastery_items)
    return {family: levels for family, levels in mastered.items() if family in _protected(work.settings)}


def _protected(settings: Settings) -> Sequence[str]:
    return [family.name for family in settings.suites.families if family.protected]


def _challenge(session: Session, sides: Pair) -> ChallengeRow | None:
    query = select(ChallengeRow).where(
        ChallengeRow.champion_id == sides.champion.id, ChallengeRow.challenger_id == sides.challenger.id
    )
    return session.scalar(query)
