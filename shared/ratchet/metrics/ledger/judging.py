"""What the judges said: accuracy with its interval, calibration, regressions."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.evaluation.by_level import from_json
from ratchet.ledger.line import newest_evaluated
from ratchet.ledger.tables import CalibrationRow, CheckpointRow, EvaluationRow, RegressionRow, ServingRow, SuiteRow
from ratchet.metrics.exposition import counter, gauge
from ratchet.settings import Settings
from ratchet.stats.wilson import wilson

POOL = "eval"
SEVERITIES = ("none", "warning", "critical")
Rows = list[tuple[tuple[str, ...], float]]


def judging(session: Session, _now: float, _settings: Settings) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """Of two checkpoints, by their role: the newest that is evaluated, and the champion."""
    roles = _roles(session)
    yield gauge(
        "ratchet_checkpoint_info",
        "Which checkpoint plays which role.",
        ("role", "checkpoint"),
        (((role, row.id), 1.0) for role, row in roles.items()),
    )
    yield from _accuracy(session, roles)
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
        overall.append(((role,), record.correct / record.items))
        for (family, level), rate in from_json(record.by_level).items():
            labels, interval = (role, family, str(level)), wilson(rate.correct, rate.n)
            rates.append((labels, rate.value))
            lows.append((labels, interval.low))
            highs.append((labels, interval.high))
            sizes.append((labels, float(rate.n)))
    labels = ("role", "family", "level")
    yield gauge("ratchet_accuracy_ratio", "Share of the eval suite's items answered right.", labels, rates)
    yield gauge("ratchet_accuracy_low_ratio", "Lower end of Wilson's 95 % interval.", labels, lows)
    yield gauge("ratchet_accuracy_high_ratio", "Upper end of Wilson's 95 % interval.", labels, highs)
    yield gauge("ratchet_accuracy_items", "Items behind the rate.", labels, sizes)
    yield gauge("ratchet_accuracy_overall_ratio", "Over all items of the eval suite.", ("role",), overall)


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
        "Judgements of the regression monitor.",
        ("severity",),
        (((severity,), float(found.get(severity, (0, 0.0))[0])) for severity in severities),
    )
    yield gauge(
        "ratchet_regression_timestamp_seconds",
        "When a checkpoint was last judged so, 0 if never.",
        ("severity",),
        (((severity,), float(found.get(severity, (0, 0.0))[1])) for severity in severities),
    )
