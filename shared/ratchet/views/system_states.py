"""The systems as they are now: their workers, what each works on, what waits, and what was given up.

Of a system whose code is not installed here the worker's registration tells enough. It does not know how logs are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.errors import UnknownPlugin
from ratchet.ledger.health import ABSENT, PRESENT_S, last_line
from ratchet.ledger.ledger import clock
from ratchet.ledger.pending import QUERIES, oldest
from ratchet.ledger.tables import ClaimRow, DeadLetterRow, VerdictRow, WorkerRow
from ratchet.systems import registry
from ratchet.systems.system import Declaration
from ratchet.views.event_words import Names
from ratchet.wording import shortened

VERDICTS = 25
LETTERS = 20


@dataclass(frozen=True)
class WorkerState:
    """A worker. ``state`` is as it recorded it, or ``gone`` if it should be there and was not seen lately."""

    name: str
    host: str
    state: str
    version: str
    started_at: float
    seen_at: float
    error: str
    failures: int
    metrics_url: str | None
    pages: dict[str, str]

    @property
    def why(self) -> str:
        """The last line of its error."""
        return last_line(self.error)


@dataclass(frozen=True)
class WorkState:
    """A claim: work under way (``owner``), or failures after which the subject is tried again at ``again_at``."""

    subject: str
    subject_kind: str
    subject_id: str
    owner: str | None
    note: str
    since_at: float
    heartbeat_at: float
    again_at: float
    progress: int
    failures: int
    kills: int

    @property
    def is_running(self) -> bool:
        return self.owner is not None


@dataclass(frozen=True)
class SystemState:
    """A system with its workers and its work. ``dead`` counts open dead letters."""

    name: str
    declaration: Declaration
    workers: tuple[WorkerState, ...]
    work: tuple[WorkState, ...]
    waiting: int
    oldest_at: float | None
    dead: int

    @property
    def running(self) -> tuple[WorkState, ...]:
        return tuple(work for work in self.work if work.is_running)

    @property
    def retried(self) -> tuple[WorkState, ...]:
        """Subjects that failed and will be tried again."""
        return tuple(work for work in self.work if not work.is_running and work.failures + work.kills)


@dataclass(frozen=True)
class NamedDeadLetter:
    """A dead letter with the display name of its subject."""

    row: DeadLetterRow
    subject: str


@dataclass(frozen=True)
class NamedVerdict:
    """A verdict with the display name of its subject."""

    row: VerdictRow
    subject: str


def read_systems(session: Session) -> list[SystemState]:
    """All systems, in their order."""
    return list(_states(session, registry.known(session)))


def read_system(session: Session, name: str) -> SystemState | None:
    """One system, with its purpose and events where its code is installed here; None for an unknown name."""
    found = [each for each in registry.known(session) if each.name == name]
    return next(_states(session, [_completed(each) for each in found]), None)


def backlog(session: Session, system: Declaration) -> tuple[float | None, int]:
    """Since when the first subject waits for the system (None if there is none), and how many do."""
    waiting = QUERIES.get(system.pending or "")
    return oldest(session, waiting(system.name)) if waiting is not None else (None, 0)


def newest_verdicts(
    session: Session, system: str, before: int | None = None, limit: int = VERDICTS
) -> tuple[list[NamedVerdict], int | None]:
    """The system's verdicts before that id, the newest first, and where the next page begins."""
    ids = select(VerdictRow.id).where(VerdictRow.system == system)
    if before is not None:
        ids = ids.where(VerdictRow.id < before)
    found = session.scalars(ids.order_by(VerdictRow.id.desc()).limit(limit + 1)).all()
    query = select(VerdictRow).where(VerdictRow.id.in_(found[:limit])).order_by(VerdictRow.id.desc())
    names = Names(session)
    given = [NamedVerdict(row, names.of(row.subject_kind, row.subject_id)) for row in session.scalars(query)]
    return given, found[limit - 1] if len(found) > limit else None


def dead_letters(
    session: Session,
    system: str | None = None,
    *,
    is_open: bool = True,
    before: int | None = None,
    limit: int = LETTERS,
) -> tuple[list[NamedDeadLetter], int | None]:
    """Open or resolved dead letters, the newest first, and where the next page begins."""
    resolved = DeadLetterRow.resolved_at
    query = select(DeadLetterRow).where(resolved.is_(None) if is_open else resolved.is_not(None))
    if system is not None:
        query = query.where(DeadLetterRow.system == system)
    if before is not None:
        query = query.where(DeadLetterRow.id < before)
    rows = session.scalars(query.order_by(DeadLetterRow.id.desc()).limit(limit + 1)).all()
    names = Names(session)
    letters = [NamedDeadLetter(row, names.of(row.subject_kind, row.subject_id)) for row in rows[:limit]]
    return letters, rows[limit - 1].id if len(rows) > limit else None


def count_dead(session: Session) -> dict[str, int]:
    """Open dead letters by system."""
    query = select(DeadLetterRow.system, func.count()).where(DeadLetterRow.resolved_at.is_(None))
    return {system: int(count) for system, count in session.execute(query.group_by(DeadLetterRow.system))}


def _completed(declaration: Declaration) -> Declaration:
    """With what a worker of an earlier version did not register, where the code is here."""
    if declaration.purpose:
        return declaration
    try:
        system = registry.get(declaration.name)
    except (UnknownPlugin, ImportError):
        return declaration
    told = Declaration.of(system)
    return replace(declaration, purpose=told.purpose, consumes=told.consumes, emits=told.emits)


def _states(session: Session, declarations: Sequence[Declaration]) -> Iterator[SystemState]:
    now = clock(session)
    workers: dict[str, list[WorkerState]] = {}
    for row in session.scalars(select(WorkerRow).order_by(WorkerRow.name)):
        workers.setdefault(row.system, []).append(_worker(row, now))
    work: dict[str, list[WorkState]] = {}
    names = Names(session)
    claims = select(ClaimRow).where(ClaimRow.owner.is_not(None) | (ClaimRow.failures + ClaimRow.kills > 0))
    for claim in session.scalars(claims.order_by(ClaimRow.claimed_at.desc()).limit(500)):
        work.setdefault(claim.system, []).append(_work(claim, names, now))
    dead = count_dead(session)
    for each in declarations:
        first, count = backlog(session, each)
        yield SystemState(
            each.name,
            each,
            tuple(workers.get(each.name, ())),
            tuple(work.get(each.name, ())),
            count,
            first,
            dead.get(each.name, 0),
        )


def _worker(row: WorkerRow, now: float) -> WorkerState:
    is_gone = row.state not in ABSENT and row.seen_at <= now - PRESENT_S
    return WorkerState(
        name=row.name,
        host=row.host,
        state="gone" if is_gone else row.state,
        version=row.version,
        started_at=row.started_at,
        seen_at=row.seen_at,
        error=row.error or "",
        failures=row.failures,
        metrics_url=row.metrics_url,
        pages={str(name): str(url) for name, url in row.pages.items()},
    )


def _work(row: ClaimRow, names: Names, now: float) -> WorkState:
    return WorkState(
        subject=names.of(row.subject_kind, row.subject_id),
        subject_kind=row.subject_kind,
        subject_id=row.subject_id,
        owner=row.owner if row.expires_at > now else None,
        note=shortened(row.note, 200),
        since_at=row.claimed_at,
        heartbeat_at=row.heartbeat_at,
        again_at=row.not_before_at,
        progress=row.progress,
        failures=row.failures,
        kills=row.kills,
    )
