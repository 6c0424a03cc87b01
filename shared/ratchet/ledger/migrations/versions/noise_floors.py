"""The noise floors of a suite, kept with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2027_02"
down_revision = "2027_01"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("suites", sa.Column("noise", sa.JSON(), nullable=True))
