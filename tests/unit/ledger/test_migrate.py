from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import alembic_config, head, migrate, require_current, require_known_schema
from ratchet.ledger.tables import Base
from sqlalchemy import text


def test_the_migrations_make_exactly_the_tables(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_revision_is_the_one_that_alembic_finds() -> None:
    assert head() == ScriptDirectory.from_config(alembic_config()).get_current_head()


def test_migrating_again_changes_nothing(ledger: Ledger) -> None:
    assert migrate(ledger) == head()
    require_current(ledger)


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


@pytest.mark.parametrize("revision", ["0003", "9999"])
def test_a_ledger_of_an_unknown_schema_is_refused_with_the_way_out(ledger: Ledger, revision: str) -> None:
    """0003 is of a build before the first release, 9999 of a version that is yet to come."""
    with ledger.write() as tx:
        tx.session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    said = f"schema {revision}, which this version does not know: install the version of Ratchet.*or set `ledger.url`"
    for attempt in (require_current, require_known_schema, migrate):
        with pytest.raises(PreconditionFailed, match=said):
            attempt(ledger)
    with ledger.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == revision


def test_tables_without_a_schema_version_are_refused_with_the_way_out(ledger: Ledger) -> None:
    """As after a manual restore without Alembic's table."""
    with ledger.write() as tx:
        tx.session.execute(text("DELETE FROM alembic_version"))
    for attempt in (require_current, require_known_schema, migrate):
        with pytest.raises(PreconditionFailed, match=r"no schema version: restore it .*or set `ledger.url`"):
            attempt(ledger)
