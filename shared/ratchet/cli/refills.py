"""Generated batches for `ratchet queue`: what each came to, how fast it was made and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.cli.output import clock
from ratchet.ledger.tables import VerdictRow


def refill_values(row: VerdictRow) -> dict[str, Any]:
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
