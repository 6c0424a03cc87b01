"""The bus in one process, without Redis: systems run one after the other until nothing is left to do."""

from __future__ import annotations

import importlib
import json
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ratchet.artifacts import ArtifactStore
from ratchet.errors import ChildFailed, SettingsError, TransientError
from ratchet.events import Event
from ratchet.ledger import Ledger
from ratchet.settings import Settings
from ratchet.systems import System
from ratchet.systems.controller import Controller
from ratchet.systems.work import Children


class InlineChildren:
    """Runs a child's target in this process; spec, progress and result pass through JSON all the same."""

    def run(
        self,
        target: str,
        spec: dict[str, Any],
        *,
        on_progress: Callable[[dict[str, Any]], None],
        **_limits: Any,
    ) -> dict[str, Any]:
        """As ChildRunner.run, except that nothing can be killed and nothing stalls."""
        module, _, name = target.partition(":")
        function = getattr(importlib.import_module(module), name)
        try:
            result = function(_through_json(spec), lambda message: on_progress(_through_json(message)))
        except (TransientError, SettingsError):
            raise
        except Exception as error:
            raise ChildFailed(f"{type(error).__name__}: {error}", trace=traceback.format_exc()) from error
        return _through_json(result)


class InProcessBus:
    """Runs some systems on one ledger, synchronously. ``heard`` are all events in the order of their commits.

    More than ``most_events`` in one sweep are taken for an endless cycle.
    """

    def __init__(
        self,
        systems: Iterable[System],
        settings: Settings,
        ledger: Ledger,
        artifacts: ArtifactStore,
        children: Children | None = None,
    ):
        runs = children or InlineChildren()
        self.controllers = {
            system.name: Controller(system, settings, ledger, artifacts, runs, f"{system.name}@bus+0")
            for system in systems
        }
        self.heard: list[Event] = []
        self.most_events = 10_000
        self._waiting: deque[Event] = deque()
        ledger.after_commit = self._take

    def sweep(self) -> list[Event]:
        """Look in every lane, then follow the events; returns those that came of it."""
        before = len(self.heard)
        for controller in self.controllers.values():
            for lane in controller.system.lanes:
                controller.run_pending(lane.name)
        self.settle()
        return self.heard[before:]

    def settle(self) -> list[Event]:
        """Deliver events until none is left; returns those that came of it. Raises RuntimeError if that never ends."""
        before = len(self.heard)
        while self._waiting:
            if len(self.heard) - before > self.most_events:
                raise RuntimeError(f"{self.most_events} events and no end: the systems drive each other in a circle.")
            self._deliver(self._waiting.popleft())
        return self.heard[before:]

    def _deliver(self, event: Event) -> None:
        for controller in self.controllers.values():
            for lane in controller.system.lanes_consuming(type(event)):
                controller.run_pending(lane.name, event.id)

    def _take(self, events: list[Event]) -> None:
        self.heard.extend(events)
        self._waiting.extend(events)


def _through_json(value: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(value))
    return copy
