"""Model comparison engine: a ranking over all evaluated checkpoints, with its uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ratchet.artifacts import ArtifactStore
from ratchet.evaluation.load_evaluation import load_if_intact
from ratchet.events.catalogue import CheckpointEvaluated, RankingChanged
from ratchet.ledger import Transaction
from ratchet.ledger.ledger import next_counter
from ratchet.ledger.suites import current, evaluation, evaluations, made_like
from ratchet.ledger.tables import CheckpointRow, DeploymentRow, EvaluationRow, RankingRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.judging import evaluated_without, request_again
from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluator.ranking import Board, Cost, Entry, Ranking, Tally, tally

NAME = "comparison"

FULL = 20
"""Newest rankings that keep all their entries; of older ones the best ``HEAD`` are kept."""

HEAD = 20

FIELD = 2_000
"""Newest checkpoints that are ranked; see ``field_of`` for the older ones that are."""


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "eval")


def do(work: Work) -> Outcome:
    """Rank what was evaluated like the subject. Each record's grades are read once in a worker's life.

    One that cannot be read is asked for anew where it is the subject's own, and passed over where it is another's.
    """
    with work.read() as session:
        subject = evaluation(session, work.subject.id, current(session, "eval").id)
        assert subject is not None, "found by its record"
        own = _tally(work.artifacts, subject)
        if own is None:
            return request_again(subject, NAME)
        placed = field_of(session, subject)
        board, missing = _board(own.kind, placed)
        fresh = evaluations(session, missing, subject.suite_id)
    for row in fresh:
        read = _tally(work.artifacts, row)
        if read is not None:
            board.add(read)
            _records[row.checkpoint_id] = row.artifact
    costs = {id: place.cost for id, place in placed.items()}
    return _ranked(work.subject.id, board.rank(costs, costs, work.settings.comparison))


@dataclass(frozen=True)
class Place:
    """What the ledger says of a checkpoint that is ranked: its record's artifact and its cost."""

    artifact: str
    cost: Cost


def field_of(session: Session, subject: EvaluationRow, most: int = FIELD) -> dict[str, Place]:
    """The newest checkpoints that were evaluated like the subject; and of older ones the subject itself, those that
    were ever live, and the head of the last ranking. A few queries, however many they are."""
    query = select(
        EvaluationRow.checkpoint_id,
        EvaluationRow.artifact,
        EvaluationRow.tokens_per_s,
        CheckpointRow.size_bytes,
        CheckpointRow.state,
    ).join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    query = query.where(EvaluationRow.suite_id == subject.suite_id, CheckpointRow.state != "broken", made_like(subject))
    newest = session.execute(query.order_by(CheckpointRow.ordinal.desc()).limit(most)).all()
    lasting = {subject.checkpoint_id, *_lasting(session)} if len(newest) == most else set()
    older = session.execute(query.where(CheckpointRow.id.in_(lasting))).all()
    return {
        id: Place(artifact, Cost(tokens_per_s=speed, size_bytes=size, is_kept=state == "saved"))
        for id, artifact, speed, size, state in (*older, *newest)
    }


def _lasting(session: Session) -> set[str]:
    last = session.scalar(select(RankingRow).order_by(RankingRow.id.desc()).limit(1))
    heads = {entry["checkpoint_id"] for entry in last.entries["entries"][:HEAD]} if last is not None else set()
    return heads | set(session.scalars(select(DeploymentRow.checkpoint_id).distinct()))


_boards: dict[tuple[str, ...], Board] = {}
"""The board in use, by what the records on it have in common."""

_records: dict[str, str] = {}
"""The artifacts of the records on it, by checkpoint."""


def _board(kind: tuple[str, ...], placed: Mapping[str, Place]) -> tuple[Board, list[str]]:
    """The board of one kind of records, with what is no longer ranked taken off; and who is not on it yet."""
    if kind not in _boards:
        _boards.clear()
        _records.clear()
    board = _boards.setdefault(kind, Board())
    for id in [id for id, artifact in _records.items() if id not in placed or placed[id].artifact != artifact]:
        del _records[id]
    board.keep(_records)
    return board, [id for id in placed if id not in _records]


def _tally(artifacts: ArtifactStore, row: EvaluationRow) -> Tally | None:
    """None where it must be taken from a record that cannot be read."""
    if row.tally:
        return Tally.model_validate(row.tally)
    record = load_if_intact(artifacts, row)
    return tally(record) if record is not None else None


def _ranked(checkpoint_id: str, ranking: Ranking) -> Verdict:
    mine = next(entry for entry in ranking.entries if entry.checkpoint_id == checkpoint_id)
    best = ranking.best.checkpoint_id

    def effects(tx: Transaction) -> None:
        row = RankingRow(
            id=next_counter(tx.session, "rankings"),
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
    emits=(RankingChanged,),
    sweep_s=600.0,
    lanes=(Lane("rank", (CheckpointEvaluated,), find, do),),
    order=4,
    per_checkpoint=True,
    is_judge=True,
    pending="eval records",
)
