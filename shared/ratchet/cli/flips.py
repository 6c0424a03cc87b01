"""`ratchet flips A B`: which items two checkpoints answered differently, with both answers."""

from __future__ import annotations

from math import comb
from typing import Annotated, Any, NamedTuple

import typer
from sqlalchemy.orm import Session

from ratchet.cli import naming
from ratchet.cli.output import Json, print_json, print_table, shortened
from ratchet.cli.place import artifacts, opened
from ratchet.data.example import Example
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.load_evaluation import load_evaluation, load_suite
from ratchet.evaluation.paired_outcomes import OutcomeCounts, outcome_table, total_of
from ratchet.evaluation.record import Evaluation, ItemRecord, paired
from ratchet.ledger.suites import evaluation, suite_named
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, SuiteRow
from ratchet.tasks.graders import gold

WIDEST = 60


class Flip(NamedTuple):
    """One item that one of two checkpoints answered right and the other wrong."""

    item: Example
    before: ItemRecord
    after: ItemRecord


def flips(
    earlier: Annotated[
        str, typer.Argument(help="A checkpoint: its number, the beginning of its id, champion, newest.")
    ],
    later: Annotated[str, typer.Argument(help="The checkpoint that is held against it.")],
    suite: Annotated[str, typer.Option(help="eval, probe, or the beginning of a suite's id.")] = "eval",
    family: Annotated[str | None, typer.Option(help="Only this family's items.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many items to list.")] = 20,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List the items on which two checkpoints differ: what was lost first, then what was gained, with both answers.

    Confirm suites are not shown: who looks at them wears them out.
    """
    with opened() as (settings, ledger):
        store = artifacts(settings)
        with ledger.read() as session:
            row = suite_named(session, suite)
            if row.pool == "confirm":
                raise PreconditionFailed("a confirm suite is not for looking at: it decides on deployments.")
            pair = [naming.find(session, name) for name in (earlier, later)]
            records = [_record(session, checkpoint, row) for checkpoint in pair]
        before, after = (_of_family(load_evaluation(store, record), family) for record in records)
        items = load_suite(store, row).by_id
    found = [Flip(items[one.item_id], one, two) for one, two in paired(before, after) if one.correct is not two.correct]
    found.sort(key=lambda flip: (flip.after.correct, flip.before.family, flip.before.level))
    total = total_of(outcome_table(before, after))
    if as_json:
        print_json({"suite": row.id, **total.model_dump(), "flips": [_values(flip) for flip in found]})
        return
    names = [naming.label(checkpoint) for checkpoint in pair]
    typer.echo(_summary(names[0], names[1], row.pool, total))
    columns = ("", "family", ">level", "question", "expected", names[0], names[1])
    print_table(columns, (_row(flip) for flip in found[:limit]))
    if len(found) > limit:
        typer.echo(f"… and {len(found) - limit} more: --limit {len(found)}.")


def _record(session: Session, checkpoint: CheckpointRow, suite: SuiteRow) -> EvaluationRow:
    record = evaluation(session, checkpoint.id, suite.id)
    if record is None:
        raise PreconditionFailed(
            f"{naming.label(checkpoint)} has no record on that suite: `ratchet suite run` asks for one."
        )
    return record


def sign_test(gains: int, losses: int) -> float:
    """Exact two-sided p of so uneven a split, were gains and losses equally likely (McNemar's test)."""
    flips, fewer = gains + losses, min(gains, losses)
    return min(1.0, 2.0 * sum(comb(flips, k) for k in range(fewer + 1)) / 2.0**flips)


def _of_family(record: Evaluation, family: str | None) -> Evaluation:
    if family is None:
        return record
    items = tuple(item for item in record.items if item.family == family)
    if not items:
        known = ", ".join(sorted({item.family for item in record.items}))
        raise PreconditionFailed(f"no item of {family!r}: the suite has {known}.")
    return record.model_copy(update={"items": items})


def _summary(earlier: str, later: str, pool: str, total: OutcomeCounts) -> str:
    p = sign_test(total.gains, total.losses)
    luck = f"luck alone does that once in {1 / p:,.0f} times" if p < 0.5 else "that may well be luck"
    return (
        f"{later} beside {earlier} on {total.n} {pool} items: {total.gains} gained, {total.losses} lost, "
        f"{100 * total.effect:+.1f} points; {luck} (p = {p:.2g}, one comparison, not corrected)."
    )


def _row(flip: Flip) -> tuple[object, ...]:
    texts = (flip.item.question, gold(flip.item), flip.before.answer, flip.after.answer)
    outcome = "gained" if flip.after.correct else "lost"
    return (outcome, flip.before.family, flip.before.level, *(shortened(text, WIDEST) for text in texts))


def _values(flip: Flip) -> dict[str, Any]:
    return {
        "item_id": flip.item.id,
        "gained": flip.after.correct,
        "family": flip.before.family,
        "level": flip.before.level,
        "question": flip.item.question,
        "gold": gold(flip.item),
        "before": flip.before.answer,
        "after": flip.after.answer,
        "extraction": [flip.before.extraction, flip.after.extraction],
    }
