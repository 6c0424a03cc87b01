"""Catches what is thrown. A toy's name sets its behaviour: ``silent-1``, ``child-3``, ``failing-2`` …"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from kombu.asynchronous import Hub
from ratchet.events import Event
from ratchet.failpoint import failpoint
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.ledger import next_counter
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.tables import CounterRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from sqlalchemy import func, select
from sqlalchemy.orm import Session

PREFIX = "toy:"


class ToyThrown(Event):
    name = "toy.thrown"
    toy: str


class ToyCaught(Event):
    name = "toy.caught"
    toy: str


def throw(ledger: Ledger, toy: str) -> ToyThrown:
    """Put a toy into the ledger and tell of it."""
    event = ToyThrown(toy=toy)
    with ledger.write() as tx:
        tx.session.add(CounterRow(name=PREFIX + toy, value=0))
        tx.emit(event)
    return event


def catches(session: Session, toy: str) -> int:
    """How often the effects of catching it were committed."""
    row = session.get(CounterRow, f"caught:{toy}")
    return row.value if row else 0


def find(session: Session, _settings: Settings) -> Sequence[Subject]:
    toy = func.substr(CounterRow.name, len(PREFIX) + 1)
    thrown = CounterRow.name.startswith(PREFIX) & lacks_verdict("catching", "toy", toy)
    return [Subject("toy", row) for row in session.scalars(select(toy).where(thrown))]


def do(work: Work) -> Outcome:
    behave(work)
    toy = work.subject.id

    def effects(tx: Transaction) -> None:
        next_counter(tx.session, f"caught:{toy}")

    return Verdict("caught", "it was thrown", effects=effects, events=(ToyCaught(toy=toy),))


def behave(work: Work) -> None:
    kind, _, _rest = work.subject.id.partition("-")
    BEHAVIOURS.get(kind, plain)(work)


def plain(work: Work) -> None:
    work.progress("catching")


def artifact(work: Work) -> None:
    (work.folder / "toy.txt").write_text(work.subject.id)
    work.artifacts.publish(work.folder / "toy.txt", "report", {"toy": work.subject.id})
    failpoint("after-artifact")


def child(work: Work) -> None:
    work.child("tests.support.toys.play:play", {"toy": work.subject.id})


def long(work: Work) -> None:
    """Longer than the liveness limit of the test, and alive all the time."""
    for step in range(60):
        time.sleep(0.1)
        work.progress(f"step {step}")


def brief(work: Work) -> None:
    for step in range(5):
        time.sleep(0.1)
        work.progress(f"step {step}")


def slow(work: Work) -> None:
    """Long enough to be frozen or killed in the middle."""
    for step in range(20):
        time.sleep(0.1)
        work.progress(f"step {step}")


def frozen(work: Work) -> None:
    """Continues until it is resumed, without checking its claim."""
    work.progress("waiting for the thaw")
    while not (work.settings.home / "thaw").exists():
        work.pulse.beat()
        time.sleep(0.05)


def silent(work: Work) -> None:
    """Hangs the first time, without progress."""
    marker = work.settings.home / f"{work.subject.id}.tried"
    if not marker.exists():
        marker.touch()
        time.sleep(10_000)


def deafening(_work: Work) -> None:
    """Blocks the loop of the worker's Celery for ever, as a silently lost connection does."""
    for hub in [each for each in gc.get_objects() if isinstance(each, Hub)]:
        hub.call_soon(time.sleep, 10_000)


def losing(work: Work) -> None:
    """Has a thread of its worker end by an error, the first time. ``losing-sweep`` names it."""
    marker = work.settings.home / f"{work.subject.id}.tried"
    if not marker.exists():
        marker.touch()
        name = work.subject.id.removeprefix("losing-")
        [ident] = [thread.ident for thread in threading.enumerate() if thread.name == name]
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident or 0), ctypes.py_object(RuntimeError))


def stubborn(work: Work) -> None:
    """Does not hear that it should stop, the first time."""
    marker = work.settings.home / f"{work.subject.id}.tried"
    if not marker.exists():
        marker.touch()
        time.sleep(10_000)


def failing(work: Work) -> None:
    if not (work.settings.home / "antidote").exists():
        raise ValueError(f"{work.subject.id} always fails")


def deadly(work: Work) -> None:
    if not (work.settings.home / "antidote").exists():
        os.kill(os.getpid(), signal.SIGKILL)


BEHAVIOURS: dict[str, Callable[[Work], None]] = {
    "artifact": artifact,
    "child": child,
    "long": long,
    "brief": brief,
    "slow": slow,
    "frozen": frozen,
    "silent": silent,
    "deafening": deafening,
    "losing": losing,
    "stubborn": stubborn,
    "failing": failing,
    "deadly": deadly,
}

SYSTEM = System(
    name="catching",
    host="3090",
    purpose="Catches toys.",
    emits=(ToyCaught,),
    sweep_s=3600.0,
    lanes=(Lane("catch", consumes=(ToyThrown,), find=find, do=do, step_s=2.0),),
)
