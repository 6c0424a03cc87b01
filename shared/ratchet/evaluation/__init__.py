"""Suites and the per-item record that every judging system reads."""
