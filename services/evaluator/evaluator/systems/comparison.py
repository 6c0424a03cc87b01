"""Model comparison engine: a ranking over all evaluated checkpoints, with its uncertainty."""

from __future__ import annotations

from ratchet.artifacts import ArtifactStore
from ratchet.evaluation.record import RecordKey
from ratchet.evaluation.stored import stored
from ratchet.events.catalogue import CheckpointEvaluated, RankingChanged
from ratchet.ledger import Transaction
from ratchet.ledger.counters import next_value
from ratchet.ledger.suites import current, evaluated, evaluation
from ratchet.ledger.tables import Evaluation, Ranking
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.backlog import evaluated_without
from sqlalchemy.orm import Session

from evaluator.comparison import rank
from evaluator.tally import Tally, tally

NAME = "comparison"


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "eval")


def do(work: Work) -> Outcome:
    """Rank everything that was evaluated like the subject; each record is read once in a worker's life."""
    with work.read() as session:
        subject = evaluation(session, work.subject.id, current(session, "eval").id)
        rows = evaluated(session, "eval")
    assert subject is not None, "found by its record"
    alike = [row for row in rows if _conditions(row) == _conditions(subject)]
    ranking = rank([_tally(work.artifacts, row) for row in alike])
    return _ranked(work.subject.id, ranking.model_dump(mode="json"))


def _conditions(row: Evaluation) -> dict[str, str]:
    return RecordKey.model_validate(row.key).conditions()


_kept: dict[tuple[str, str], Tally] = {}
"""By checkpoint and artifact of the record."""


def _tally(artifacts: ArtifactStore, row: Evaluation) -> Tally:
    key = (row.checkpoint_id, row.artifact)
    if key not in _kept:
        _kept[key] = tally(stored(artifacts, row))
    return _kept[key]


def _ranked(checkpoint_id: str, ranking: dict[str, list[dict[str, object]]]) -> Verdict:
    entries = ranking["entries"]
    mine = next(entry for entry in entries if entry["checkpoint_id"] == checkpoint_id)
    best = str(entries[0]["checkpoint_id"])
    tied = " (tied with the best)" if mine["is_tied_with_best"] else ""

    def effects(tx: Transaction) -> None:
        row = Ranking(
            id=next_value(tx.session, "rankings"), best_checkpoint_id=best, entries=ranking, created_at=tx.now
        )
        tx.session.add(row)
        tx.emit(RankingChanged(ranking_id=row.id, best_checkpoint_id=best))

    return Verdict("ranked", f"rank {mine['rank']} of {len(entries)}{tied}", mine, effects)


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Ranks all evaluated checkpoints; what cannot be told apart is called a tie.",
    says=(RankingChanged,),
    sweep_s=600.0,
    lanes=(Lane("rank", (CheckpointEvaluated,), find, do),),
)
