"""Suites, and the per-item records that every judging system reads."""
