"""The ledger: all state and decisions, in SQLite or PostgreSQL. It is the only source of truth."""

from ratchet.ledger.ledger import Ledger, Transaction

__all__ = ["Ledger", "Transaction"]
