"""Metrics of the loop's results in the ledger: queue, lineage, accuracy, calibration, coverage and deployments.

Each reader takes a session and yields metric families.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.evaluation.record import GENERAL, overall_rate, rates_from_json, scores_from_json
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.drills import age_s, last_drill
from ratchet.ledger.lineage import newest_evaluated, unjudged
from ratchet.ledger.queue import depth, low_mark, shortage, supply
from ratchet.ledger.tables import (
    BatchRow,
    CalibrationRow,
    ChallengeRow,
    CheckpointRow,
    CoverageRow,
    CurriculumRow,
    DeploymentRow,
    EvaluationRow,
    LineageRow,
    MinedRow,
    RegressionRow,
    ServingRow,
    SuiteRow,
    VerdictRow,
)
from ratchet.metrics.families import counter, gauge, single
from ratchet.settings import Settings
from ratchet.stats.proportions import wilson
from ratchet.user_tasks.supply import USED_UP, are_all_used_up
from ratchet.user_tasks.task import all_tasks

DAY_S = 86_400.0
BATCH_STATES = ("submitted", "stored", "queued", "training", "trained", "rejected", "quarantined", "skipped")


def queue(session: Session, _now: float, settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Queue depth by state, its water marks, and batches by state."""
    found = depth(session)
    places = {"submitted": found.submitted, "queued": found.queued, "running": found.running}
    yield gauge(
        "ratchet_queue_examples",
        "Examples that wait for training or are in training.",
        ("place",),
        (((place,), float(count)) for place, count in places.items()),
    )
    yield single(
        "ratchet_queue_low_water_examples",
        "Low mark, below which generation is called; 0 without families.",
        low_mark(settings),
    )
    yield single(
        "ratchet_queue_high_water_examples", "High mark, at which generation stops.", settings.queue.high_water
    )
    yield from _supply(session, settings)
    counts = dict(session.execute(select(BatchRow.state, func.count()).group_by(BatchRow.state)).all())
    yield gauge(
        "ratchet_batches",
        "Batches by state.",
        ("state",),
        (((state,), float(counts.get(state, 0))) for state in dict.fromkeys((*BATCH_STATES, *counts))),
    )
    quarantined = session.scalar(select(func.sum(BatchRow.quarantined)).where(BatchRow.quarantined > 0)) or 0
    yield single("ratchet_quarantined_examples", "Rows in quarantine.", float(quarantined))


def _supply(session: Session, settings: Settings) -> Iterator[GaugeMetricFamily]:
    found = supply(session)
    left_s = found.minutes * 60 if found.minutes is not None else None
    yield single("ratchet_queue_tokens", "Trainable tokens in the queue.", found.tokens)
    yield single(
        "ratchet_queue_left_seconds", "Time until the queue is empty at the speed of the last segments.", left_s
    )
    yield single(
        "ratchet_queue_short",
        "1 while the queue is below its low-water mark.",
        shortage(found, low_mark(settings)) is not None,
    )


def lineage(session: Session, _now: float, settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Checkpoints and the training lineage."""
    main = session.scalar(select(LineageRow).limit(1))
    newest = session.execute(
        select(CheckpointRow.ordinal, CheckpointRow.step, CheckpointRow.tokens, CheckpointRow.created_at)
        .order_by(CheckpointRow.ordinal.desc())
        .limit(1)
    ).one_or_none()
    yield single(
        "ratchet_training_paused", "1 while training is paused by an operator.", None if main is None else main.paused
    )
    yield single("ratchet_checkpoint_newest_ordinal", "Number of the newest checkpoint.", newest and newest.ordinal)
    yield single("ratchet_checkpoint_newest_step", "Optimizer steps of the newest checkpoint.", newest and newest.step)
    yield single(
        "ratchet_checkpoint_newest_tokens",
        "Tokens that the newest checkpoint was trained on.",
        newest and newest.tokens,
    )
    yield single(
        "ratchet_checkpoint_newest_timestamp_seconds",
        "When the newest checkpoint was saved.",
        newest and newest.created_at,
    )
    yield single(
        "ratchet_checkpoints_unjudged",
        "Saved checkpoints newer than any with testing's verdict.",
        unjudged(session),
    )
    yield single(
        "ratchet_checkpoints_unjudged_limit",
        "Number of unjudged checkpoints at which training waits.",
        settings.queue.unjudged_limit,
    )
    yield single(
        "ratchet_training_segment_max_seconds",
        "Longest time between two checkpoints.",
        settings.hyperparams.segment_max_s,
    )
    yield single(
        "ratchet_training_quarantined_timestamp_seconds",
        "When a batch was last quarantined because its loss diverged, 0 if never.",
        _last_quarantine(session),
    )


NEWEST_QUARANTINED = 200
"""Batches that are looked at for the time of the last quarantine."""


def _last_quarantine(session: Session) -> float:
    """Of the batches that were submitted last: verdicts have no index by their outcome."""
    newest = select(BatchRow.id).where(BatchRow.state == "quarantined").order_by(BatchRow.submitted_at.desc())
    query = select(func.max(VerdictRow.created_at)).where(
        VerdictRow.system == "training",
        VerdictRow.subject_kind == "batch",
        VerdictRow.subject_id.in_(newest.limit(NEWEST_QUARANTINED)),
        VerdictRow.outcome == "quarantined",
    )
    return session.scalar(query) or 0.0


def learning(session: Session, _now: float, _settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Metrics of the newest coverage, curriculum and mined set; no samples before the first."""
    yield from _mining(session)
    text = "Error classes that get no correction examples at present."
    yield single("ratchet_correction_backed_off_classes", text, len(classes_in_backoff(session)))
    covered: dict[str, Any] = (
        session.scalar(select(CoverageRow.numbers).order_by(CoverageRow.created_at.desc()).limit(1)) or {}
    )
    yield single(
        "ratchet_coverage_entropy_ratio", "Evenness of the newest batch over its levels.", covered.get("entropy")
    )
    yield single(
        "ratchet_coverage_novelty_ratio",
        "Share of the newest batch's items that no earlier batch had.",
        covered.get("novelty"),
    )
    newest = session.scalar(select(CurriculumRow.experiment).order_by(CurriculumRow.id.desc()).limit(1)) or {}
    shares = [((str(arm["name"]),), float(arm["share"])) for arm in newest.get("arms", ())]
    yield gauge("ratchet_curriculum_share_ratio", "Share of the batches by strategy.", ("strategy",), shares)


def tasks(session: Session, _now: float, settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Users' tasks: which are used up, how often their rows were taught, and whether anything is left to teach."""
    rows = all_tasks(session, "user")
    used_up = (((row.name,), float(row.state == USED_UP)) for row in rows)
    yield gauge("ratchet_task_used_up", "1 for a task from whose rows nothing more can be learnt.", ("task",), used_up)
    passes = (((row.name,), row.passes) for row in rows)
    yield gauge("ratchet_task_passes", "Passes over a task's rows since rows were last added.", ("task",), passes)
    text = "1 while nothing is left to train on: all tasks are used up, and no family is taught."
    yield single("ratchet_supply_used_up", text, are_all_used_up(session, settings))


def _mining(session: Session) -> Iterator[GaugeMetricFamily]:
    row = session.scalar(select(MinedRow).order_by(MinedRow.created_at.desc()).limit(1))
    found = row.by_category if row is not None else {}
    items = [((str(name),), float(count)) for name, count in found.items()]
    yield gauge("ratchet_mined_items", "Items of the newest mined set.", ("category",), items)
    follow_up = (row.numbers.get("follow_up") if row is not None else None) or {}
    shares = [
        ((kind,), follow_up[f"{kind}_failed"] / follow_up[kind]) for kind in ("mined", "random") if follow_up.get(kind)
    ]
    text = "Share of the previous set, and of random items of its levels, that is failed."
    yield gauge("ratchet_mined_failed_again_ratio", text, ("of",), shares)


POOL = "eval"
SEVERITIES = ("none", "warning", "critical")
Rows = list[tuple[tuple[str, ...], float]]


def judging(session: Session, _now: float, _settings: Settings) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """Metrics of two checkpoints by role: the newest evaluated one and the champion."""
    roles = _roles(session)
    yield gauge(
        "ratchet_checkpoint_info",
        "1 for each checkpoint and its role.",
        ("role", "checkpoint"),
        (((role, row.id), 1.0) for role, row in roles.items()),
    )
    yield from _accuracy(session, roles)
    yield from _scores(session, roles)
    yield from _calibration(session, roles)
    yield from _regressions(session)


def _roles(session: Session) -> dict[str, CheckpointRow]:
    newest = newest_evaluated(session, POOL)
    serving = session.scalar(select(ServingRow).limit(1))
    champion = session.get(CheckpointRow, serving.desired_id) if serving is not None else None
    return {role: row for role, row in (("newest", newest), ("champion", champion)) if row is not None}


def _accuracy(session: Session, roles: dict[str, CheckpointRow]) -> Iterator[GaugeMetricFamily]:
    rates, lows, highs, sizes = Rows(), Rows(), Rows(), Rows()
    overall = Rows()
    for role, row in roles.items():
        record = _record(session, row.id)
        if record is None or not record.items:
            continue
        levels = rates_from_json(record.by_level)
        pooled = overall_rate(levels)
        if pooled is not None:
            overall.append(((role,), pooled.value))
        for (family, level), rate in levels.items():
            labels, interval = (role, family, str(level)), wilson(rate.correct, rate.n)
            rates.append((labels, rate.value))
            lows.append((labels, interval.low))
            highs.append((labels, interval.high))
            sizes.append((labels, float(rate.n)))
    labels = ("role", "family", "level")
    yield gauge("ratchet_accuracy_ratio", "Share of the eval suite's graded items answered right.", labels, rates)
    yield gauge("ratchet_accuracy_low_ratio", "Lower end of Wilson's 95 % interval.", labels, lows)
    yield gauge("ratchet_accuracy_high_ratio", "Upper end of Wilson's 95 % interval.", labels, highs)
    yield gauge("ratchet_accuracy_items", "Items behind the rate.", labels, sizes)
    yield gauge(
        "ratchet_accuracy_overall_ratio", "Accuracy over all graded items of the eval suite.", ("role",), overall
    )


def _scores(session: Session, roles: dict[str, CheckpointRow]) -> Iterator[GaugeMetricFamily]:
    """Tasks measured by loss or by an LLM judge, and the drift of the general task from the base model."""
    losses, preferences, drifts = Rows(), Rows(), Rows()
    of_base = _general_loss(session, session.scalar(select(CheckpointRow.id).order_by(CheckpointRow.ordinal).limit(1)))
    for role, row in roles.items():
        record = _record(session, row.id)
        for family, score in scores_from_json(record.scores if record is not None else None).items():
            (losses if score.metric == "loss" else preferences).append(((role, family), score.mean))
        own = _general_loss(session, row.id)
        if own is not None and of_base is not None:
            drifts.append(((role,), own - of_base))
    labels = ("role", "task")
    yield gauge("ratchet_task_loss_nats", "Mean loss of the reference answers, in nats per token.", labels, losses)
    yield gauge(
        "ratchet_task_preference_ratio", "Preference of the LLM judge over the references.", labels, preferences
    )
    text = "Loss of the base model's own answers to general prompts, less the base's, in nats per token."
    yield gauge("ratchet_general_drift_nats", text, ("role",), drifts)


def _general_loss(session: Session, checkpoint_id: str | None) -> float | None:
    record = _record(session, checkpoint_id) if checkpoint_id is not None else None
    general = scores_from_json(record.scores if record is not None else None).get(GENERAL)
    return general.mean if general is not None else None


def _record(session: Session, checkpoint_id: str) -> EvaluationRow | None:
    """The checkpoint's newest record on an eval suite."""
    query = select(EvaluationRow).join(SuiteRow, SuiteRow.id == EvaluationRow.suite_id)
    query = query.where(EvaluationRow.checkpoint_id == checkpoint_id, EvaluationRow.pool == POOL)
    return session.scalar(query.order_by(SuiteRow.ordinal.desc()).limit(1))


def _calibration(session: Session, roles: dict[str, CheckpointRow]) -> Iterator[GaugeMetricFamily]:
    found = [(role, session.get(CalibrationRow, row.id)) for role, row in roles.items()]
    numbers = [(role, row.numbers) for role, row in found if row is not None]
    errors = [
        ((role, kind), float(of[kind]["ece"]))
        for role, of in numbers
        for kind in ("raw", "tempered")
        if isinstance(of.get(kind), dict) and of[kind].get("ece") is not None
    ]
    heat = [((role,), float(of["temperature"])) for role, of in numbers if of.get("temperature") is not None]
    yield gauge("ratchet_calibration_ece_ratio", "Expected calibration error.", ("role", "kind"), errors)
    yield gauge("ratchet_calibration_temperature", "The fitted temperature.", ("role",), heat)


def _regressions(session: Session) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    query = select(RegressionRow.severity, func.count(), func.max(RegressionRow.created_at)).group_by(
        RegressionRow.severity
    )
    found = {severity: (count, at) for severity, count, at in session.execute(query)}
    severities = dict.fromkeys((*SEVERITIES, *found))
    yield counter(
        "ratchet_regressions",
        "Verdicts of the regression monitor.",
        ("severity",),
        (((severity,), float(found.get(severity, (0, 0.0))[0])) for severity in severities),
    )
    yield gauge(
        "ratchet_regression_timestamp_seconds",
        "When the last verdict of this severity was given, 0 if never.",
        ("severity",),
        (((severity,), float(found.get(severity, (0, 0.0))[1])) for severity in severities),
    )


ACTIONS = ("deploy", "rollback")
OUTCOMES = ("promote", "refuse")


def serving(session: Session, now: float, settings: Settings) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """The champion, the server's last report, the changes so far, and the last rollback drill."""
    row = session.scalar(select(ServingRow).limit(1))
    if row is not None:
        yield from _champion(session, now, row)
    yield from _changes(session)
    yield from _challenges(session)
    yield from _drills(session, now, settings)


def _champion(session: Session, now: float, row: ServingRow) -> Iterator[GaugeMetricFamily]:
    ordinal = session.scalar(select(CheckpointRow.ordinal).where(CheckpointRow.id == row.desired_id))
    yield single("ratchet_champion_ordinal", "Number of the champion.", ordinal)
    yield single("ratchet_champion_age_seconds", "Time since it became the champion.", max(0.0, now - row.since_at))
    yield single("ratchet_champion_proved", "0 for a champion that an operator forced without proof.", row.proved)
    yield single("ratchet_deployment_frozen", "1 while deployment is frozen by an operator.", bool(row.frozen_reason))
    is_served = row.actual_id == row.desired_id
    yield single(
        "ratchet_served_is_champion", "1 if the inference server last reported the champion as live.", is_served
    )
    yield single(
        "ratchet_canary_passed",
        "1 if the last canary passed.",
        row.canary_passed,
    )
    yield single(
        "ratchet_canary_difference",
        "Largest difference of a token's log-probability in the last canary.",
        row.canary_difference,
    )
    yield single("ratchet_canary_timestamp_seconds", "When the last canary was run.", row.canary_at)


def _changes(session: Session) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    query = select(DeploymentRow.action, func.count(), func.max(DeploymentRow.created_at)).group_by(
        DeploymentRow.action
    )
    found = {action: (count, at) for action, count, at in session.execute(query)}
    actions = dict.fromkeys((*ACTIONS, *found))
    yield counter(
        "ratchet_deployments",
        "Changes of the champion.",
        ("action",),
        (((action,), float(found.get(action, (0, 0.0))[0])) for action in actions),
    )
    yield gauge(
        "ratchet_deployment_timestamp_seconds",
        "When the last change of this kind was made, 0 if never.",
        ("action",),
        (((action,), float(found.get(action, (0, 0.0))[1])) for action in actions),
    )


def _challenges(session: Session) -> Iterator[CounterMetricFamily]:
    query = select(func.coalesce(ChallengeRow.outcome, "open"), func.count()).group_by(ChallengeRow.outcome)
    found = dict(session.execute(query).all())
    yield counter(
        "ratchet_challenges",
        "Challenges by outcome.",
        ("outcome",),
        (((outcome,), float(found.get(outcome, 0))) for outcome in dict.fromkeys((*OUTCOMES, *found))),
    )


def _drills(session: Session, now: float, settings: Settings) -> Iterator[GaugeMetricFamily]:
    last = last_drill(session)
    yield single(
        "ratchet_last_drill_age_seconds",
        "Time since a rollback drill was last caught; before the first one, since the first run.",
        age_s(session, now),
    )
    yield single(
        "ratchet_last_drill_age_limit_seconds",
        "Age at which another drill is due.",
        settings.serving.drill_days * DAY_S,
    )
    yield single(
        "ratchet_last_drill_caught",
        "1 if the last rollback drill was caught, 0 if it was not, or failed.",
        None if last is None else last.outcome == "caught",
    )
