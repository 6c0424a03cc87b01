"""`ratchet curriculum`: what is taught next, what is mastered, and how the experiment over strategies stands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.cli.place import opened
from ratchet.ledger.tables import CheckpointRow, CurriculumRow, TrialRow

STATES = {
    "off": "one arm alone is taught: nothing is compared",
    "waiting": "nothing is mastered yet, so nothing is compared yet",
    "open": "the experiment is open",
    "decided": "the experiment is decided",
    "even": "the experiment has ended: some arms do not differ",
}


def curriculum(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many trials to list.")] = 10,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show the mix of the next batches, and which strategy teaches most for a token.

    Batches are assigned to the arms at random, by the shares shown; a trial is the paired gain on the probe suite that
    came of it. A range holds the arm's gain with 95 % probability; `best` is the probability that no arm is better.
    """
    with opened() as (_, ledger), ledger.read() as session:
        row = session.scalar(select(CurriculumRow).order_by(CurriculumRow.id.desc()).limit(1))
        trials = _trials(session, limit)
        number = session.scalar(select(func.count()).select_from(TrialRow)) or 0
    if as_json:
        print_json(_as_values(row, trials, number))
        return
    if row is None:
        typer.echo("the curriculum has not spoken yet: it waits for the first evaluated checkpoint.")
        return
    _print_mix(row)
    _print_experiment(row.experiment, number)
    _print_trials(trials)


def _trials(session: Session, limit: int) -> list[tuple[TrialRow, int, int]]:
    """The newest trials, with the numbers of the checkpoints before and after."""
    before, after = aliased(CheckpointRow), aliased(CheckpointRow)
    query = select(TrialRow, before.ordinal, after.ordinal)
    query = query.join(before, before.id == TrialRow.before_id).join(after, after.id == TrialRow.checkpoint_id)
    query = query.order_by(after.ordinal.desc()).limit(limit)
    return [(trial, start, end) for trial, start, end in session.execute(query)]


def _print_mix(row: CurriculumRow) -> None:
    known = {(level["family"], level["level"]): level for level in row.mastery.get("levels", ())}
    shares = row.mix.get("shares", ())
    table = (
        (
            f"{share['family']} {share['level']}",
            f"{100 * share['weight']:.0f}",
            _rate(known.get((share["family"], share["level"]))),
            share["reason"],
        )
        for share in shares
    )
    title = f"Mix of the {row.mix.get('strategy')} arm, since {clock(row.created_at)}"
    print_table(("level", ">mix %", ">probe", "why"), table, title)


def _rate(level: dict[str, Any] | None) -> str:
    if level is None:
        return ""
    return f"{level['correct']} of {level['n']}" + (" mastered" if level["is_mastered"] else "")


def _print_experiment(experiment: dict[str, Any], trials: int) -> None:
    typer.echo()
    table = (
        (
            arm["name"],
            f"{100 * arm['share']:.0f}",
            arm["trials"],
            f"{arm['points']:+.2f}",
            f"{arm['low']:+.2f} to {arm['high']:+.2f}",
            f"{arm['best']:.2f}",
        )
        for arm in experiment.get("arms", ())
    )
    columns = ("arm", ">share %", ">trials", ">points per 100k tokens", "95 % range", ">best")
    print_table(columns, table, f"Experiment: {STATES.get(experiment.get('state', ''), 'none')}")
    if trials:
        for sentence in experiment.get("report", ()):
            typer.echo(f"{sentence}.")


def _print_trials(trials: list[tuple[TrialRow, int, int]]) -> None:
    if not trials:
        return
    typer.echo()
    rows = (
        (f"#{start} to #{end}", t.arm, f"{t.tokens:,}", t.gains, t.losses, t.items, f"{_points(t):+.2f}")
        for t, start, end in trials
    )
    print_table(("trial", "arm", ">tokens", ">won", ">lost", ">items", ">points per 100k"), rows, "Newest trials")


def _points(trial: TrialRow) -> float:
    return 100 * (trial.gains - trial.losses) / trial.items * 100_000 / trial.tokens


def _as_values(row: CurriculumRow | None, trials: list[tuple[TrialRow, int, int]], number: int) -> dict[str, Any]:
    if row is None:
        return {"curriculum_id": None, "trials": 0}
    return {
        "curriculum_id": row.id,
        "created_at": row.created_at,
        "mix": row.mix,
        "mastery": row.mastery,
        "mixes": row.mixes,
        "experiment": row.experiment,
        "trials": number,
        "newest_trials": [
            {
                "from": start,
                "to": end,
                "arm": trial.arm,
                "tokens": trial.tokens,
                "items": trial.items,
                "gains": trial.gains,
                "losses": trial.losses,
                "points": _points(trial),
                "batches": trial.through["batches"],
            }
            for trial, start, end in trials
        ],
    }
