"""Indexes for the lists and sums that a page shows of thousands of batches, and for what waits for a system."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "2027_01"
down_revision = "2026_12"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_batches_submitted_at": ("batches", ["submitted_at"]),
    "ix_batches_state_submitted_at": ("batches", ["state", "submitted_at"]),
    "ix_batches_origin_submitted_at": ("batches", ["origin", "submitted_at"]),
    "ix_batches_tokens_examples": ("batches", ["tokens", "examples"]),
    "ix_batches_task": ("batches", ["task", "submitted_at", "examples"]),
    "ix_batches_quarantined": ("batches", ["submitted_at", "quarantined"]),
    "ix_batches_admitted": ("batches", ["id", "queued_at"]),
    "ix_coverage_created_at": ("coverage", ["created_at"]),
    "ix_evaluations_suite_id_created_at_checkpoint_id": ("evaluations", ["suite_id", "created_at", "checkpoint_id"]),
}
CONDITIONS = {
    "ix_batches_task": "task IS NOT NULL",
    "ix_batches_quarantined": "quarantined > 0",
    "ix_batches_admitted": "artifact IS NOT NULL AND task IS NULL",
}
"""Which rows an index has; the others have all."""


def upgrade() -> None:
    for name, (table, columns) in INDEXES.items():
        only: dict[str, Any] = {}
        if name in CONDITIONS:
            only = {"sqlite_where": sa.text(CONDITIONS[name]), "postgresql_where": sa.text(CONDITIONS[name])}
        op.create_index(name, table, columns, unique=False, **only)
