"""What is deployed, since when, and whether it is what was judged."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import ChallengeRow, CheckpointRow, DeploymentRow, ServingRow
from ratchet.metrics.exposition import counter, gauge, single
from ratchet.settings import Settings

ACTIONS = ("deploy", "rollback")
OUTCOMES = ("promote", "refuse")


def serving(session: Session, now: float, _settings: Settings) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """The champion, what the server said last, and the changes so far."""
    row = session.scalar(select(ServingRow).limit(1))
    if row is not None:
        yield from _champion(session, now, row)
    yield from _changes(session)
    yield from _challenges(session)


def _champion(session: Session, now: float, row: ServingRow) -> Iterator[GaugeMetricFamily]:
    ordinal = session.scalar(select(CheckpointRow.ordinal).where(CheckpointRow.id == row.desired_id))
    yield single("ratchet_champion_ordinal", "Number of the checkpoint that is to be live.", ordinal)
    yield single("ratchet_champion_age_seconds", "Since when it is.", max(0.0, now - row.since_at))
    yield single("ratchet_champion_proved", "0 while a human has forced it.", row.proved)
    yield single("ratchet_deployment_frozen", "1 while a human has frozen it.", bool(row.frozen_reason))
    is_served = row.actual_id == row.desired_id
    yield single("ratchet_served_is_champion", "1 if the inference server last said that it serves it.", is_served)
    yield single(
        "ratchet_canary_passed",
        "1 if the server's answers were those of the evaluation when they were last compared.",
        row.canary_passed,
    )
    yield single(
        "ratchet_canary_difference",
        "Largest difference of a token's log-probability in that comparison.",
        row.canary_difference,
    )
    yield single("ratchet_canary_timestamp_seconds", "When that was.", row.canary_at)


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
        "When that last happened, 0 if never.",
        ("action",),
        (((action,), float(found.get(action, (0, 0.0))[1])) for action in actions),
    )


def _challenges(session: Session) -> Iterator[CounterMetricFamily]:
    query = select(func.coalesce(ChallengeRow.outcome, "open"), func.count()).group_by(ChallengeRow.outcome)
    found = dict(session.execute(query).all())
    yield counter(
        "ratchet_challenges",
        "Openings of a confirm suite, by what the gate said.",
        ("outcome",),
        (((outcome,), float(found.get(outcome, 0))) for outcome in dict.fromkeys((*OUTCOMES, *found))),
    )
