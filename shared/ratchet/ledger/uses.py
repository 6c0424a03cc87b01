"""How often each item has been queued for training, over all batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ratchet.ledger.ledger import Transaction
from ratchet.ledger.tables import ItemUseRow

CHUNK = 500


def item_uses(session: Session, at_least: int = 1) -> dict[str, int]:
    """Uses by item key, of the items used so often."""
    query = select(ItemUseRow.key, ItemUseRow.uses).where(ItemUseRow.uses >= at_least)
    return {row.key: row.uses for row in session.execute(query)}


def uses_of(session: Session, keys: Collection[str]) -> dict[str, int]:
    """Uses of these keys, whatever else was ever used; a key that was not is missing."""
    wanted, found = list(keys), dict[str, int]()
    for start in range(0, len(wanted), CHUNK):
        query = select(ItemUseRow.key, ItemUseRow.uses).where(ItemUseRow.key.in_(wanted[start : start + CHUNK]))
        found.update((row.key, row.uses) for row in session.execute(query))
    return found


def add_uses(tx: Transaction, counts: Mapping[str, int]) -> None:
    """Add a batch's uses to what is known."""
    dialect = postgresql if tx.session.get_bind().dialect.name == "postgresql" else sqlite
    rows = [{"key": key, "uses": uses} for key, uses in counts.items()]
    for start in range(0, len(rows), CHUNK):
        insert = dialect.insert(ItemUseRow).values(rows[start : start + CHUNK])
        total = ItemUseRow.uses + insert.excluded.uses
        tx.session.execute(insert.on_conflict_do_update(index_elements=[ItemUseRow.key], set_={"uses": total}))
