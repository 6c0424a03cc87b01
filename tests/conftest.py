from ratchet.testing.ledgers import migrated, postgres

__all__ = ["migrated", "postgres"]
