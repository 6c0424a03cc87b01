"""The training worker puts up what its segments write into files, for views on other machines."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from redis import Redis

from ratchet.bus.bulletin import KEPT_S, Bulletin, put_up
from ratchet.errors import TransientError
from ratchet.evaluation.preview import JOURNAL, read_previews
from ratchet.settings import Settings
from ratchet.watchdog import LONGEST_CALL_S, Watchdog, WatchedThread

log = logging.getLogger(__name__)

STATUS = "training_status.json"
PREVIEWS = 50
EVERY_S = 2.0


def read_bulletin(settings: Settings) -> Bulletin:
    """What training wrote into files below this home; empty where it did not."""
    try:
        found: Any = json.loads((settings.status_folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    previews = read_previews(settings.status_folder / JOURNAL, PREVIEWS)
    return Bulletin(found if isinstance(found, dict) else {}, tuple(previews))


class BulletinBoard(WatchedThread):
    """Looks every other second whether the files have changed, and puts up what they say; now and then in any case."""

    def __init__(self, client: Redis, settings: Settings, stop: threading.Event, watchdog: Watchdog):
        limit_s = settings.control.liveness_s + LONGEST_CALL_S
        super().__init__(self._show, watchdog, stop, name="bulletin", limit_s=limit_s)
        self._client, self._settings = client, settings
        self._files = [settings.status_folder / STATUS, settings.status_folder / JOURNAL]
        self._shown: tuple[float, ...] = ()
        self._shown_at = 0.0

    def _show(self) -> None:
        while not self._stop_asked.wait(EVERY_S):
            self.watch.beat()
            try:
                self.look()
            except TransientError as error:
                log.debug("not put up: %s", error)

    def look(self) -> bool:
        """Put it up if there is a reason to; whether there was. Raises TransientError."""
        written = tuple(_written_at(file) for file in self._files)
        due = time.monotonic() - self._shown_at > KEPT_S / 4
        if not any(written) or (written == self._shown and not due):
            return False
        put_up(self._client, read_bulletin(self._settings))
        self._shown, self._shown_at = written, time.monotonic()
        return True


def _written_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
