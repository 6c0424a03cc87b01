"""Damaged artifacts, workers that fail or wait, how long a save takes, and what serves in the champion's place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("error", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.alter_column("failures", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
    with op.batch_alter_table("checkpoints", schema=None) as batch_op:
        batch_op.add_column(sa.Column("save_s", sa.Double(), nullable=True))
    with op.batch_alter_table("serving", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fallback_reason", sa.String(), nullable=True))
    op.create_table(
        "damages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("artifact", sa.String(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("subject_kind", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("consequence", sa.Text(), nullable=False),
        sa.Column("found_at", sa.Double(), nullable=False),
        sa.Column("last_seen_at", sa.Double(), nullable=False),
        sa.Column("resolved_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_damages")),
    )
    with op.batch_alter_table("damages", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_damages_artifact"), ["artifact"], unique=False)


def downgrade() -> None:
    op.drop_table("damages")
    for table, column in (
        ("serving", "fallback_reason"),
        ("checkpoints", "save_s"),
        ("workers", "failures"),
        ("workers", "error"),
    ):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column(column)
