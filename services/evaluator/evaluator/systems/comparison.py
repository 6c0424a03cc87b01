"""Model comparison: a ranking of all evaluated checkpoints, with its uncertainty."""

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
from ratchet.systems.evaluated_checkpoints import evaluated_without, request_again
from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluator.ranking import Board, Cost, Entry, Ranking, Tally, tally

NAME = "comparison"

WHOLE_RANKINGS = 20
"""Newest rankings that keep all their entries; of older ones the best ``BEST_KEPT`` are kept."""

BEST_KEPT = 20

MOST_RANKED = 2_000
"""Newest checkpoints that are ranked; see ``ranked_with`` for the older ones that are."""


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "eval")


def do(work: Work) -> Outcome:
    """Rank the checkpoints that were evaluated under the subject's conditions.

    A worker reads the grades of each record once.
    A record that cannot be read is requested again if it is the subject's own, and left out if it is another's.
    """
    with work.read() as session:
        subject = evaluation(session, work.subject.id, current(session, "eval").id)
        assert subject is not None, "found by its record"
        own = _tally(work.artifacts, subject)
        if own is None:
            return request_again(subject, NAME)
        placed = ranked_with(session, subject)
        board, missing = _board(own.conditions_key, placed)
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
    """What the ledger knows of a checkpoint that is ranked: its record's artifact and its cost."""

    artifact: str
    cost: Cost


def ranked_with(session: Session, subject: EvaluationRow, most: int = MOST_RANKED) -> dict[str, Place]:
    """The newest checkpoints that were evaluated like the subject; and of older ones the subject itself, those that
    were ever live, and the best of the last ranking. A few queries, however many there are.
    """
    query = select(
        EvaluationRow.checkpoint_id,
        EvaluationRow.artifact,
        EvaluationRow.tokens_per_s,
        CheckpointRow.size_bytes,
        CheckpointRow.state,
    ).join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    query = query.where(EvaluationRow.suite_id == subject.suite_id, CheckpointRow.state != "broken", made_like(subject))
    newest = session.execute(query.order_by(CheckpointRow.ordinal.desc()).limit(most)).all()
    always = {subject.checkpoint_id, *_always_ranked(session)} if len(newest) == most else set()
    older = session.execute(query.where(CheckpointRow.id.in_(always))).all()
    return {
        id: Place(artifact, Cost(tokens_per_s=speed, size_bytes=size, is_kept=state == "saved"))
        for id, artifact, speed, size, state in (*older, *newest)
    }


def _always_ranked(session: Session) -> set[str]:
    last = session.scalar(select(RankingRow).order_by(RankingRow.id.desc()).limit(1))
    best = {entry["checkpoint_id"] for entry in last.entries["entries"][:BEST_KEPT]} if last is not None else set()
    return best | set(session.scalars(select(DeploymentRow.checkpoint_id).distinct()))


_boards: dict[tuple[str, ...], Board] = {}
"""The board in use, by the conditions of its records."""

_records: dict[str, str] = {}
"""The artifacts of the records on the board, by checkpoint."""


def _board(conditions: tuple[str, ...], placed: Mapping[str, Place]) -> tuple[Board, list[str]]:
    """The board of these conditions without what is no longer ranked, and the checkpoints that are not on it yet."""
    if conditions not in _boards:
        _boards.clear()
        _records.clear()
    board = _boards.setdefault(conditions, Board())
    for id in [id for id, artifact in _records.items() if id not in placed or placed[id].artifact != artifact]:
        del _records[id]
    board.keep(_records)
    return board, [id for id in placed if id not in _records]


def _tally(artifacts: ArtifactStore, row: EvaluationRow) -> Tally | None:
    """The stored tally, else one made from the record, as for tallies of earlier versions; None where that cannot be
    read.
    """
    if row.tally and "scores" in row.tally:
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
        _trim(tx, row.id - WHOLE_RANKINGS)
        tx.emit(RankingChanged(ranking_id=row.id, best_checkpoint_id=best))

    return Verdict("ranked", _reason(mine, len(ranking.entries)), mine.model_dump(mode="json"), effects)


def _trim(tx: Transaction, ranking_id: int) -> None:
    """Keep only the best of an older ranking, so that the ledger grows with the checkpoints and not their square."""
    old = tx.session.get(RankingRow, ranking_id)
    if old is not None and len(old.entries["entries"]) > BEST_KEPT:
        old.entries = {"entries": old.entries["entries"][:BEST_KEPT]}


def _reason(mine: Entry, ranked: int) -> str:
    tied = " (tied with the best)" if mine.is_tied_with_best else ""
    budget = f". Over budget: {mine.over_budget}" if mine.over_budget else ""
    return f"rank {mine.rank} of {ranked}{tied}{budget}"


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Ranks all evaluated checkpoints; those that cannot be told apart are tied.",
    emits=(RankingChanged,),
    sweep_s=600.0,
    lanes=(Lane("rank", (CheckpointEvaluated,), find, do),),
    order=4,
    per_checkpoint=True,
    is_judge=True,
    pending="eval records",
)
