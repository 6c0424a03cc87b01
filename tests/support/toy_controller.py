"""A system whose subjects and behaviour a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ratchet.artifacts import ArtifactStore
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.ledger import next_counter
from ratchet.ledger.tables import ClaimRow, CounterRow, VerdictRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.controller import Controller
from ratchet.systems.system import Check
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.support.bus import InlineChildren


def decided(work: Work) -> Outcome:
    def effects(tx: Transaction) -> None:
        next_counter(tx.session, f"acted:{work.subject.id}")

    return Verdict("fine", "it is", {"n": 1}, effects=effects, events=(BatchQueued(batch_id=work.subject.id),))


@dataclass
class Toys:
    """One system whose subjects and behaviour a test chooses."""

    ledger: Ledger
    settings: Settings
    subjects: list[str]
    do: Callable[[Work], Outcome] = decided
    seen: list[str] = field(default_factory=list)
    worker: str = "toys@here+0"
    check: Check | None = None
    reconciled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lane = Lane("play", (), self.find, self._do, check=self.check, reconciled=self.reconciled)
        system = System("toys", "3090", "Plays.", emits=(BatchQueued,), sweep_s=60.0, lanes=(lane,))
        store = ArtifactStore(f"file://{self.settings.home}/artifacts")
        self.controller = Controller(system, self.settings, self.ledger, store, InlineChildren(), self.worker)

    def run(self, cause: str | None = None) -> int:
        return self.controller.run_pending("play", cause)

    def find(self, _session: Session, _settings: Settings) -> Sequence[Subject]:
        return [Subject("toy", subject_id) for subject_id in self.subjects]

    def _do(self, work: Work) -> Outcome:
        self.seen.append(work.subject.id)
        return self.do(work)

    def verdicts(self) -> list[VerdictRow]:
        with self.ledger.read() as session:
            return list(session.scalars(select(VerdictRow).order_by(VerdictRow.id)))

    def claims(self) -> list[ClaimRow]:
        with self.ledger.read() as session:
            return list(session.scalars(select(ClaimRow)))

    def acted(self, subject_id: str) -> int:
        with self.ledger.read() as session:
            row = session.get(CounterRow, f"acted:{subject_id}")
            return row.value if row else 0
