from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import head, migrate, require_current
from ratchet.ledger.tables import Base, Worker
from ratchet.testing.ledgers import migrate_to
from sqlalchemy import insert, select, text
from sqlalchemy.sql import column, table

WORKER = {
    "name": "training@box+0",
    "system": "training",
    "host": "box",
    "pid": 1,
    "version": "0.0.1",
    "started_at": 1.0,
    "seen_at": 2.0,
    "metrics_url": None,
    "state": "idle",
}
"""A row as the first schema has it."""


def test_the_migrations_make_exactly_the_tables(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_again_changes_nothing(ledger: Ledger) -> None:
    assert migrate(ledger) == head()
    require_current(ledger)


def test_a_ledger_of_the_first_schema_is_migrated_with_what_it_holds(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    migrate_to(ledger, "0001")
    with ledger.write() as tx:
        tx.session.execute(insert(table("workers", *map(column, WORKER))), WORKER)
    with pytest.raises(PreconditionFailed, match="the ledger is at 0001"):
        require_current(ledger)
    migrate(ledger)
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    with ledger.read() as session:
        worker = session.scalars(select(Worker)).one()
    assert ({name: getattr(worker, name) for name in WORKER}, worker.pages) == (WORKER, {})
    ledger.close()


def test_several_migrate_at_once(ledger_url: str) -> None:
    ledgers = [Ledger(ledger_url) for _ in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda each=each: found.append(migrate(each))) for each in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [head()] * 4
    for each in ledgers:
        each.close()


def test_an_empty_ledger_is_refused_with_the_way_out(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    with pytest.raises(PreconditionFailed, match="ratchet migrate"):
        require_current(ledger)
    ledger.close()


def test_a_newer_ledger_is_refused_and_left_alone(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (require_current, migrate):
        with pytest.raises(PreconditionFailed, match="9999, which this version does not know"):
            attempt(ledger)
    with ledger.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
