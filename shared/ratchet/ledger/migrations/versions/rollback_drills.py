"""Rollback drills: what was planted, whether it was caught, and how long each step took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2027_03"
down_revision = "2027_02"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drills",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("planted_artifact", sa.String(), nullable=True),
        sa.Column("before_id", sa.String(), nullable=True),
        sa.Column("before_weights", sa.String(), nullable=True),
        sa.Column("after_id", sa.String(), nullable=True),
        sa.Column("after_weights", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drills")),
    )
