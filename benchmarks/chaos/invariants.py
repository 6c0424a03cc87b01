"""What must hold after every round, read from the ledger, the processes and the folders of a run.

Each check returns what is broken, with its evidence; an empty list is good. What may be wrong for a moment after a
fault (the served checkpoint, processes that are being ended, folders of lost claims) is broken once it has lasted
longer than its bound: ``Lasting`` remembers since when. It does not know which fault struck.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from ratchet.ledger.deployments import CHAMPION_CHANGES
from ratchet.ledger.lineage import MAIN
from ratchet.ledger.tables import (
    BatchRow,
    ChallengeRow,
    CheckpointRow,
    ClaimRow,
    DeadLetterRow,
    DeploymentRow,
    ServingRow,
    VerdictRow,
)
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from benchmarks.chaos.live_run import LiveRun

SERVED_S = 300.0
ORPHAN_S = 60.0
FOLDER_S = 300.0
CLOCK = time.monotonic


def verdicts_are_unique(session: Session) -> list[str]:
    """One verdict a subject and system."""
    key = (VerdictRow.system, VerdictRow.subject_kind, VerdictRow.subject_id)
    rows = session.execute(select(*key, func.count()).group_by(*key).having(func.count() > 1))
    return [f"{system} has {count} verdicts on {kind}/{id_}" for system, kind, id_, count in rows]


def decided_subjects_have_no_claim(session: Session) -> list[str]:
    """A claim ends in the transaction of its verdict."""
    rows = session.execute(
        select(ClaimRow.system, ClaimRow.subject_kind, ClaimRow.subject_id, ClaimRow.token).join(
            VerdictRow,
            (VerdictRow.system == ClaimRow.system)
            & (VerdictRow.subject_kind == ClaimRow.subject_kind)
            & (VerdictRow.subject_id == ClaimRow.subject_id),
        )
    )
    return [
        f"{system} has decided on {kind}/{id_} and claims it with token {token}" for system, kind, id_, token in rows
    ]


def rows_are_trained_once(session: Session) -> list[str]:
    """A batch's checkpoints advance through its rows, and end with the last of them.

    A batch in quarantine was rewound: its rows count as never trained.
    """
    broken, by_batch = [], defaultdict(list)
    query = select(CheckpointRow.batch_id, CheckpointRow.id, CheckpointRow.offset).where(CheckpointRow.ordinal > 0)
    for batch_id, id_, offset in session.execute(query.order_by(CheckpointRow.ordinal)):
        by_batch[batch_id].append((id_, offset))
    for batch in session.scalars(select(BatchRow).where(BatchRow.state.in_(("training", "trained")))):
        saved = by_batch.get(batch.id, [])
        for (earlier, before), (later, after) in pairwise(saved):
            if after <= before:
                broken.append(f"{later} trains batch {batch.id} up to row {after}, as {earlier} did up to {before}")
        last = saved[-1][1] if saved else 0
        if batch.state == "trained" and not last == batch.offset == batch.examples:
            broken.append(f"batch {batch.id} is trained at row {last} of {batch.examples} (offset {batch.offset})")
    return broken


def checkpoints_form_one_line(session: Session) -> list[str]:
    """Ordinals without a gap, each after its parent."""
    rows = session.execute(select(CheckpointRow.id, CheckpointRow.ordinal, CheckpointRow.parent_id)).all()
    ordinals = {id_: ordinal for id_, ordinal, _ in rows}
    broken = []
    if sorted(ordinals.values()) != list(range(len(rows))):
        broken.append(f"the ordinals of {len(rows)} checkpoints are not 0 to {len(rows) - 1}")
    for id_, ordinal, parent in rows:
        if (parent is None) != (ordinal == 0) or (parent is not None and ordinals.get(parent, ordinal) >= ordinal):
            broken.append(f"{id_} (#{ordinal}) has the parent {parent}")
    return broken


def there_is_one_champion(session: Session) -> list[str]:
    """Each change of the champion replaces the one before it, and the last one is what is desired."""
    broken, champion = [], None
    changes = select(DeploymentRow).where(DeploymentRow.action.in_(CHAMPION_CHANGES)).order_by(DeploymentRow.id)
    for change in session.scalars(changes):
        if change.previous_id != champion:
            broken.append(
                f"{change.action} {change.id} replaces {change.previous_id}, while {champion} was the champion"
            )
        champion = change.checkpoint_id
    desired = session.scalars(select(ServingRow.desired_id)).all()
    if desired != ([champion] if champion else []):
        broken.append(f"desired is {', '.join(desired) or 'nothing'}, and the last change made {champion} the champion")
    return broken


def the_gate_promotes_once(session: Session) -> list[str]:
    """No checkpoint is promoted twice by the gate against the same champion, and its challenges are counted without a
    gap."""
    broken = []
    key = (DeploymentRow.checkpoint_id, DeploymentRow.previous_id)
    gate = select(*key, func.count()).where(DeploymentRow.action == "deploy", DeploymentRow.actor == "gate")
    for id_, previous, count in session.execute(gate.group_by(*key).having(func.count() > 1)):
        broken.append(f"the gate has promoted {id_} {count} times in the place of {previous}")
    counted = select(ChallengeRow.champion_id, func.count(), func.max(ChallengeRow.k)).group_by(
        ChallengeRow.champion_id
    )
    for champion, count, last in session.execute(counted):
        if count != last:
            broken.append(f"the challenges of {champion} are {count}, and the last is number {last}")
    return broken


def dead_letters(session: Session, damaged: Collection[str] = ()) -> list[str]:
    """No trouble of the surroundings counts against a subject. That its own artifact was damaged does."""
    rows = session.execute(select(DeadLetterRow.system, DeadLetterRow.subject_id, DeadLetterRow.error))
    return [
        f"dead letter of {system} on {id_}: {error}"
        for system, id_, error in rows
        if not any(artifact in error for artifact in damaged)
    ]


LEDGER_CHECKS: tuple[Callable[[Session], list[str]], ...] = (
    verdicts_are_unique,
    decided_subjects_have_no_claim,
    rows_are_trained_once,
    checkpoints_form_one_line,
    there_is_one_champion,
    the_gate_promotes_once,
)


class Lasting:
    """What is wrong now, and since when: it is broken after ``bound_s``, once."""

    def __init__(self, bound_s: float, clock: Callable[[], float] = CLOCK):
        self._bound_s, self._clock = bound_s, clock
        self._since: dict[str, float] = {}
        self._reported: set[str] = set()

    def note(self, wrong: Iterable[str]) -> list[str]:
        """Give what is wrong now; returns what has lasted too long."""
        now = self._clock()
        self._since = {what: self._since.get(what, now) for what in wrong}
        broken = [
            f"{what}, for {now - since:.0f} s"
            for what, since in self._since.items()
            if now - since > self._bound_s and what not in self._reported
        ]
        self._reported |= {what for what, since in self._since.items() if now - since > self._bound_s}
        return broken


class Invariants:
    """All of them, for one live run. Evidence that was reported once is not reported again."""

    def __init__(self, run: LiveRun):
        self._run = run
        with run.ledger.read() as session:  # rounds before this stack was started have reported it
            self._known = {*dead_letters(session), *(broken for check in LEDGER_CHECKS for broken in check(session))}
        self._unserved, self._orphans, self._folders = Lasting(SERVED_S), Lasting(ORPHAN_S), Lasting(FOLDER_S)

    def check(self) -> list[str]:
        with self._run.ledger.read() as session:
            found = [broken for check in LEDGER_CHECKS for broken in check(session)]
            found += dead_letters(session, self._run.damaged)
            row = session.get(ServingRow, MAIN)
            desired = row.desired_id if row is not None and row.fallback_reason is None else None
            claimed = set(map(str, session.scalars(select(ClaimRow.token).where(ClaimRow.owner.is_not(None)))))
        found += self._run.ended
        served = self._run.served()
        wrong = [] if desired is None or served == desired else [f"{desired} is desired and something else is served"]
        found += self._unserved.note(wrong)
        family = [process.pid for process in self._run.family()]
        found += self._orphans.note(orphans(family, [(each.pid, each.name()) for each in self._run.tagged()]))
        found += self._folders.note(leaked_folders(self._run.settings.work_folder, claimed))
        fresh = [each for each in found if each not in self._known]
        self._known.update(fresh)
        return fresh


def orphans(family: Iterable[int], tagged: Iterable[tuple[int, str]]) -> list[str]:
    """Processes of the run that no longer descend from it."""
    known = set(family)
    return [f"process {pid} ({name}) has lost its run" for pid, name in tagged if pid not in known]


def leaked_folders(work: Path, claimed: set[str]) -> list[str]:
    """Work folders named after a token that no claim holds."""
    found = []
    with suppress(OSError):
        for worker in os.scandir(work):
            if worker.is_dir() and "@" in worker.name:
                with suppress(OSError):
                    tokens = [entry.name for entry in os.scandir(worker.path)]
                    found += [f"work folder {worker.name}/{token}" for token in tokens if token not in claimed]
    return found
