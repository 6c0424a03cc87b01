"""`ratchet leaderboard`: all checkpoints, the best first, with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.cli.place import opened
from ratchet.cli.view.reading import read_live, read_looks
from ratchet.cli.view.scene import Live, Look
from ratchet.cli.view.words import levels_line, standing
from ratchet.ledger.tables import Checkpoint
from ratchet.stats.wilson import wilson


def leaderboard(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to list.")] = 20,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Rank the evaluated checkpoints by their accuracy on the eval suite.

    The range behind a rate is its 95 % interval (Wilson); checkpoints whose ranges overlap are not told apart by this
    table. `ratchet why CHECKPOINT` has the paired comparison.
    """
    with opened() as (_, ledger), ledger.read() as session:
        looks, live = _ranked(session), read_live(session)
    if as_json:
        print_json([_as_values(look, live) for look in looks[:limit]])
        return
    columns = ("", ">step", ">eval %", "95 % range", ">items", "by level", "saved", "stands")
    print_table(columns, (_row(look, live) for look in looks[:limit]))
    if not looks:
        typer.echo("no checkpoint has been evaluated yet.")


def _ranked(session: Session) -> list[Look]:
    rows: Sequence[Checkpoint] = session.scalars(select(Checkpoint).order_by(Checkpoint.ordinal.desc())).all()
    looks = [look for look in read_looks(session, rows) if look.overall is not None and look.overall.n]
    return sorted(looks, key=lambda look: (look.overall.value if look.overall else 0.0, look.ordinal), reverse=True)


def _row(look: Look, live: Live | None) -> tuple[object, ...]:
    rate = look.overall
    assert rate is not None
    interval = wilson(rate.correct, rate.n)
    return (
        f"#{look.ordinal}",
        f"{look.step:,}",
        f"{100 * rate.value:.1f}",
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
        rate.n,
        levels_line(look),
        clock(look.created_at),
        standing(look, live),
    )


def _as_values(look: Look, live: Live | None) -> dict[str, Any]:
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
        "stands": standing(look, live),
        "created_at": look.created_at,
    }
