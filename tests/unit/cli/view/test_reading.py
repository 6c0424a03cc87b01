from __future__ import annotations

from pathlib import Path
from typing import Any

from ratchet.cli.view.reading import CHUNK, read_looks
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import Checkpoint
from sqlalchemy import event


def test_any_number_of_checkpoints_can_be_looked_at(tmp_path: Path) -> None:
    """An engine takes 32,766 values in a query, and no more."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    values: list[int] = []
    event.listen(ledger.engine, "before_cursor_execute", lambda *told: values.append(len(told[3])))
    columns: dict[str, Any] = {"step": 0, "tokens": 0, "weights": "", "artifact": "", "size_bytes": 0, "state": "saved"}
    rows = [Checkpoint(id=str(n), ordinal=n, **columns) for n in range(2 * CHUNK + 500)]
    with ledger.read() as session:
        looks = read_looks(session, rows)
    ledger.close()
    assert [look.ordinal for look in looks] == list(range(len(rows)))
    assert max(values) < CHUNK + 10
