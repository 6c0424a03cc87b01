"""Forks of the training line, what teachers have cost, and the pages that a worker knows of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pages", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.alter_column("pages", existing_type=sa.JSON(), existing_nullable=False, server_default=None)
    _create_spendings()
    _create_forks()


def _create_spendings() -> None:
    op.create_table(
        "spendings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("generator", sa.String(), nullable=False),
        sa.Column("refill", sa.String(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("answer_tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spendings")),
    )
    with op.batch_alter_table("spendings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_spendings_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_spendings_refill"), ["refill"], unique=False)


def _create_forks() -> None:
    op.create_table(
        "forks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("curriculum_id", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("fresh_optimizer", sa.Boolean(), nullable=False),
        sa.Column("adapter_base_id", sa.String(), nullable=True),
        sa.Column("winner", sa.Integer(), nullable=True),
        sa.Column("numbers", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["parent_id"], ["checkpoints.id"], name=op.f("fk_forks_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forks")),
    )
    op.create_table(
        "branches",
        sa.Column("fork_id", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("arm", sa.String(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("tip_id", sa.Text(), nullable=True),
        sa.Column("adapter_base_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_branches_batch_id")),
        sa.ForeignKeyConstraint(["fork_id"], ["forks.id"], name=op.f("fk_branches_fork_id")),
        sa.ForeignKeyConstraint(["tip_id"], ["checkpoints.id"], name=op.f("fk_branches_tip_id")),
        sa.PrimaryKeyConstraint("fork_id", "place", name=op.f("pk_branches")),
    )
    with op.batch_alter_table("branches", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_branches_batch_id"), ["batch_id"], unique=False)


def downgrade() -> None:
    for table in ("branches", "forks", "spendings"):
        op.drop_table(table)
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_column("pages")
