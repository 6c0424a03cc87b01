"""Generated batches for `ratchet queue`: what each came to, and making one again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from importlib.metadata import entry_points
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ratchet.cli.output import clock
from ratchet.cli.place import artifacts
from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import Batch, Verdict
from ratchet.settings import Settings

MAKERS = "ratchet.makers"
"""Entry points that make a batch again, by its origin: called with settings, batch and a folder, each gives lines."""

Maker = Callable[[Settings, Batch, Path], Iterator[str]]


def remade(settings: Settings, batch: Batch, output: Path | None) -> tuple[bool, int]:
    """Whether the batch, made again, has the lines that were submitted; and how many it has now."""
    point = next((point for point in entry_points(group=MAKERS) if point.name == batch.origin), None)
    if point is None:
        raise PreconditionFailed(
            f"batch {batch.id} comes from {batch.origin}: only generated batches can be made again."
        )
    make: Maker = point.load()
    settings.work_folder.mkdir(parents=True, exist_ok=True)
    submitted = artifacts(settings).open_lines(batch.submitted_artifact)
    with (
        tempfile.TemporaryDirectory(dir=settings.work_folder) as folder,
        output.open("w", encoding="utf-8") if output else nullcontext() as file,
    ):
        return _compared(make(settings, batch, Path(folder)), submitted, file.write if file else None)


def _compared(made: Iterable[str], submitted: Iterable[str], write: Callable[[str], object] | None) -> tuple[bool, int]:
    same, lines = True, 0
    for line, before in zip_longest(made, submitted):
        same &= line == before
        if line is not None:
            lines += 1
            if write is not None:
                write(line + "\n")
    return same, lines


def refill_values(row: Verdict) -> dict[str, Any]:
    """A refill as JSON: generation's numbers, and when it was."""
    return {"refill": int(row.subject_id), "outcome": row.outcome, "created_at": row.created_at, **row.numbers}


def refill_row(values: Mapping[str, Any]) -> tuple[object, ...]:
    """A refill as a row of the table."""
    examples, took_s = sum(values.get("made", {}).values()), values.get("took_s")
    return (
        values["refill"],
        clock(values["created_at"]),
        values.get("generator"),
        values.get("assignment", {}).get("arm"),
        f"{examples:,}",
        f"{examples / took_s:,.0f}" if took_s else "",
        ", ".join(f"{count:,} {reason}" for reason, count in values.get("refused", {}).items()),
        ", ".join(f"{count:,} {what}" for what, count in values.get("cost", {}).items()),
    )
