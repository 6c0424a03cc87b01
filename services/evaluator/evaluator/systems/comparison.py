"""Model comparison engine: a ranking over all evaluated checkpoints, with its uncertainty."""

from __future__ import annotations

from ratchet.artifacts import ArtifactStore
from ratchet.evaluation.record import RecordKey
from ratchet.evaluation.stored import stored
from ratchet.events.catalogue import CheckpointEvaluated, RankingChanged
from ratchet.ledger import Transaction
from ratchet.ledger.counters import next_value
from ratchet.ledger.suites import current, evaluated, evaluation
from ratchet.ledger.tables import Checkpoint, Evaluation
from ratchet.ledger.tables import Ranking as RankingRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.backlog import evaluated_without
from sqlalchemy.orm import Session

from evaluator.comparison import Board, Cost, Entry, Ranking
from evaluator.tally import Tally, tally

NAME = "comparison"

FULL = 20
"""Newest rankings that keep all their entries; of older ones the best ``HEAD`` are kept."""

HEAD = 20


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "eval")


def do(work: Work) -> Outcome:
    """Rank everything that was evaluated like the subject. Each record's grades are read once in a worker's life."""
    with work.read() as session:
        subject = evaluation(session, work.subject.id, current(session, "eval").id)
        assert subject is not None, "found by its record"
        mine = _conditions(subject)
        alike = [row for row in evaluated(session, "eval") if _conditions(row) == mine]
        costs = {row.checkpoint_id: _cost(session.get_one(Checkpoint, row.checkpoint_id), row) for row in alike}
    board = _boards.setdefault(_tally(work.artifacts, subject).kind, Board())
    for row in alike:
        board.add(_tally(work.artifacts, row))
    return _ranked(work.subject.id, board.rank(costs, costs, work.settings.comparison))


def _conditions(row: Evaluation) -> dict[str, str]:
    return RecordKey.model_validate(row.key).conditions()


def _cost(checkpoint: Checkpoint, row: Evaluation) -> Cost:
    return Cost(tokens_per_s=row.tokens_per_s, size_bytes=checkpoint.size_bytes, is_kept=checkpoint.state == "saved")


_boards: dict[tuple[str, ...], Board] = {}
"""By what the records on them have in common."""

_tallies: dict[tuple[str, str], Tally] = {}
"""By checkpoint and artifact of the record."""


def _tally(artifacts: ArtifactStore, row: Evaluation) -> Tally:
    key = (row.checkpoint_id, row.artifact)
    if key not in _tallies:
        _tallies[key] = Tally.model_validate(row.tally) if row.tally else tally(stored(artifacts, row))
    return _tallies[key]


def _ranked(checkpoint_id: str, ranking: Ranking) -> Verdict:
    mine = next(entry for entry in ranking.entries if entry.checkpoint_id == checkpoint_id)
    best = ranking.best.checkpoint_id

    def effects(tx: Transaction) -> None:
        row = RankingRow(
            id=next_value(tx.session, "rankings"),
            best_checkpoint_id=best,
            entries=ranking.model_dump(mode="json"),
            created_at=tx.now,
        )
        tx.session.add(row)
        _shorten(tx, row.id - FULL)
        tx.emit(RankingChanged(ranking_id=row.id, best_checkpoint_id=best))

    return Verdict("ranked", _reason(mine, len(ranking.entries)), mine.model_dump(mode="json"), effects)


def _shorten(tx: Transaction, ranking_id: int) -> None:
    """Keep the head alone of an older ranking, so that the ledger grows with the checkpoints and not their square."""
    old = tx.session.get(RankingRow, ranking_id)
    if old is not None and len(old.entries["entries"]) > HEAD:
        old.entries = {"entries": old.entries["entries"][:HEAD]}


def _reason(mine: Entry, ranked: int) -> str:
    tied = " (tied with the best)" if mine.is_tied_with_best else ""
    budget = f". Over budget: {mine.over_budget}" if mine.over_budget else ""
    return f"rank {mine.rank} of {ranked}{tied}{budget}"


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Ranks all evaluated checkpoints; what cannot be told apart is called a tie.",
    says=(RankingChanged,),
    sweep_s=600.0,
    lanes=(Lane("rank", (CheckpointEvaluated,), find, do),),
)
