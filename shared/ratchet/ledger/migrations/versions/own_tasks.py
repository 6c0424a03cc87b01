"""Tasks: the data sets of users, beside the built-in families, and the scores of those that are not graded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2026_12"
down_revision = "2026_11"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("grader", sa.String(), nullable=True),
        sa.Column("pattern", sa.String(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("protected", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("held_out", sa.JSON(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("held_rows", sa.Integer(), nullable=False),
        sa.Column("passes", sa.Double(), nullable=False),
        sa.Column("best_id", sa.String(), nullable=True),
        sa.Column("stale", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tasks")),
    )
    op.add_column("batches", sa.Column("task", sa.String(), nullable=True))
    op.add_column("evaluations", sa.Column("scores", sa.JSON(), nullable=True))
