"""Workers that were asked to stop and say that they still need a while: how long, and what for.

They say it in their status files, so that whoever waits for them (the supervisor, `ratchet run`, `ratchet stop`) waits
as long as it takes and no longer, and can show what for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Awaited:
    """A worker that is stopping, by ``until`` at the latest (epoch seconds)."""

    system: str
    pid: int
    note: str
    until: float

    @property
    def left_s(self) -> float:
        return max(0.0, self.until - time.time())


def awaited(status_folder: Path) -> list[Awaited]:
    """Those that say so in the folder. A file that is torn, or whose time is over, says nothing."""
    found = (_read(path) for path in sorted(status_folder.glob("*.json")))
    return [worker for worker in found if worker is not None and worker.left_s > 0]


def deadline(status_folder: Path, pids: Collection[int] | None = None) -> float:
    """When the last of them has stopped (epoch seconds); 0 where none is awaited. ``pids`` are those that count."""
    return max((w.until for w in awaited(status_folder) if pids is None or w.pid in pids), default=0.0)


def told(workers: Collection[Awaited]) -> str:
    """What is waited for, for people."""
    parts = [f"{worker.system}{f' ({worker.note})' if worker.note else ''}" for worker in workers]
    return f"waiting for {', '.join(parts)}: up to {max(worker.left_s for worker in workers):.0f} s"


def _read(path: Path) -> Awaited | None:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["state"] != "stopping" or content["stops_within_s"] is None:
            return None
        notes = [lane["note"] for lane in content["lanes"].values() if lane is not None and lane["note"]]
        until = float(content["at"]) + float(content["stops_within_s"])
        return Awaited(str(content["system"]), int(content["pid"]), ", ".join(map(str, notes)), until)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
