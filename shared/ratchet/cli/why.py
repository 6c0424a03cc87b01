"""`ratchet why CHECKPOINT`: every decision about it, with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli import context
from ratchet.cli.context import opened
from ratchet.cli.output import Json, clock, print_json
from ratchet.cli.view.reading import read_checkpoints, read_live
from ratchet.cli.view.view_model import levels_line, percent, plain, status_text
from ratchet.evaluation.record import overall_rate, rates_from_json, scores_in_words
from ratchet.ledger.deployments import champion, serving
from ratchet.ledger.tables import (
    BlockRow,
    ChallengeRow,
    CheckpointRow,
    DeadLetterRow,
    DeploymentRow,
    EvaluationRow,
    VerdictRow,
)
from ratchet.systems import registry

Fact = dict[str, Any]


def why(
    checkpoint: Annotated[
        str, typer.Argument(help="Its number (7), the beginning of its id, champion, newest, previous or base.")
    ],
    numbers: Annotated[bool, typer.Option("--numbers", help="Also print all numbers of each verdict.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Explain why a checkpoint is, or is not, live: each system's verdict, with its numbers.

    A checkpoint can also be named as champion, newest, previous or base.
    """
    with opened() as (settings, ledger), ledger.read() as session:
        found = context.find_checkpoint(session, checkpoint)
        facts = _facts(session, found)
        text = _headline(session, found)
        folder = context.checkpoint_folder(settings, found)
    if as_json:
        about = {"checkpoint_id": found.id, "ordinal": found.ordinal, "headline": text, "folder": folder}
        print_json({**about, **facts})
        return
    typer.echo(text)
    if folder is not None:
        typer.echo(f"files: {folder}")
    for section, rows in facts.items():
        if rows:
            typer.echo(f"\n{section.replace('_', ' ')}")
        for row in rows:
            typer.echo(_paragraph(row, everything=numbers))


def _headline(session: Session, row: CheckpointRow) -> str:
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


def _facts(session: Session, row: CheckpointRow) -> dict[str, list[Fact]]:
    order = {declaration.name: place for place, declaration in enumerate(registry.known(session))}
    verdicts = session.scalars(
        select(VerdictRow).where(
            (VerdictRow.subject_id == row.id) | VerdictRow.subject_id.startswith(f"{row.id}/", autoescape=True)
        )
    ).all()
    ranked = sorted(verdicts, key=lambda v: (order.get(v.system, len(order)), v.created_at))
    return {
        "waits_for": _missing(session, row, {verdict.system for verdict in verdicts}),
        "verdicts": [_fact(v.system, v.outcome, v.reason, v.numbers, v.created_at) for v in ranked],
        "evaluations": [_evaluation(e) for e in _of(session, EvaluationRow, EvaluationRow.checkpoint_id, row.id)],
        "challenges": [
            _fact(
                f"challenge {c.k} of {_label(session, c.champion_id)}", c.outcome or "open", "", c.numbers, c.created_at
            )
            for c in _of(session, ChallengeRow, ChallengeRow.challenger_id, row.id)
        ],
        "deployments": [
            _fact(d.action, _label(session, d.checkpoint_id), d.reason, d.numbers, d.created_at)
            for d in _of(session, DeploymentRow, DeploymentRow.checkpoint_id, row.id)
        ],
        "blocks": [
            _fact("blocked", "until `ratchet deploy unblock`", b.reason, {}, b.created_at)
            for b in _of(session, BlockRow, BlockRow.weights, row.weights)
        ],
        "dead_letters": [
            _fact(d.system, "gave up", d.error, {"id": d.id, "failures": d.failures, "kills": d.kills}, d.created_at)
            for d in _dead_letters(session, row.id)
        ],
    }


def _missing(session: Session, row: CheckpointRow, given: set[str]) -> list[Fact]:
    """The systems whose verdict on the checkpoint is missing, and what the deployment of it waits for.

    Nothing is missing once the checkpoint is decided on: other systems then pass it over.
    """
    if row.ordinal == 0 or row.state != "saved" or "deployment" in given:
        return []
    names = [name for name in registry.per_checkpoint(session) if name not in given]
    reasons = {"deployment": _deployment_waits(session, given)}
    return [_fact(name, "no verdict yet", reasons.get(name, ""), {}, row.created_at) for name in names]


def _deployment_waits(session: Session, given: set[str]) -> str:
    frozen = serving(session).frozen_reason
    if frozen is not None:
        return f"deployments are frozen ({frozen}) until `ratchet deploy unfreeze`"
    judges = [name for name in ("testing", *registry.judges(session)) if name not in given]
    if judges:
        return f"waiting for {', '.join(judges)}"
    if _dead_letters(session, champion(session).id):
        return "waits for the champion, a record of which testing has given up: `ratchet why champion`"
    return "all judges have given theirs; it waits for a better-ranked checkpoint, or for its own challenge"


def _dead_letters(session: Session, checkpoint_id: str) -> Sequence[DeadLetterRow]:
    """Open ones about the checkpoint itself, or about a request for a record of it."""
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
    return context.label(row) if row else checkpoint_id


def _evaluation(row: EvaluationRow) -> Fact:
    numbers = {"tokens_per_s": round(row.tokens_per_s), "key": row.key}
    graded = overall_rate(rates_from_json(row.by_level))
    told = [f"{graded.correct} of {graded.n} right"] if graded is not None else []
    return _fact(f"{row.pool} suite", ", ".join([*told, *scores_in_words(row.scores)]), "", numbers, row.created_at)


def _fact(who: str, outcome: str, reason: str, numbers: Mapping[str, Any], at: float) -> Fact:
    return {"who": who, "outcome": outcome, "reason": reason, "numbers": dict(numbers), "at": at}


def _paragraph(fact: Fact, *, everything: bool) -> str:
    reason = plain(str(fact["reason"] or fact["numbers"].get("reason", "")))
    line = f"  {fact['who']}: {fact['outcome']}" + (f". {reason}" if reason else "")
    numbers = _numbers(fact["numbers"]) if everything else []
    return "\n".join([line, *(f"      {number}" for number in numbers)])


def _numbers(numbers: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Numbers as ``name: value`` lines, with the scalars of one level on one line."""
    plain = {k: v for k, v in numbers.items() if not isinstance(v, dict | list | tuple) and v is not None}
    lines = [prefix + ", ".join(f"{_words(k)} {_value(v)}" for k, v in plain.items())] if plain else []
    for name, value in numbers.items():
        if isinstance(value, dict) and value:
            lines += _numbers(value, f"{prefix}{_words(name)}: ")
        elif isinstance(value, list | tuple) and value:
            lines += _list(f"{prefix}{_words(name)}", value)
    return lines


def _list(name: str, values: Sequence[Any]) -> list[str]:
    if all(isinstance(value, dict) for value in values):
        return [line for value in values for line in _numbers(value, f"{name}: ")]
    return [f"{name}: {', '.join(_value(value) for value in values)}"]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
