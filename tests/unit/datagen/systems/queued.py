"""What generation has brought to the queue."""

from __future__ import annotations

from typing import Any

from ratchet.data.example import Example
from ratchet.ledger.queue import depth
from ratchet.ledger.tables import Batch, Verdict

from tests.support.home import Home


def total(home: Home) -> int:
    with home.ledger.read() as session:
        return depth(session).total


def batches(home: Home) -> list[Batch]:
    with home.ledger.read() as session:
        return list(session.query(Batch).order_by(Batch.submitted_at))


def rows(home: Home, batch: Batch) -> list[Example]:
    return [Example.model_validate_json(line) for line in home.artifacts.open_lines(batch.submitted_artifact)]


def refill_numbers(home: Home) -> list[dict[str, Any]]:
    with home.ledger.read() as session:
        rows = session.query(Verdict).filter(Verdict.system == "generation").order_by(Verdict.id)
        return [{"outcome": row.outcome, **row.numbers} for row in rows]
