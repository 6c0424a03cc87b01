"""One checkpoint: what it can do, what was decided about it and what would change that, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.evaluation.noise_floor import NoiseFloor
from ratchet.evaluation.record import Rate, TaskScore, overall_rate, rates_from_json, scores_from_json
from ratchet.ledger.deployments import was_proved
from ratchet.ledger.noise_floors import noise_of
from ratchet.ledger.tables import (
    BlockRow,
    CalibrationRow,
    ChallengeRow,
    CheckpointRow,
    DeploymentRow,
    EvaluationRow,
    ServingRow,
)
from ratchet.stats.proportions import Interval, wilson
from ratchet.views.causes import chain, describe_effects, effects, in_words
from ratchet.views.checkpoint_list import RankingPlace, ranking_places
from ratchet.views.checkpoint_names import checkpoint_folder, find_checkpoint
from ratchet.views.checkpoint_topics import calibration
from ratchet.views.journal import why_missing
from ratchet.views.next_step import next_step
from ratchet.views.proof import Proof, proof_of
from ratchet.views.reading import read_checkpoints, read_live
from ratchet.views.topics import Reader, Topic
from ratchet.views.trained_on import children, examples_on_the_way, saved_event, trained_on
from ratchet.views.verdict_numbers import MOST_LINES, Readable, lines, readable
from ratchet.views.verdicts import Entry, explain
from ratchet.views.view_model import status_text
from ratchet.web.reliability import diagram_of
from ratchet.web.site import Query

SHOWN_POOLS = ("eval", "probe")
MOST_EFFECTS = 60
MOST_CAUSES = 12


@dataclass(frozen=True)
class Verdict:
    """A system's decision with its numbers, the important ones readable and all of them as lines."""

    entry: Entry
    numbers: Readable
    proof: Proof | None
    lines: list[str]
    left_out: int


@dataclass(frozen=True)
class Result:
    """What it answers right on one level; ``interval`` is Wilson's (95 %)."""

    family: str
    level: int
    rate: Rate
    interval: Interval


@dataclass(frozen=True)
class Record:
    """Results on one suite."""

    pool: str
    at: float
    overall: Rate | None
    interval: Interval | None
    levels: list[Result]
    scores: Mapping[str, TaskScore]
    noise: NoiseFloor | None


def read(reader: Reader, _query: Query, name: str) -> dict[str, Any]:
    session = reader.session
    row = find_checkpoint(session, name)
    view, live = read_checkpoints(session, [row])[0], read_live(session)
    explained = explain(session, row)
    found: dict[str, Any] = {
        "row": row,
        "view": view,
        "status": status_text(view, live),
        "live": live,
        "place": _place(session, row),
        "next": next_step(session, row),
        "verdicts": [_verdict(entry) for entry in explained["verdicts"]],
        "waits_for": explained["waits_for"],
        "dead_letters": explained["dead_letters"],
        "records": _records(session, row),
        "parent": session.get(CheckpointRow, row.parent_id) if row.parent_id else None,
        "children": children(session, row),
        "data": trained_on(session, row),
        "way": examples_on_the_way(session, row),
        "folder": checkpoint_folder(reader.settings, row),
        "challenges": _challenges(session, row),
        "deployments": _deployments(session, row),
        "can": _actions(session, row),
    }
    return found | _calibration(reader, row) | _causes(reader, row)


def _place(session: Session, row: CheckpointRow) -> tuple[RankingPlace, int] | None:
    """Its place, and the number of checkpoints that were ranked."""
    places = ranking_places(session)
    return (places[row.id], len(places)) if row.id in places else None


def _verdict(entry: Entry) -> Verdict:
    told = lines(entry["numbers"])
    return Verdict(
        entry=entry,
        numbers=readable(entry["who"], entry["numbers"]),
        proof=proof_of(entry["numbers"]),
        lines=told[:MOST_LINES],
        left_out=len(told[MOST_LINES:]),
    )


def _records(session: Session, row: CheckpointRow) -> list[Record]:
    """Its records on the suites that may be looked at, the newest of each pool."""
    query = select(
        EvaluationRow.pool,
        EvaluationRow.by_level,
        EvaluationRow.scores,
        EvaluationRow.created_at,
        EvaluationRow.suite_id,
        EvaluationRow.key,
    )
    query = query.where(EvaluationRow.checkpoint_id == row.id, EvaluationRow.pool.in_(SHOWN_POOLS))
    newest = {each.pool: each for each in session.execute(query.order_by(EvaluationRow.created_at))}
    return [_record(session, newest[pool]) for pool in SHOWN_POOLS if pool in newest]


def _record(session: Session, found: Any) -> Record:
    rates = rates_from_json(found.by_level)
    overall = overall_rate(rates)
    return Record(
        pool=found.pool,
        at=found.created_at,
        overall=overall,
        interval=wilson(overall.correct, overall.n) if overall is not None else None,
        levels=[Result(*cell, rate, wilson(rate.correct, rate.n)) for cell, rate in sorted(rates.items()) if rate.n],
        scores=scores_from_json(found.scores),
        noise=noise_of(session, found.suite_id, found.key),
    )


def _challenges(session: Session, row: CheckpointRow) -> list[tuple[ChallengeRow, int]]:
    """Its challenges of a champion, with the champion's number."""
    query = select(ChallengeRow, CheckpointRow.ordinal).join(
        CheckpointRow, CheckpointRow.id == ChallengeRow.champion_id
    )
    found = session.execute(query.where(ChallengeRow.challenger_id == row.id).order_by(ChallengeRow.id))
    return [(challenge, ordinal) for challenge, ordinal in found]


def _deployments(session: Session, row: CheckpointRow) -> list[DeploymentRow]:
    """Changes that made it live, and those that ended that."""
    about_it = (DeploymentRow.checkpoint_id == row.id) | (DeploymentRow.previous_id == row.id)
    return list(session.scalars(select(DeploymentRow).where(about_it).order_by(DeploymentRow.id).limit(50)))


def _actions(session: Session, row: CheckpointRow) -> dict[str, bool]:
    """Which of the operator's actions make sense here."""
    served = session.scalar(select(ServingRow).limit(1))
    is_champion = served is not None and served.desired_id == row.id
    is_blocked = session.get(BlockRow, row.weights) is not None
    can_serve = served is not None and row.state == "saved" and not is_blocked and not is_champion
    return {
        "rollback": is_champion and served is not None and served.previous_id is not None,
        "freeze": served is not None and served.frozen_reason is None,
        "unfreeze": served is not None and served.frozen_reason is not None,
        "unblock": is_blocked,
        "deploy": can_serve and was_proved(session, row.id),
        "force": can_serve and not was_proved(session, row.id),
        "ask": row.state == "saved",
    }


def _calibration(reader: Reader, row: CheckpointRow) -> dict[str, Any]:
    found = reader.session.get(CalibrationRow, row.id)
    topic: Topic | None = None
    if found is not None and "shipped" in found.numbers:
        topic = calibration(reader, row.id)
    return {"calibration": topic, "diagram": diagram_of(found.numbers) if found is not None else None}


def _causes(reader: Reader, row: CheckpointRow) -> dict[str, Any]:
    """The event that announced it, with what led to it and what it led to."""
    session = reader.session
    event = saved_event(session, row)
    if event is None:
        missing = why_missing(session, reader.settings)
        return {"saved": None, "missing": missing, "causes": [], "goes_on": False, "effects": ()}
    causes, found = chain(session, event.event_id, MOST_CAUSES), effects(session, event.event_id, MOST_EFFECTS)
    described = in_words(session, causes, found)
    return {
        "saved": described[event.event_id],
        "causes": [described[each.event_id] for each in causes[:-1]],
        "goes_on": causes[0].cause is not None,
        "effects": describe_effects(found, described),
    }
