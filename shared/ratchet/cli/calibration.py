"""`ratchet calibration`: does a checkpoint know what it knows, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from ratchet.cli import naming
from ratchet.cli.output import Json, print_json, print_table
from ratchet.cli.place import opened
from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CalibrationRow

KINDS = {
    "mean": "the geometric mean of its tokens",
    "sum": "the whole answer",
    "min": "its least certain token",
    "tail": "its least certain quarter",
}
STAGES = {"raw": "as it comes", "tempered": "at its temperature", "platt_scaled": "Platt", "isotonic": "isotonic"}

Numbers = Mapping[str, Any]


def calibration(
    checkpoint: Annotated[
        str, typer.Argument(help="Its number, the beginning of its id, champion, newest, previous or base.")
    ] = "champion",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Say how far a checkpoint's confidence can be trusted, and from which confidence on its answers are good enough.

    All numbers are of the half of the eval items that had no part in fitting them.
    """
    with opened() as (_, ledger), ledger.read() as session:
        label, checkpoint_id, numbers = _found(session, checkpoint)
    if as_json:
        print_json({"checkpoint_id": checkpoint_id, **numbers})
        return
    typer.echo(_words(label, numbers))
    print_table(("confidence", ">ECE", ">equal mass", ">MCE", ">Brier", ">NLL", ">AUROC"), _stages(numbers))
    typer.echo("")
    print_table(("level", ">items", ">right", ">stated", ">too sure by"), _levels(numbers))


def _found(session: Session, name: str) -> tuple[str, str, Numbers]:
    found = naming.find(session, name)
    row = session.get(CalibrationRow, found.id)
    if row is None or "shipped" not in row.numbers:
        raise PreconditionFailed(
            f"{naming.label(found)} has not been calibrated: `ratchet why {found.ordinal}` says how far it is."
        )
    return naming.label(found), found.id, row.numbers


def _words(label: str, numbers: Numbers) -> str:
    raw, tempered, shipped = numbers["raw"], numbers["tempered"], numbers["shipped"]
    sure = raw["confidence"] - raw["accuracy"]
    text = (
        f"{label} is right on {raw['accuracy']:.0%} of {raw['n']} items and states {raw['confidence']:.0%}: "
        f"{'too sure' if sure > 0 else 'too modest'} by {100 * abs(sure):.0f} points. Its confidence is best read from "
        f"{KINDS[numbers['kind']]}, at temperature {numbers['temperature']:.2f}, which takes the expected calibration "
        f"error from {raw['ece']:.3f} to {tempered['ece']:.3f}."
    )
    found = numbers["abstention"]
    if found is None or found["precision"] is None:
        return f"{text} No confidence promises {shipped['precision']:.0%} right answers."
    bounds = found["interval"]
    return (
        f"{text} Answers of a confidence of {found['threshold']:.2f} or more are {found['coverage']:.0%} of all, "
        f"and {found['precision']:.0%} of them are right ({bounds['low']:.0%} to {bounds['high']:.0%}; wanted "
        f"{found['wanted']:.0%})."
    )


def _stages(numbers: Numbers) -> list[list[str]]:
    columns = ("ece", "ece_equal_mass", "mce", "brier", "nll", "auroc")
    return [
        [name, *("–" if numbers[stage][c] is None else f"{numbers[stage][c]:.3f}" for c in columns)]
        for stage, name in STAGES.items()
    ]


def _levels(numbers: Numbers) -> list[list[str]]:
    return [
        [
            f"{level['family']} {level['level']}",
            str(level["n"]),
            f"{level['accuracy']:.0%}",
            f"{level['confidence']:.0%}",
            f"{100 * (level['confidence'] - level['accuracy']):+.0f}",
        ]
        for level in numbers["by_level"]
    ]
