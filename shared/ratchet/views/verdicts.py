"""Why a checkpoint is, or is not, live: every decision about it, with its numbers, and what it waits for."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, TypedDict

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.evaluation.record import overall_rate, rates_from_json, scores_in_words
from ratchet.ledger.deployments import champion, serving
from ratchet.ledger.noise_floors import noise_of
from ratchet.ledger.tables import (
    BlockRow,
    ChallengeRow,
    CheckpointRow,
    DeadLetterRow,
    DeploymentRow,
    EvaluationRow,
    VerdictRow,
)
from ratchet.removed import is_removed
from ratchet.systems import registry
from ratchet.views.checkpoint_names import label
from ratchet.views.reading import read_checkpoints, read_live
from ratchet.views.view_model import levels_line, percent, plain, status_text
from ratchet.wording import clock


class Entry(TypedDict):
    """A decision, a measurement or a lack of one: ``who`` decided what, why, and with which numbers.

    ``at`` is in epoch seconds.
    """

    who: str
    outcome: str
    reason: str
    numbers: dict[str, Any]
    at: float


def headline(session: Session, row: CheckpointRow) -> str:
    """A checkpoint in a few sentences: its status, how it was saved, its results, and what is live instead."""
    view, live = read_checkpoints(session, [row])[0], read_live(session)
    parts = [f"#{row.ordinal} ({row.id}): {status_text(view, live)}."]
    if row.ordinal:
        loss = f", training loss {row.train_loss:.3f}" if row.train_loss is not None else ""
        parts.append(f"Saved {clock(row.created_at)} at step {row.step:,}{loss}.")
    if view.overall is not None:
        parts.append(f"Right on {percent(view.overall)} % of {view.overall.n} eval items ({levels_line(view)}).")
    elif view.scores:
        parts.append(f"On the eval suite: {levels_line(view)}.")
    if row.reason:
        parts.append(row.reason)
    if live is not None and live.desired != row.ordinal:
        parts.append(f"Live is #{live.desired}: {plain(live.reason)}")
    return " ".join(parts)


def explain(session: Session, row: CheckpointRow) -> dict[str, list[Entry]]:
    """All entries about a checkpoint, by kind. Verdicts are in the order of the systems, the others by time."""
    order = {declaration.name: place for place, declaration in enumerate(registry.known(session))}
    verdicts = _verdicts_on(session, row.id)
    ranked = sorted(verdicts, key=lambda v: (order.get(v.system, len(order)), v.created_at))
    return {
        "waits_for": _missing(session, row, {verdict.system for verdict in verdicts}),
        "verdicts": [_entry(v.system, v.outcome, v.reason, v.numbers, v.created_at) for v in ranked],
        "evaluations": [
            _evaluation(session, e) for e in _of(session, EvaluationRow, EvaluationRow.checkpoint_id, row.id)
        ],
        "challenges": [
            _entry(
                f"challenge {c.k} of {_label(session, c.champion_id)}",
                c.outcome or "open",
                "",
                {name: value for name, value in c.numbers.items() if name != "verdict"},  # the evidence says the same
                c.created_at,
            )
            for c in _of(session, ChallengeRow, ChallengeRow.challenger_id, row.id)
        ],
        "deployments": [
            _entry(d.action, _label(session, d.checkpoint_id), d.reason, d.numbers, d.created_at)
            for d in _of(session, DeploymentRow, DeploymentRow.checkpoint_id, row.id)
        ],
        "blocks": [
            _entry("blocked", "until `ratchet deploy unblock`", b.reason, {}, b.created_at)
            for b in _of(session, BlockRow, BlockRow.weights, row.weights)
        ],
        "dead_letters": [
            _entry(d.system, "gave up", d.error, {"id": d.id, "failures": d.failures, "kills": d.kills}, d.created_at)
            for d in open_dead_letters(session, row.id)
        ],
    }


def _verdicts_on(session: Session, checkpoint_id: str) -> list[VerdictRow]:
    """Verdicts on the checkpoint itself, on what was mined from it, and on requests for its records.

    The index begins with system and kind, so these are named, although any would do: there may be 100,000 verdicts.
    """
    pairs = session.execute(select(VerdictRow.system, VerdictRow.subject_kind).distinct()).all()
    named = VerdictRow.system.in_({system for system, _ in pairs})
    kinds = VerdictRow.subject_kind.in_({kind for _, kind in pairs})
    itself = session.scalars(select(VerdictRow).where(named, kinds, VerdictRow.subject_id == checkpoint_id)).all()
    begins = VerdictRow.subject_id.startswith(f"{checkpoint_id}/", autoescape=True)
    return [*itself, *session.scalars(select(VerdictRow).where(named, VerdictRow.subject_kind == "request", begins))]


def _missing(session: Session, row: CheckpointRow, given: set[str]) -> list[Entry]:
    """The systems whose verdict on the checkpoint is missing, and what the deployment of it waits for.

    Nothing is missing once the checkpoint is decided on: other systems then pass it over.
    """
    if row.ordinal == 0 or row.state != "saved" or "deployment" in given:
        return []
    names = [name for name in registry.per_checkpoint(session) if name not in given]
    reasons = {"deployment": _deployment_waits(session, row, given)}
    return [_entry(name, "no verdict yet", reasons.get(name, ""), {}, row.created_at) for name in names]


def _deployment_waits(session: Session, row: CheckpointRow, given: set[str]) -> str:
    challenges = _of(session, ChallengeRow, ChallengeRow.challenger_id, row.id)
    running = next((challenge for challenge in challenges if challenge.outcome is None), None)
    if running is not None:
        return f"it is in challenge {running.k} of {_label(session, running.champion_id)}, tested on the confirm suite"
    frozen = serving(session).frozen_reason
    if frozen is not None:
        return f"deployments are frozen ({frozen}) until `ratchet deploy unfreeze`"
    judges = missing_judges(session, given)
    if judges:
        return f"waiting for {', '.join(judges)}"
    if open_dead_letters(session, champion(session).id):
        return "waits for the champion, a record of which testing has given up: `ratchet why champion`"
    return "all judges have given theirs; it waits for a better-ranked checkpoint, or for its own challenge"


def missing_judges(session: Session, given: Container[str]) -> list[str]:
    """Testing and the judges, without the systems that have given their verdicts."""
    return [name for name in ("testing", *registry.judges(session)) if name not in given]


def open_dead_letters(session: Session, checkpoint_id: str) -> Sequence[DeadLetterRow]:
    """Open dead letters about the checkpoint itself or a request for a record of it, the oldest first."""
    subject = DeadLetterRow.subject_id
    query = select(DeadLetterRow).where(
        (subject == checkpoint_id) | subject.startswith(f"{checkpoint_id}/", autoescape=True),
        DeadLetterRow.resolved_at.is_(None),
    )
    return session.scalars(query.order_by(DeadLetterRow.created_at)).all()


def _of(session: Session, table: Any, column: Any, value: str) -> Sequence[Any]:
    return session.scalars(select(table).where(column == value).order_by(table.created_at)).all()


def _label(session: Session, checkpoint_id: str) -> str:
    row = session.get(CheckpointRow, checkpoint_id)
    return label(row) if row else checkpoint_id


def _evaluation(session: Session, row: EvaluationRow) -> Entry:
    numbers = {"tokens_per_s": round(row.tokens_per_s), "key": row.key}
    graded = overall_rate(rates_from_json(row.by_level))
    told = [f"{graded.correct} of {graded.n} right"] if graded is not None else []
    noise = noise_of(session, row.suite_id, row.key)
    outcome, reason = ", ".join([*told, *scores_in_words(row.scores)]), noise.sentence if noise is not None else ""
    if is_removed(row.artifact):
        reason = f"{reason} The answers were {row.artifact}.".strip()
    return _entry(f"{row.pool} suite", outcome, reason, numbers, row.created_at)


def _entry(who: str, outcome: str, reason: str, numbers: Mapping[str, Any], at: float) -> Entry:
    return {"who": who, "outcome": outcome, "reason": reason, "numbers": dict(numbers), "at": at}
