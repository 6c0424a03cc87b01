"""Fixtures for whatever must hold on both engines: each test runs once on SQLite and once on PostgreSQL.

``postgres`` and ``migrated`` belong in the topmost conftest, so that a session has one server.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from sqlalchemy import text

from tests.support.postgres import NoPostgres, Postgres, postgres_server

ENGINES = ("sqlite", "postgresql")

Migrated = Callable[[], str]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for the session. Without binaries the test is skipped with the reason; where CI is set it fails."""
    parent = Path(tempfile.mkdtemp(prefix="ratchet-pg-"))
    parent.chmod(0o755)
    try:
        with postgres_server(parent / "server") as server:
            yield server
    except NoPostgres as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    finally:
        shutil.rmtree(parent)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    """Path of an SQLite ledger, migrated once a session, to copy."""

    @cache
    def make() -> str:
        path = tmp_path_factory.mktemp("migrated") / "ledger.db"
        _migrate(f"sqlite:///{path}")
        return str(path)

    return make


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engines that the test runs on, one after the other."""
    return str(request.param)


@pytest.fixture
def ledger_url(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty ledger."""
    if engine == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def ledger(engine: str, request: pytest.FixtureRequest, tmp_path: Path, migrated: Migrated) -> Iterator[Ledger]:
    """A migrated ledger without a row."""
    if engine == "sqlite":
        shutil.copyfile(migrated(), tmp_path / "ledger.db")
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.database(server.template(_migrate))
    ledger = Ledger(url)
    yield ledger
    ledger.close()
    if engine == "postgresql":
        server.drop(url)


def _migrate(url: str) -> None:
    ledger = Ledger(url)
    migrate(ledger)
    ledger.close()


def pretend_newer(ledger: Ledger) -> None:
    """As after a migration by a version that does not exist yet."""
    with ledger.write() as tx:
        tx.session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
