"""One file makes a system: with it come a queue, a consumer group, a worker, a sweep, dead letters and a status."""

from __future__ import annotations

from pathlib import Path

from ratchet.bus.connection import connect
from ratchet.bus.streams import PREFIX
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger.tables import CounterRow, DeadLetterRow, VerdictRow
from sqlalchemy import select

from tests.support.workers import SHORT, real_workers, wait_until

ONE_FILE = """
from sqlalchemy import select

from ratchet.events.catalogue import BatchQueued
from ratchet.ledger.tables import Counter
from ratchet.systems import Lane, Subject, System, Verdict


def find(session, settings):
    return [Subject("tick", name) for name in session.scalars(select(Counter.name).where(Counter.name.like("tick%")))]


def do(work):
    if work.subject.id == "tick-bad":
        raise ValueError("out of time")
    return Verdict("ticked", "it was time")


LANE = Lane("tick", consumes=(BatchQueued,), find=find, do=do)
SYSTEM = System("ticking", "4090", "Ticks.", emits=(), sweep_s=1.0, lanes=(LANE,))
"""


def test_a_system_is_one_file(tmp_path: Path) -> None:
    package = tmp_path / "twelfth_systems"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "ticking.py").write_text(ONE_FILE)
    with real_workers(
        tmp_path / "home", ["ticking"], packages=["twelfth_systems"], path=[tmp_path], control=SHORT
    ) as stack:

        def outcomes() -> dict[str, str]:
            with stack.ledger.read() as session:
                return {row.subject_id: row.worker for row in session.scalars(select(VerdictRow))}

        with stack.ledger.write() as tx:
            tx.session.add(CounterRow(name="tick-heard", value=0))
            tx.emit(BatchQueued(batch_id="b"))
        wait_until(lambda: "tick-heard" in outcomes(), what="a verdict after an event")
        with stack.ledger.write() as tx:
            tx.session.add_all([CounterRow(name="tick-silent", value=0), CounterRow(name="tick-bad", value=0)])
        wait_until(lambda: "tick-silent" in outcomes(), what="a verdict after the sweep")

        def errors() -> list[str]:
            with stack.ledger.read() as session:
                return list(session.scalars(select(DeadLetterRow.error)))

        wait_until(lambda: errors() == ["ValueError: out of time"], what="a dead letter")
        groups = connect(stack.redis.url).xinfo_groups(PREFIX + BatchQueued.name)
        assert [group["name"] for group in groups] == [b"ticking"]
        wait_until((stack.settings.status_folder / "ticking.json").exists, what="a status file")
