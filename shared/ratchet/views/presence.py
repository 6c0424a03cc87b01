"""Whether anything is at work on a home: its run, which first prepares the base model and the suites, or workers on any
machine.

It does not know what they work on. A home that nothing works on looks the same in the ledger as one that waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from ratchet.errors import RatchetError
from ratchet.ledger.health import PRESENT_S, is_expected
from ratchet.ledger.tables import ServingRow, WorkerRow
from ratchet.run import run_lock
from ratchet.settings import Settings

State = Literal["at work", "preparing", "starting", "stopped"]

_LINES = {
    "preparing": "preparing the base model and the test suites",
    "starting": "starting the workers",
    "stopped": "not running: `ratchet run` starts it",
}


@dataclass(frozen=True)
class Presence:
    """``hosts`` has the number of workers that were seen lately, by machine. ``is_new`` says that nothing has ever been
    live."""

    state: State
    is_new: bool
    hosts: Mapping[str, int] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """A few words where nothing is at work yet or any more; empty otherwise."""
        return _LINES.get(self.state, "")


def read_presence(session: Session, settings: Settings, now: float) -> Presence:
    """Who is at work now. A run whose workers are not there yet prepares, or starts them."""
    hosts = hosts_present(session, now)
    is_new = not session.scalar(select(exists(select(ServingRow.desired_id))))
    if hosts:
        return Presence("at work", is_new, hosts)
    if not _has_run(settings):
        return Presence("stopped", is_new)
    return Presence("preparing" if is_new else "starting", is_new)


def hosts_present(session: Session, now: float) -> dict[str, int]:
    """The number of workers that were seen lately, by machine."""
    present = select(WorkerRow.host, func.count()).where(is_expected(), WorkerRow.seen_at > now - PRESENT_S)
    return {
        host: int(count) for host, count in session.execute(present.group_by(WorkerRow.host).order_by(WorkerRow.host))
    }


def _has_run(settings: Settings) -> bool:
    try:
        return run_lock.find_run(settings.home) is not None
    except (RatchetError, OSError):  # a home that this process may not read
        return False
