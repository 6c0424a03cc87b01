"""From an event to work to the next event, with real workers on a real Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ratchet.bus.celery_app import wake
from ratchet.bus.connection import connect
from ratchet.bus.streams import PREFIX, EventRecord, Streams
from ratchet.ledger.tables import CounterRow, OutboxRow, WorkerRow
from sqlalchemy import select

from tests.support.playground import Playground
from tests.support.toys.catching import PREFIX as PREFIX_OF_TOYS
from tests.support.toys.catching import SYSTEM, ToyThrown, throw
from tests.support.workers import wait_until


def test_an_event_starts_work_whose_event_starts_the_next(playground: Playground) -> None:
    playground.throw("first")  # may be found by the sweep at start, which has no cause
    playground.wait_counted("first")
    event = throw(playground.stack.ledger, "ball")
    playground.wait_counted("ball")
    with playground.stack.ledger.read() as session:
        caught = session.scalars(
            select(OutboxRow).where(OutboxRow.name == "toy.caught").order_by(OutboxRow.seq.desc())
        ).first()
    assert caught is not None
    assert caught.cause == event.id


def test_each_of_many_events_is_handled_once(playground: Playground) -> None:
    toys = [f"crowd-{number}" for number in range(30)]
    playground.throw(*toys)
    playground.wait_counted(*toys)


def test_a_repeated_event_has_one_effect(playground: Playground) -> None:
    event = throw(playground.stack.ledger, "twice")
    streams = Streams(connect(playground.stack.redis.url), 1000)
    assert streams.publish([EventRecord.of(event)] * 3) == 0
    client = connect(playground.stack.redis.url)
    for _ in range(3):
        client.xadd(PREFIX + event.name, {"id": event.id, "body": EventRecord.of(event).body})
    playground.wait_counted("twice")
    playground.throw("after")
    playground.wait_counted("twice", "after")


def test_a_celery_task_wakes_a_system(playground: Playground) -> None:
    for toy, lane in (("quiet", None), ("quieter", "catch")):
        with playground.stack.ledger.write() as tx:  # no event tells of it
            tx.session.add(CounterRow(name=PREFIX_OF_TOYS + toy, value=0))
        wake(playground.stack.settings, SYSTEM, lane=lane, cause="me")
        playground.wait_counted(toy)


def test_an_unreadable_event_becomes_one_dead_letter_and_the_others_go_on(playground: Playground) -> None:
    client = connect(playground.stack.redis.url)
    stream = PREFIX + ToyThrown.name
    newer = json.dumps({**json.loads(EventRecord.of(ToyThrown(toy="x")).body), "major": 2})
    client.xadd(stream, {"id": "1", "body": newer})
    client.xadd(stream, {"id": "2", "body": b"\xff\xfe not json"})
    client.xadd(stream, {"nothing": "known"})
    wait_until(lambda: len(playground.unread()) == 3, what="three dead letters")
    assert {letter.system for letter in playground.unread()} == {"catching"}
    assert "major version 2, this worker reads 1" in playground.unread()[0].error
    client.xgroup_setid(stream, "catching", "0")
    playground.throw("readable")
    playground.wait_counted("readable")
    wait_until(lambda: _read_all(playground), what="all events read again")
    assert len(playground.unread()) == 3


def test_a_worker_is_registered_with_its_current_work(playground: Playground) -> None:
    playground.throw("slow-1")
    playground.wait_working("slow-1")
    path = playground.stack.settings.status_folder / "catching.json"
    wait_until(lambda: _status(path, "lanes", "catch", "subject") == "toy slow-1", what="its subject in the status")
    wait_until(lambda: str(_status(path, "lanes", "catch", "note")).startswith("step"), what="its step in the status")
    playground.wait_counted("slow-1")
    wait_until(lambda: _status(path, "last", "subject_id") == "slow-1", what="its last verdict")
    with playground.stack.ledger.read() as session:
        workers = {row.system: row for row in session.scalars(select(WorkerRow))}
    name = playground.verdict_worker("slow-1")
    assert set(workers) == {"catching", "counting"}
    assert (workers["catching"].name, workers["catching"].pid) == (name, playground.pid())
    wait_until((playground.stack.settings.status_folder / f"{name}.alive").exists, what="its sign of life")


def _status(path: Path, *keys: str) -> Any:
    """The present values of these keys of the status file, or None; a thread of the worker writes it."""
    found: Any = json.loads(path.read_text()) if path.exists() else None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _read_all(playground: Playground) -> bool:
    groups = connect(playground.stack.redis.url).xinfo_groups(PREFIX + ToyThrown.name)
    return all(group["lag"] == 0 for group in groups)
