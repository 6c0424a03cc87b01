"""Opening the ledger, reading it, and writing to it in one serial order.

Writers are serialized on both engines (SQLite by BEGIN IMMEDIATE, PostgreSQL by an advisory lock), so a transaction
sees every earlier decision. Transactions are short: none is held across model work or network.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, StatementError
from sqlalchemy.orm import Session

from ratchet.disk import home_errors, require_local, require_writable
from ratchet.errors import DamagedLedger, NotJson, RatchetError, TransientError
from ratchet.events import Event, encode
from ratchet.failpoint import failpoint
from ratchet.ledger.tables import CounterRow, OutboxRow
from ratchet.ledger.tables.columns import storable

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for other writers, on either engine."""

LINK = {
    "connect_timeout": 10,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds
    "keepalives": 1,
    "keepalives_idle": 10,  # seconds, as the next
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""libpq parameters to give up a connection to a server without power or network, which by default takes a quarter of an
hour or never happens. ``options`` is not used because PgBouncer rejects it."""

CONNECTIONS, MOST_CONNECTIONS = 1, 6
"""Connections to PostgreSQL that a process keeps, and the most that it opens for a moment. A dozen workers then fit
into a server that allows twenty, as small managed ones do."""

# A function in FROM is called before those that are selected. A lock_timeout set by the role or the URL is kept.
TAKE_WRITER_LOCK = text(
    "SELECT pg_advisory_xact_lock(:key) FROM "
    "set_config('lock_timeout', coalesce(nullif(current_setting('lock_timeout'), '0'), :timeout), true)"
)
WRITER_LOCK = 0x4A7C4E7
CLOCK = {
    "sqlite": text("SELECT (julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": text("SELECT extract(epoch FROM clock_timestamp())::float8"),
}


def clock(session: Session) -> float:
    """Epoch seconds by the ledger's clock."""
    return float(session.scalar(CLOCK[session.get_bind().dialect.name]))


@dataclass
class Transaction:
    """One write. ``now`` is the ledger's clock at its start; events emitted here are committed with the change.

    ``cause`` is set on every event that has none.
    """

    session: Session
    now: float
    cause: str | None = None
    emitted: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Put an event into the outbox. It is relayed after the commit, at least once."""
        if event.cause is None and self.cause is not None:
            event = event.model_copy(update={"cause": self.cause})
        self.session.add(
            OutboxRow(
                event_id=event.id,
                name=event.name,
                cause=event.cause,
                body=encode(event),
                created_at=self.now,
                relayed_at=None,
            )
        )
        self.emitted.append(event)


class Ledger:
    """A ledger at an SQLAlchemy URL: ``sqlite:///path`` or ``postgresql+psycopg://…``.

    A writer waits 30 seconds for other writers, unless ``?timeout=`` in the URL (SQLite) or a ``lock_timeout``
    (PostgreSQL) is set.

    ``after_commit`` is called with the events of every committed transaction. A TransientError from it, as without
    Redis, is logged; the next relay sends the events.
    """

    def __init__(self, url: str, after_commit: Callable[[list[Event]], None] | None = None):
        self.url = url
        self.engine = _open(url)
        self.after_commit = after_commit
        self._writing = self.engine.execution_options(ratchet_write=True)

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read-only session on one consistent state. Its rows can still be read after the block."""
        with translated_errors(self.url), Session(self.engine, expire_on_commit=False) as session:
            yield session
            session.expunge_all()
            session.rollback()

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that excludes all other writers. Commits at the end, rolls back on any error."""
        with translated_errors(self.url), Session(self._writing, expire_on_commit=False) as session:
            if self.dialect == "postgresql":
                session.execute(TAKE_WRITER_LOCK, {"key": WRITER_LOCK, "timeout": f"{BUSY_TIMEOUT_S:g}s"})
            transaction = Transaction(session, clock(session))
            yield transaction
            session.commit()
        if transaction.emitted:
            failpoint("before-relay")
            self._relay(transaction.emitted)

    def now(self) -> float:
        """Epoch seconds by the ledger's clock."""
        with self.read() as session:
            return clock(session)

    def close(self) -> None:
        self.engine.dispose()

    def _relay(self, events: list[Event]) -> None:
        if self.after_commit is None:
            return
        try:
            self.after_commit(events)
        except TransientError as error:
            log.warning("events stay in the outbox for now: %s", error)


@contextmanager
def translated_errors(url: str) -> Iterator[None]:
    """Raise the driver's errors as Ratchet's: TransientError for what can be waited out, DamagedLedger for damage."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        if (disk_error := _disk_of_sqlite(url)) is not None:
            raise TransientError(f"ledger {make_url(url).render_as_string()}: {disk_error}") from error
        raise TransientError(f"ledger {make_url(url).render_as_string()} is away: {error.orig}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise TransientError(
                f"ledger {make_url(url).render_as_string()} closed the connection: {error.orig}"
            ) from error
        if _is_damage(error.orig):
            raise DamagedLedger(
                f"the ledger {make_url(url).render_as_string()} is damaged ({error.orig}): "
                "`ratchet backup restore FOLDER --force` replaces it by a backup."
            ) from error
        raise
    except StatementError as error:
        if isinstance(error.orig, NotJson):
            raise error.orig from error
        raise


def _is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that the file is no database, or a damaged one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _disk_of_sqlite(url: str) -> RatchetError | None:
    """The error of the disk of an SQLite ledger, which SQLite's own error does not name."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    try:
        require_writable(Path(parsed.database).parent)
    except RatchetError as error:
        return error
    return None


def _open(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        link: dict[str, int | None] = {name: value for name, value in LINK.items() if name not in parsed.query}
        link["prepare_threshold"] = None  # prepared statements are lost behind a PgBouncer that pools transactions
        engine = create_engine(
            parsed,
            pool_pre_ping=True,
            pool_size=CONNECTIONS,
            max_overflow=MOST_CONNECTIONS - CONNECTIONS,
            connect_args=link,
        )
        event.listen(engine, "before_cursor_execute", _store_any_text, retval=True)
        return engine
    if parsed.database and parsed.database != ":memory:":
        folder = Path(parsed.database).parent
        require_local(folder)
        with home_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    timeout = {} if "timeout" in parsed.query else {"timeout": BUSY_TIMEOUT_S}
    # The connection that was used last has its pages and statements in memory; the others take none where one suffices.
    pool = {"pool_use_lifo": True} if parsed.database and parsed.database != ":memory:" else {}
    engine = create_engine(parsed, connect_args=timeout, **pool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "before_cursor_execute", _store_any_text, retval=True)
    return engine


def _store_any_text(
    _connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """Replace what a database cannot store in every text that is sent to it; JSON columns see to theirs."""
    return statement, _storable_parameters(parameters)


def _storable_parameters(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {name: _storable_parameters(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_storable_parameters(part) for part in value)
    return value


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the begin listener sends BEGIN itself
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("ratchet_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def next_counter(session: Session, name: str) -> int:
    """The next number of that counter, from 1. Only inside a write transaction, which excludes other writers."""
    row = session.get(CounterRow, name)
    if row is None:
        row = CounterRow(name=name, value=0)
        session.add(row)
    row.value += 1
    session.flush()
    return row.value


def counter_value(session: Session, name: str) -> int:
    """The last number of that counter; 0 before the first."""
    row = session.get(CounterRow, name)
    return row.value if row is not None else 0


def raise_counter(session: Session, name: str, least: int) -> bool:
    """Make the next number higher than ``least``; returns whether that changed anything. Needs a write transaction."""
    if counter_value(session, name) >= least:
        return False
    session.merge(CounterRow(name=name, value=least))
    session.flush()
    return True
