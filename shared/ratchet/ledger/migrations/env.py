"""Alembic's entry point: runs the revisions of this folder on the connection that `ratchet.ledger.migrate` opened.

A change of a table is made in its model and, for ledgers that exist, in a new revision. `tests/unit/ledger` compares
what the revisions make with the models.
"""

from __future__ import annotations

from alembic import context

from ratchet.ledger.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
