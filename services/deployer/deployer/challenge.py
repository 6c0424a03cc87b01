"""A challenge from screen to decision: the records it needs, the error it spends, and the gate's decision.

Records that are missing, damaged or not comparable are requested from testing, and the challenge waits for them. Each
use of the confirm suite leaks some information about it, so after a number of uses it is replaced by fresh items.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ratchet.evaluation.build_suites import rotate_confirm
from ratchet.evaluation.load_evaluation import load_evaluation, load_if_intact, load_suite, suite_row
from ratchet.evaluation.record import GENERAL, Evaluation, mastered_levels
from ratchet.failpoint import failpoint
from ratchet.gate.decision import Promote, Refuse, decide
from ratchet.gate.screen import Screen, screen
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import champion
from ratchet.ledger.suites import current, evaluation, outdated_record, request_evaluation
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, EvaluationRow, SuiteRow, TaskRow
from ratchet.settings import Settings
from ratchet.systems import NotReady, Work
from ratchet.systems.evaluated_checkpoints import request_again
from ratchet.tasks import registry
from sqlalchemy import func, select
from sqlalchemy.orm import Session

CHALLENGES_PER_SUITE = 50
"""Number of challenges after which a confirm suite is replaced; the outcome of each leaks some information about it."""

MIN_MASTERY_ITEMS = 5
"""Minimum number of eval items for a level to count as mastered; a single lucky answer proves nothing."""

ASK_AGAIN_S = 6 * 3600.0
"""Age from which a champion's record without a single vote of the judge is made again, at most as often."""


@dataclass(frozen=True)
class Pair:
    """Champion, challenger and base on one suite; a record is None if testing has not made it yet, or it is unusable.

    ``damaged`` has the ids of checkpoints whose record exists but cannot be read.
    """

    champion: CheckpointRow
    challenger: CheckpointRow
    base: CheckpointRow
    suite: SuiteRow
    champion_record: Evaluation | None
    challenger_record: Evaluation | None
    base_record: Evaluation | None
    damaged: frozenset[str] = frozenset()

    @property
    def absent(self) -> tuple[CheckpointRow, ...]:
        """The checkpoints whose record is missing. That of the base is needed for the general task alone."""
        sides = [(self.champion, self.champion_record), (self.challenger, self.challenger_record)]
        if self._has_general_items:
            sides.append((self.base, self.base_record))
        return tuple({checkpoint.id: checkpoint for checkpoint, record in sides if record is None}.values())

    @property
    def _has_general_items(self) -> bool:
        record = self.champion_record or self.challenger_record
        return record is not None and any(item.family == GENERAL for item in record.items)


def read_pair(work: Work, challenger_id: str, pool: str) -> Pair:
    """The records on the pool's current suite. Of records that are not comparable, the older one counts as absent."""
    with work.read() as session:
        holder, challenger = champion(session), session.get_one(CheckpointRow, challenger_id)
        base = session.scalars(select(CheckpointRow).order_by(CheckpointRow.ordinal).limit(1)).one()
        suite = current(session, pool)
        rows = {
            checkpoint.id: evaluation(session, checkpoint.id, suite.id) for checkpoint in (holder, challenger, base)
        }
    newest = _newest_of_one_kind(rows)
    records = {id: load_if_intact(work.artifacts, row) for id, row in newest.items()}
    damaged = frozenset(id for id, record in records.items() if record is None)
    theirs, ours, first = (records.get(checkpoint.id) for checkpoint in (holder, challenger, base))
    return Pair(holder, challenger, base, suite, theirs, ours, first, damaged)


def _newest_of_one_kind(rows: Mapping[str, EvaluationRow | None]) -> dict[str, EvaluationRow]:
    """The newest record and those that are comparable with it, by checkpoint."""
    found = {id: row for id, row in rows.items() if row is not None}
    if not found:
        return {}
    newest = max(found.values(), key=lambda row: row.created_at)
    return {id: row for id, row in found.items() if row is newest or outdated_record(row, newest) is None}


def run_screen(work: Work, challenger_id: str) -> Screen | NotReady:
    """The screen on the eval suite, which spends no error."""
    sides = read_pair(work, challenger_id, "eval")
    if sides.champion_record is None or sides.challenger_record is None:
        return request_records(sides)
    unmeasured = unmeasured_tasks(work, sides)
    if isinstance(unmeasured, NotReady):
        return unmeasured
    return screen(sides.champion_record, sides.challenger_record, work.settings.gate)


def request_records(sides: Pair) -> NotReady:
    """Request the absent records from testing. Idempotent."""

    def effects(tx: Transaction) -> None:
        for checkpoint in sides.absent:
            other = sides.champion if checkpoint.id == sides.challenger.id else sides.challenger
            is_damaged = checkpoint.id in sides.damaged
            request_evaluation(tx, checkpoint.id, sides.suite.id, "deployment", other.id, is_damaged=is_damaged)

    names = " and ".join(checkpoint.id for checkpoint in sides.absent)
    return NotReady(f"{sides.suite.pool} records of {names}", effects)


def unmeasured_tasks(work: Work, sides: Pair) -> NotReady | str | None:
    """Why no challenger at all could be proved safe: a protected task without any score in the champion's record.

    Where the LLM judge gave no votes, it may do so now: the record is requested again once it is old enough. Where the
    judge is not configured, or references do not fit the context, another record would be the same.
    """
    record = sides.champion_record
    if record is None:
        return None
    measured = {item.family for item in record.items if item.score is not None}
    lacking = protected_tasks(work, {item.family for item in record.items} - measured) - {GENERAL}
    items = [item for item in record.items if item.family in lacking]
    if not items:
        return None
    with work.read() as session:
        row = evaluation(session, sides.champion.id, sides.suite.id)
    has_judge = work.settings.judge.url is not None and any(item.metric == "judge" for item in items)
    if row is not None and has_judge and time.time() - row.created_at >= ASK_AGAIN_S:
        return request_again(row, "deployment")
    family, why = items[0].family, items[0].no_vote or "no reference answer could be measured: none fits the context"
    count = sum(item.family == family for item in items)
    return (
        f"No checkpoint can be proved safe on the task {family}: of its {count} {sides.suite.pool} items none has a "
        f"score in the record of the champion {sides.champion.id} ({why}). Mend that, or let checkpoints be deployed "
        f"without it: `ratchet data set {family} --unprotected`."
    )


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
    families = {item.family for item in sides.champion_record.items}
    seen = read_pair(work, sides.challenger.id, "eval")
    screened = None
    if seen.champion_record is not None and seen.challenger_record is not None:
        screened = seen.champion_record, seen.challenger_record
    return decide(
        sides.champion_record,
        sides.challenger_record,
        k,
        protected_levels(work, sides.champion.id),
        work.settings.gate,
        smoke_passed=smoke_passed,
        tasks=protected_tasks(work, families),
        base=sides.base_record,
        screened=screened,
    )


def protected_tasks(work: Work, families: Collection[str]) -> frozenset[str]:
    """The families that are tasks of the user, or the general task, without those that the user does not protect."""
    with work.read() as session:
        open_ones = set(session.scalars(select(TaskRow.name).where(TaskRow.protected.is_(False))))
    return frozenset(name for name in families if registry.find(name) is None and name not in open_ones)


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
