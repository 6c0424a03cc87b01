"""What reads a ledger, each as a function without arguments: commands, sweeps, collectors, the relay, and retention.

It does not measure; it says what a long history could make slow, and how much each may cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet.bus.streams import EventRecord, Relay
from ratchet.cli.main import app
from ratchet.cli.show import TOPICS
from ratchet.ledger import Ledger
from ratchet.ledger.ledger import clock
from ratchet.ledger.pending import QUERIES
from ratchet.ledger.retention import (
    decisions_made,
    has_old_events,
    kept_causes,
    kept_checkpoints,
    old_records,
    remove_old_events,
)
from ratchet.metrics.ledger_backlog import claims as held_claims
from ratchet.metrics.ledger_backlog import control, find_waiting
from ratchet.metrics.ledger_state import judging, learning, lineage, queue, serving, tasks
from ratchet.metrics.source_collector import LedgerSource
from ratchet.settings import Settings
from ratchet.systems import claims, registry
from sqlalchemy import func, select
from typer.testing import CliRunner

COMMAND_MS, REPORT_MS = 500.0, 10_000.0
FIND_MS, COLLECTOR_MS, SCRAPE_MS = 100.0, 100.0, 250.0
IDLE_MS, RETENTION_MS, WRITE_MS = 5.0, 250.0, 100.0
"""Bounds of the CPU time of one reading. A command's is without the imports, which benchmarks/cli measures. Sweeps run
every few minutes; retention asks once a checkpoint what is kept and which records are old."""

AT_REST = "a scrape while nothing changes"

RETENTION_DAYS = 20
"""Age of the events that are removed; the made-up history has older ones."""

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("why", "3"),
    ("why", "champion", "--numbers"),
    ("events",),
    ("events", "--name", "checkpoint.regressed"),
    ("events", "--name", "task.used_up"),
    ("events", "--cause", "0123456789abcdef"),
    ("queue", "list"),
    ("data", "list"),
    ("dead", "list"),
    ("systems",),
    ("doctor",),
    ("verdict", "champion"),
    *(("show", topic.__name__, *({"diff": ("3", "4")}.get(topic.__name__, ()))) for topic in TOPICS),
)


@dataclass(frozen=True)
class Reading:
    """Something that reads the ledger, and the CPU milliseconds that it may take."""

    group: str
    name: str
    bound_ms: float
    read: Callable[[], object]


def readings(settings: Settings, ledger: Ledger, scratch: Path) -> Iterator[Reading]:
    """All of them, in the order of the table. The last group removes events."""
    for command in COMMANDS:
        yield Reading("command", f"`ratchet {' '.join(command)}`", COMMAND_MS, _command(command))
    yield Reading("command", "`ratchet report`", REPORT_MS, _command(("report", "--to", str(scratch / "report.html"))))
    yield from _sweeps(settings, ledger)
    yield from _collectors(settings, ledger)
    yield from _retention(ledger)


def _command(arguments: Iterable[str]) -> Callable[[], None]:
    """The command in this process. Raises RuntimeError where it fails with more than a finding (exit codes 1 to 3)."""

    def run() -> None:
        done = CliRunner().invoke(app, list(arguments))
        if done.exit_code not in (0, 1, 2, 3) or (done.exception is not None and not _is_exit(done.exception)):
            raise RuntimeError(f"ratchet {' '.join(arguments)}: {done.exit_code} {done.output[-500:]}") from (
                done.exception
            )

    return run


def _is_exit(error: BaseException) -> bool:
    return isinstance(error, SystemExit)


def _sweeps(settings: Settings, ledger: Ledger) -> Iterator[Reading]:
    for system in registry.systems().values():
        for lane in system.lanes:

            def find(lane: object = lane) -> None:
                with ledger.read() as session:
                    lane.find(session, settings)  # type: ignore[attr-defined]

            yield Reading("sweep", f"{system.name}: {lane.name}", FIND_MS, find)

    def due() -> None:
        with ledger.read() as session:
            for name in registry.systems():
                claims.next_due_at(session, name)

    yield Reading("sweep", "claims of all systems", FIND_MS, due)
    relay = Relay(ledger, _Discards())  # type: ignore[arg-type]
    relay.relay_leftovers()
    yield Reading("sweep", "relay of the outbox, idle", IDLE_MS, relay.relay_leftovers)


class _Discards:
    """In the place of Redis: takes events."""

    def publish(self, records: Iterable[EventRecord]) -> int:
        return len(list(records))


def _collectors(settings: Settings, ledger: Ledger) -> Iterator[Reading]:
    for collector in (queue, lineage, learning, tasks, judging, serving, control, held_claims):

        def collect(collector: Callable[..., Iterator[object]] = collector) -> None:
            with ledger.read() as session:
                list(collector(session, clock(session), settings))

        yield Reading("metrics", collector.__name__, COLLECTOR_MS, collect)

    def waiting() -> None:
        with ledger.read() as session:
            find_waiting(session)

    yield Reading("metrics", "what waits for each system", COLLECTOR_MS, waiting)
    yield Reading("metrics", "a scrape after a change", SCRAPE_MS, lambda: LedgerSource(ledger, settings).read())
    yield Reading("metrics", AT_REST, SCRAPE_MS, LedgerSource(ledger, settings).read)

    def ages() -> None:
        with ledger.read() as session:
            for name, query in QUERIES.items():
                waiting = query(name).subquery()
                session.execute(select(func.count(), func.min(waiting.c[0]))).one()

    yield Reading("metrics", "age of the oldest subject, by kind", COLLECTOR_MS, ages)


def _retention(ledger: Ledger) -> Iterator[Reading]:
    with ledger.read() as session:
        kept = kept_checkpoints(session)
        causes = kept_causes(session, kept)

    def asked() -> None:
        with ledger.read() as session:
            has_old_events(session, RETENTION_DAYS, clock(session))

    def what_is_kept() -> None:
        with ledger.read() as session:
            kept_causes(session, kept_checkpoints(session))

    def records() -> None:
        with ledger.read() as session:
            judges = [system.name for system in registry.known(session) if system.per_checkpoint]
            old_records(session, RETENTION_DAYS // 4, clock(session), kept, judges)

    def write() -> None:
        with ledger.write() as tx:
            decisions_made(tx.session)
            remove_old_events(tx, RETENTION_DAYS, causes)

    yield Reading("retention", "is there anything to do?", IDLE_MS, asked)
    yield Reading("retention", "what is kept", RETENTION_MS, what_is_kept)
    yield Reading("retention", "which records are old", RETENTION_MS, records)
    yield Reading("retention", "a transaction that removes events", WRITE_MS, write)


@contextmanager
def named_home(settings: Settings, url: str | None) -> Iterator[None]:
    """The environment names this home, for commands in this process."""
    before = dict(os.environ)
    os.environ |= {"RATCHET_HOME": str(settings.home), "TERM": "dumb", "COLUMNS": "140"}
    os.environ.pop("RATCHET_CONFIG", None)
    if url is not None:
        os.environ["RATCHET_LEDGER__URL"] = url
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
