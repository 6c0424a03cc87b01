"""Metrics that are read from the ledger: whatever belongs to no single worker."""
