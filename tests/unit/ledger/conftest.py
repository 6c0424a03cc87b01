from tests.support.ledgers import engine, ledger, ledger_url

__all__ = ["engine", "ledger", "ledger_url"]
