"""Rows of a made-up ledger before they are stored: their ids and times, events and verdicts, and hostile text.

It does not know what the history is about; that is in synthetic_ledger and synthetic_models.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from ratchet.artifacts import ArtifactStore
from ratchet.artifacts.manifest import Kind
from ratchet.events import Event, encode
from ratchet.events.catalogue import QueueLow
from ratchet.ledger import Ledger, tables
from ratchet.ledger.lineage import checkpoint_id
from sqlalchemy import insert
from sqlalchemy.orm import Session

HOSTILE = (
    "<script>window.xss=1</script>",
    '"><img src=x onerror=window.xss=1>',
    "javascript:alert(1)",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "[/INST] 7 [bold red]7[/bold red]",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x00",
    "\u202egnp.exe\u2066 \u200b\ufeff",
    "two\nlines\r\nand\u2028a third </td></table>",
    "' OR 1=1; -- \\ & &lt;b&gt; `id`",
    "A" * 10_000,
)
"""Text that harms who shows it as anything but text."""

PACE_S = 900.0
"""Between two checkpoints."""

OPEN = ("training", "queued", "queued", "queued", "submitted", "submitted")
"""States of the newest batches."""

EARLY = ("event_id", "name", "cause", "body", "created_at", "relayed_at")
"""Columns of the events before the first of the history."""
EARLY_PACE_S = 1.0
EARLY_AT_ONCE = 200_000

STATISTICS = 40
"""How often a statistic is computed at most."""


@dataclass(frozen=True)
class Size:
    """Checkpoints with the base model, at least 8; batches, more than checkpoints; outbox rows; rows in quarantine."""

    checkpoints: int = 12
    batches: int = 40
    events: int = 300
    quarantined: int = 30


class Rows:
    """Rows to insert, by table. Checkpoints and batches are numbered, and have their ids from the start."""

    def __init__(self, now: float, artifacts: ArtifactStore | None, size: Size, *, hostile: bool, seed: int):
        self.now, self.size, self.seed = now, size, seed
        self.start = now - size.checkpoints * PACE_S
        self.ids = [checkpoint_id(i, self.digest("weights", i)) for i in range(size.checkpoints)]
        self.batch_ids = [self.digest("batch", j)[:16] for j in range(size.batches)]
        settled = size.batches - len(OPEN)
        self.batch_of = {i: i * settled // size.checkpoints for i in range(1, size.checkpoints)}
        self.saved_from = {batch: i for i, batch in self.batch_of.items()}
        self.table: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self._artifacts, self._hostile, self._spoken = artifacts, hostile, 0
        self._events: list[Event] = []
        self._shared: dict[str, tuple[int, Any]] = {}

    def at(self, i: int) -> float:
        """When the checkpoint was saved."""
        return self.start + i * PACE_S

    def digest(self, *parts: object) -> str:
        """64 hexadecimal digits: also the id of an artifact that does not exist."""
        return hashlib.sha256(repr((self.seed, *parts)).encode()).hexdigest()

    def free(self, text: str = "") -> str:
        """Text as it may come from outside: with one of HOSTILE behind it, where that is wanted."""
        if not self._hostile:
            return text
        self._spoken += 1
        return f"{text} {HOSTILE[self._spoken % len(HOSTILE)]}".strip(" ")

    def shared(self, name: str, i: int, make: Callable[[], Any]) -> Any:
        """A value that the checkpoints next to this one share, so that few are computed."""
        block = i // max(1, self.size.checkpoints // STATISTICS)
        if name not in self._shared or self._shared[name][0] != block:
            self._shared[name] = block, make()
        return self._shared[name][1]

    def publish(self, lines: Iterable[str], kind: Kind, about: dict[str, Any], name: str = "rows.jsonl") -> str:
        """The id of the artifact; without a store that of one that does not exist."""
        if self._artifacts is None:
            return self.digest("artifact", *about.values())
        return self._artifacts.publish_lines(lines, kind, about, name=name).id

    def add(self, table: Any, **columns: Any) -> dict[str, Any]:
        """A row; columns that may be empty and are not given are."""
        self.table[table].append({**_blank(table), **columns})
        return self.table[table][-1]

    def event(self, kind: type[Event], at: float, cause: str | None = None, **fields: Any) -> str:
        """Its id, the cause of others. Fields that it does not have are left out."""
        told = kind(id=self.digest("event", len(self._events))[:32], at=at, cause=cause, **fields)
        self._events.append(told)
        return told.id

    def verdict(
        self, system: str, subject: str, outcome: str, reason: str, numbers: Any, at: float, cause: str | None = None
    ) -> None:
        """``subject`` is its kind and id, with a space between them."""
        kind, _, subject_id = subject.partition(" ")
        told = {"outcome": outcome, "reason": self.free(reason), "numbers": numbers, "cause": cause}
        named = {"system": system, "subject_kind": kind, "subject_id": subject_id, "worker": f"{system}@hub+0"}
        self.add(tables.VerdictRow, **named, **told, created_at=at, took_s=1.25)

    def store(self, ledger: Ledger) -> None:
        """Insert all. Verdicts and events are numbered in the order of their times."""
        self.table[tables.VerdictRow].sort(key=lambda row: row["created_at"])
        early = self._early_events()
        while some := list(islice(early, EARLY_AT_ONCE)):
            with ledger.write() as tx:
                _insert_events(tx.session, some)
        self._fill_outbox()
        by_table = {table.__table__: rows for table, rows in self.table.items()}
        with ledger.write() as tx:
            for table in tables.Base.metadata.sorted_tables:
                rows: Iterator[dict[str, Any]] = iter(by_table.get(table, ()))
                while chunk := list(islice(rows, 500)):
                    tx.session.execute(insert(table), chunk)

    def _early_events(self) -> Iterator[tuple[Any, ...]]:
        """Rows of events before the first, in the order of ``EARLY``: where the history has too few, the queue was low
        again and again. Each is a tuple and not an Event, of which millions would fill the memory."""
        count = self.size.events - len(self._events)
        event = QueueLow(id="ID", at=0.25, depth=777_777, low_water=1_000)
        body = encode(event).replace("ID", "%s").replace("0.25", "%r").replace("777777", "%d")
        for n in range(count):
            # Ids in their order fill an index from one end, as fast as numbers.
            at, id = self.start - (count - n) * EARLY_PACE_S, f"{n:016x}{self.seed:016x}"
            yield id, event.name, None, body % (id, at, 100 + n % 900), at, at + 0.02

    def _fill_outbox(self) -> None:
        """The newest events of the history."""
        for event in sorted(self._events, key=lambda event: event.at)[-self.size.events :]:
            named = {"event_id": event.id, "name": event.name, "cause": event.cause, "body": encode(event)}
            relayed_at = event.at + 0.02 if event.at < self.now - 60 else None
            self.add(tables.OutboxRow, **named, created_at=event.at, relayed_at=relayed_at)


def _insert_events(session: Session, rows: list[tuple[Any, ...]]) -> None:
    """Insert into the outbox by the driver itself: SQLAlchemy would take minutes for millions of rows."""
    driver: Any = session.connection().connection.driver_connection
    columns = ", ".join(EARLY)
    if session.get_bind().dialect.name == "sqlite":
        driver.executemany(f"INSERT INTO outbox ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)
        return
    with driver.cursor() as cursor, cursor.copy(f"COPY outbox ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


@cache
def _blank(table: Any) -> dict[str, None]:
    return {column.name: None for column in table.__table__.columns if column.nullable}
