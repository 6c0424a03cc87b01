"""A real PostgreSQL for tests, from Debian's binaries: its own folder, a Unix socket, no durability."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

UNPRIVILEGED = "postgres"
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=60")


class NoPostgres(Exception):
    """There are no server binaries here; the message says how to get them."""


class Postgres:
    """A running server; each ``database()`` is a fresh one."""

    def __init__(self, socket_folder: Path):
        self._folder = socket_folder
        self._template: str | None = None

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{UNPRIVILEGED}@/{database}?host={self._folder}"

    def database(self, template: str = "template0") -> str:
        """Make a database, empty or as the template is; returns its URL."""
        name = f"t{uuid.uuid4().hex}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        return self.url(name)

    def template(self, fill: Callable[[str], None]) -> str:
        """Name of a database that ``fill`` was given the URL of, once."""
        if self._template is None:
            url = self.database()
            fill(url)
            self._template = str(make_url(url).database)
        return self._template


@contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """Run a server below ``folder`` for the block. Raises NoPostgres where there are no binaries.

    The server refuses to run as root; there it runs as user postgres, whom Debian's package makes.
    """
    binaries = _binaries()
    folder.mkdir(parents=True)
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_user = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        shutil.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    data, log = folder / "data", folder / "log"

    def run(name: str, *arguments: str) -> None:
        subprocess.run([binaries / name, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)

    run("initdb", "-D", str(data), "-U", UNPRIVILEGED, "-A", "trust", "-E", "UTF8", "--no-sync")
    options = " ".join(f"-c {setting}" for setting in SETTINGS)
    run("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-o", f"-k {folder} {options}", "start")
    try:
        yield Postgres(folder)
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise NoPostgres("no PostgreSQL server here; `apt-get install postgresql` brings one")
    return Path(on_path).parent
