"""What a run says of itself while it runs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from ratchet.disk import write_if_possible


class TrainingStatusWriter:
    """Keeps one JSON file up to date: readers see a whole status or none. ``updated_at`` is the sign of life."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._status: dict[str, Any] = {"started_at": time.time()}
        self._writing = threading.Lock()

    def write(self, **fields: Any) -> None:
        """Merge ``fields`` into the status and write it. A full or absent disk never stops training."""
        with self._writing:
            self._status |= fields
            status = {**self._status, "updated_at": time.time()}
            write_if_possible(self.path, json.dumps(status, ensure_ascii=False, indent=2) + "\n")

    def amend(self, **fields: Any) -> None:
        """Add to what another process has written of the run: the last word of one that speaks for no other."""
        try:
            self._status = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._status = {}
        self.write(**fields)

    def start(self, **fields: Any) -> None:
        """Begin a run: forget the last one's fields."""
        self._status = {"started_at": time.time()}
        self.write(**fields)
