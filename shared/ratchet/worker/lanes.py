"""The lanes of a worker. Each has a thread, which runs the lane's pending work when the lane is woken.

Wakes are coalesced. However many events, sweeps and tasks arrive, at most one run of a lane is under way and one more
is pending. It does not know what the work is, or what wakes a lane.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from ratchet.errors import Stopping
from ratchet.systems.controller import Controller
from ratchet.watchdog import WatchedThread

log = logging.getLogger(__name__)


@dataclass
class LaneState:
    """``is_woken``: a run is pending, for ``cause``. ``is_running``: one is under way."""

    is_woken: bool = False
    is_running: bool = False
    cause: str | None = None

    @property
    def is_free(self) -> bool:
        return not self.is_woken and not self.is_running


class Lanes:
    """Wakes the lanes of one controller, and runs each in its own thread until the controller stops."""

    def __init__(self, controller: Controller):
        self.controller = controller
        self._states = {lane.name: LaneState() for lane in controller.system.lanes}
        self._changed = threading.Condition()

    def threads(self) -> list[LaneThread]:
        """A thread for each lane, to be started."""
        return [LaneThread(self, name) for name in self._states]

    def wake(self, name: str, cause: str | None = None) -> None:
        """Make the lane run soon. A run under way may have missed the cause, so the lane then runs once more."""
        state = self._states[name]
        with self._changed:
            state.is_woken, state.cause = True, cause
            self._changed.notify_all()

    def wake_all(self) -> None:
        for name in self._states:
            self.wake(name)

    def run_next(self, name: str) -> None:
        """Wait until the lane is woken, and run it, unless the controller stops."""
        state = self._states[name]
        with self._changed:
            self._changed.wait_for(lambda: state.is_woken)
            if self.controller.stop.is_set():
                return
            cause, state.is_woken, state.is_running = state.cause, False, True
        try:
            self.controller.run_pending(name, cause)
        except Stopping as error:
            log.info("%s", error)
        except Exception:
            # The claim of a subject that fails is counted by the controller. What gets here failed between subjects, as
            # for a defect of the controller; the other lanes go on, and the next wake tries again.
            log.exception("lane %s failed", name)
        finally:
            with self._changed:
                state.is_running = False
                self._changed.notify_all()

    def free(self) -> list[str]:
        """Lanes that neither run nor have a pending run."""
        return [name for name, state in self._states.items() if state.is_free]

    def wait_free(self, timeout_s: float) -> list[str]:
        """The free lanes, once there is one; none after the timeout."""
        with self._changed:
            self._changed.wait_for(self.free, timeout_s)
            return self.free()

    def wait_stopped(self) -> None:
        """Return once no lane runs. None starts again, since the controller has been asked to stop."""
        with self._changed:
            self._changed.wait_for(lambda: not any(state.is_running for state in self._states.values()))


class LaneThread(WatchedThread):
    """Runs one lane. It may wait for hours, and its work is checked by its progress, so its silence has no limit."""

    def __init__(self, lanes: Lanes, name: str):
        controller = lanes.controller
        super().__init__(self._run, controller.watchdog, controller.stop, name=f"lane-{name}")
        self._lanes, self._lane = lanes, name

    def _run(self) -> None:
        while not self._stop_asked.is_set():
            self._lanes.run_next(self._lane)
