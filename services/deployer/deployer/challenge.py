"""A challenge from screen to decision: the records it needs, the error it spends, and the gate's decision.

Records that are missing, damaged or not comparable are requested from testing, and the challenge waits for them. Each
use of the confirm suite leaks some information about it, so after a number of uses it is replaced by fresh items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.evaluation.build_suites import rotate_confirm
from ratchet.evaluation.load_evaluation import load_evaluation, load_if_intact, load_suite, suite_row
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

from deployer.gate import Promote, Refuse, Screen, decide, screen

CHALLENGES_PER_SUITE = 50
"""Number of challenges after which a confirm suite is replaced; the outcome of each leaks some information about it."""

MIN_MASTERY_ITEMS = 5
"""Minimum number of eval items for a level to count as mastered; a single lucky answer proves nothing."""


@dataclass(frozen=True)
class Pair:
    """Champion and challenger on one suite; a record is None if testing has not made it yet, or it is unusable.

    ``damaged`` has the ids of checkpoints whose record exists but cannot be read.
    """

    champion: CheckpointRow
    challenger: CheckpointRow
    suite: SuiteRow
    champion_record: Evaluation | None
    challenger_record: Evaluation | None
    damaged: frozenset[str] = frozenset()

    @property
    def absent(self) -> tuple[CheckpointRow, ...]:
        sides = ((self.champion, self.champion_record), (self.challenger, self.challenger_record))
        return tuple(checkpoint for checkpoint, record in sides if record is None)


def read_pair(work: Work, challenger_id: str, pool: str) -> Pair:
    """Both records on the pool's current suite. If they are not comparable, the older one counts as absent."""
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


def run_screen(work: Work, challenger_id: str) -> Screen | NotReady:
    """The screen on the eval suite, which spends no error."""
    sides = read_pair(work, challenger_id, "eval")
    if sides.champion_record is None or sides.challenger_record is None:
        return request_records(sides)
    return screen(sides.champion_record, sides.challenger_record, work.settings.gate)


def request_records(sides: Pair) -> NotReady:
    """Request the absent records from testing. Idempotent."""

    def effects(tx: Transaction) -> None:
        for checkpoint in sides.absent:
            other = sides.champion if checkpoint is sides.challenger else sides.challenger
            is_damaged = checkpoint.id in sides.damaged
            request_evaluation(tx, checkpoint.id, sides.suite.id, "deployment", other.id, is_damaged=is_damaged)

    names = " and ".join(checkpoint.id for checkpoint in sides.absent)
    return NotReady(f"{sides.suite.pool} records of {names}", effects)


def open_challenge(work: Work, sides: Pair) -> ChallengeRow:
    """The challenge of this pair, opened if necessary. Opening it spends error: k is counted before a result is known.

    If the suite was rotated while the challenge was open, it continues on the current suite, and counts as a use of it.
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


def judge_pair(work: Work, sides: Pair, k: int, smoke_passed: bool) -> Promote | Refuse:
    """The gate's decision on a pair of confirm records."""
    assert sides.champion_record is not None
    assert sides.challenger_record is not None
    mastered = protected_levels(work, sides.champion.id)
    return decide(
        sides.champion_record, sides.challenger_record, k, mastered, work.settings.gate, smoke_passed=smoke_passed
    )


def protected_levels(work: Work, champion_id: str) -> dict[str, frozenset[int]]:
    """The levels that the champion masters, by its eval record, in the protected families of the settings."""
    with work.read() as session:
        row = evaluation(session, champion_id, current(session, "eval").id)
    if row is None:
        return {}
    mastered = mastered_levels(load_evaluation(work.artifacts, row), work.settings.gate.mastery, MIN_MASTERY_ITEMS)
    return {family: levels for family, levels in mastered.items() if family in _protected(work.settings)}


def _protected(settings: Settings) -> Sequence[str]:
    return [family.name for family in settings.suites.families if family.protected]


def _challenge(session: Session, sides: Pair) -> ChallengeRow | None:
    query = select(ChallengeRow).where(
        ChallengeRow.champion_id == sides.champion.id, ChallengeRow.challenger_id == sides.challenger.id
    )
    return session.scalar(query)


def rotate_if_used_up(work: Work, most: int = CHALLENGES_PER_SUITE) -> None:
    """Retire a confirm suite that was used for ``most`` challenges, and publish the next version.

    An open challenge of this subject keeps its suite; other open challenges continue on the new one. Suites made only
    of a user's rows cannot be drawn again, and are kept.
    """
    suites = work.settings.suites
    with work.read() as session:
        used_up = current(session, "confirm")
        in_use = session.scalar(
            select(ChallengeRow.id).where(
                ChallengeRow.suite_id == used_up.id,
                ChallengeRow.champion_id == champion(session).id,
                ChallengeRow.challenger_id == work.subject.id,
                ChallengeRow.outcome.is_(None),
            )
        )
    if used_up.uses < most or in_use is not None or not suites.families:
        return
    fresh = rotate_confirm(suites, load_suite(work.artifacts, used_up))
    artifact = work.artifacts.publish_lines(fresh.to_lines(), "suite", {"pool": fresh.pool, "suite": fresh.id})

    def effects(tx: Transaction) -> None:
        tx.session.get_one(SuiteRow, used_up.id).retired_at = tx.now
        tx.session.add(suite_row(fresh, artifact.id, tx.now))

    work.commit(effects)
