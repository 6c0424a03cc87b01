"""Prometheus metrics: of each worker, of training, and of the ledger and Redis."""
