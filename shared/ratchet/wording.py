"""Short forms of times, durations, sizes and texts, for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime


class At(float):
    """A time in epoch seconds. As a string it is ``clock``; a web page shows it in the viewer's time zone."""

    def __str__(self) -> str:
        return clock(self)


def when(at: float | None) -> At | str:
    """The time as a cell of a table; empty if there is none."""
    return "" if at is None else At(at)


def clock(at: float | None) -> str:
    """Local time of day, or date and time if it was not today."""
    if at is None:
        return ""
    local = datetime.fromtimestamp(at)
    today = local.date() == datetime.now().date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """``42 s``, ``7 min``, ``3.5 h``, ``2.1 d``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def size(bytes_: float) -> str:
    """``450 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.3g} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.3g} TB"


def shortened(text: str, width: int) -> str:
    """The text on one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def counted(counts: Mapping[str, int]) -> str:
    """``1,200 menus, 41 notes`` of counts by name."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
