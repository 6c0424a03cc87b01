"""What generation has brought to the queue."""

from __future__ import annotations

from typing import Any

from ratchet.data.example import Example
from ratchet.ledger.queue import depth
from ratchet.ledger.tables import BatchRow, VerdictRow

from tests.support.home import Home


def total(home: Home) -> int:
    with home.ledger.read() as session:
        return depth(session).total


def batches(home: Home) -> list[BatchRow]:
    with home.ledger.read() as session:
        return list(session.query(BatchRow).order_by(BatchRow.submitted_at))


def rows(home: Home, batch: BatchRow) -> list[Example]:
    return [Example.model_validate_json(line) for line in home.artifacts.open_lines(batch.submitted_artifact)]


def refill_numbers(home: Home) -> list[dict[str, Any]]:
    with home.ledger.read() as session:
        rows = session.query(VerdictRow).filter(VerdictRow.system == "generation").order_by(VerdictRow.id)
        return [{"outcome": row.outcome, **row.numbers} for row in rows]
