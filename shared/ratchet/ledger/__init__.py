"""The ledger: every fact and decision, in SQLite or PostgreSQL. It is the truth; all else is a hint."""

from ratchet.ledger.ledger import Ledger, Transaction

__all__ = ["Ledger", "Transaction"]
