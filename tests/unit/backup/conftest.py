from ratchet.testing.ledgers import ledger

__all__ = ["ledger"]
