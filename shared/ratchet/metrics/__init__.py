"""Prometheus metrics: each worker's own, those of its machine, and those that are read from the ledger."""
