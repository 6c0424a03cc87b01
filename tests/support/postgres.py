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
    """The server binaries are missing; the message names the way to get them."""


class Postgres:
    """A server in ``folder``; each ``database()`` is a fresh one. Where we are root, user postgres runs it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._binaries = _binaries()
        self._template: str | None = None

    def start(self) -> None:
        options = " ".join(f"-c {setting}" for setting in SETTINGS)
        self._run("pg_ctl", "-l", str(self._folder / "log"), "-w", "-o", f"-k {self._folder} {options}", "start")

    def stop(self) -> None:
        """End it as a crash would."""
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def restart(self) -> None:
        """A crash, and the recovery after it."""
        self.stop()
        self.start()

    def create(self) -> None:
        """Make the folder and an empty cluster in it."""
        self._folder.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(self._folder, UNPRIVILEGED, UNPRIVILEGED)
        self._run("initdb", "-U", UNPRIVILEGED, "-A", "trust", "-E", "UTF8", "--no-sync")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{UNPRIVILEGED}@/{database}?host={self._folder}"

    def database(self, template: str = "template0") -> str:
        """Make a database, empty or as the template is; returns its URL."""
        name = f"t{uuid.uuid4().hex}"
        self._say(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, even with open connections."""
        self._say(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def template(self, fill: Callable[[str], None]) -> str:
        """Name of a database that ``fill`` was given the URL of, once."""
        if self._template is None:
            url = self.database()
            fill(url)
            self._template = str(make_url(url).database)
        return self._template

    def _say(self, statement: str) -> None:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._binaries / name), "-D", str(self._folder / "data"), *arguments]
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **user)


@contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """Run a server below ``folder`` for the block. Raises NoPostgres where there are no binaries."""
    server = Postgres(folder)
    server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise NoPostgres("no PostgreSQL server here; `apt-get install postgresql` brings one")
    return Path(on_path).parent
