"""`ratchet leaderboard`: all checkpoints, the best first, with their uncertainty."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.naming import label
from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.cli.place import opened
from ratchet.cli.view.reading import SHOWN_POOL, read_live, read_looks
from ratchet.cli.view.scene import Live, Look
from ratchet.cli.view.words import levels_line, standing
from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, RankingRow, SuiteRow
from ratchet.stats.proportions import wilson

Entry = dict[str, Any]
TIE = "best or tied"


def leaderboard(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to list.")] = 20,
    family: Annotated[str | None, typer.Option(help="Rank by this family's items alone.")] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Rank the evaluated checkpoints by their accuracy on the eval suite in force.

    The range behind a rate is its 95 % interval (Wilson). `tie` marks those that the paired comparison, on the same
    items, cannot tell from the best; it is empty where a checkpoint was not compared yet, or under other conditions.
    """
    with opened() as (_, ledger), ledger.read() as session:
        entries, live = newest_entries(session), read_live(session)
        looks = _ranked(session, limit) if family is None else []
        standings = _of_family(session, entries, family) if family is not None else []
    if family is not None:
        _print_family(standings[:limit], family, as_json=as_json)
        return
    if as_json:
        print_json([_as_values(look, live, entries.get(look.id, {})) for look in looks])
        return
    columns = ("", ">step", ">eval %", "95 % range", "tie", ">items", "by level", "saved", "stands")
    print_table(columns, (_row(look, live, entries.get(look.id, {})) for look in looks))
    if not looks:
        typer.echo("no checkpoint has been evaluated on the eval suite in force yet.")


def newest_entries(session: Session) -> dict[str, Entry]:
    """The newest ranking's entries by checkpoint; empty before the first."""
    newest = session.scalar(select(RankingRow).order_by(RankingRow.id.desc()).limit(1))
    return {entry["checkpoint_id"]: entry for entry in newest.entries.get("entries", ())} if newest else {}


def _of_family(session: Session, entries: dict[str, Entry], family: str) -> list[tuple[str, Entry]]:
    """Labels and standings on one family's items, the best first."""
    known = sorted({name for entry in entries.values() for name in entry["by_family"]})
    if family not in known:
        raise PreconditionFailed(f"no family {family!r} is ranked: {', '.join(known) or 'nothing is, yet'}.")
    rows = {row.id: row for row in session.scalars(select(CheckpointRow).where(CheckpointRow.id.in_(entries)))}
    ranked = sorted(entries.values(), key=lambda e: (e["by_family"][family]["rank"], -rows[e["checkpoint_id"]].ordinal))
    return [(label(rows[entry["checkpoint_id"]]), entry["by_family"][family]) for entry in ranked]


def _print_family(standings: list[tuple[str, Entry]], family: str, *, as_json: bool) -> None:
    if as_json:
        print_json([{"checkpoint": name, **standing} for name, standing in standings])
        return
    print_table(
        (">rank", "", f">{family} %", "95 % range", "tie", ">items"),
        (
            (
                found["rank"],
                name,
                f"{100 * found['correct'] / found['n']:.1f}",
                _range(found["interval"]["low"], found["interval"]["high"]),
                TIE if found["is_tied_with_best"] else "",
                found["n"],
            )
            for name, found in standings
        ),
    )


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _ranked(session: Session, limit: int) -> list[Look]:
    """The best on the eval suite in force: a rate on an earlier one is of other items."""
    query = select(CheckpointRow).join(EvaluationRow, EvaluationRow.checkpoint_id == CheckpointRow.id)
    query = query.join(SuiteRow, SuiteRow.id == EvaluationRow.suite_id)
    query = query.where(SuiteRow.pool == SHOWN_POOL, SuiteRow.retired_at.is_(None), EvaluationRow.items > 0)
    best_first = ((EvaluationRow.correct * 1.0 / EvaluationRow.items).desc(), CheckpointRow.ordinal.desc())
    looks = read_looks(session, session.scalars(query.order_by(*best_first).limit(limit)).all())
    return sorted(looks, key=lambda look: (look.overall.value if look.overall else 0.0, look.ordinal), reverse=True)


def _row(look: Look, live: Live | None, entry: Entry) -> tuple[object, ...]:
    rate = look.overall
    assert rate is not None
    interval = wilson(rate.correct, rate.n)
    return (
        f"#{look.ordinal}",
        f"{look.step:,}",
        f"{100 * rate.value:.1f}",
        _range(interval.low, interval.high),
        TIE if entry.get("is_tied_with_best") else "",
        rate.n,
        levels_line(look),
        clock(look.created_at),
        standing(look, live),
    )


def _as_values(look: Look, live: Live | None, entry: Entry) -> dict[str, Any]:
    rate = look.overall
    assert rate is not None
    interval = wilson(rate.correct, rate.n)
    return {
        "checkpoint_id": look.id,
        "ordinal": look.ordinal,
        "step": look.step,
        "correct": rate.correct,
        "items": rate.n,
        "low": interval.low,
        "high": interval.high,
        "levels": {f"{family}/{level}": r.model_dump() for (family, level), r in look.levels.items()},
        "is_tied_with_best": entry.get("is_tied_with_best"),
        "cost": entry.get("cost"),
        "over_budget": entry.get("over_budget"),
        "stands": standing(look, live),
        "created_at": look.created_at,
    }
