"""A worker's desk: which lanes look just now, and which have been rung again meanwhile.

At most one look a lane runs and one more is pending, whatever number of events, doorbells and sweeps arrive.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ratchet.errors import Stopping
from ratchet.systems.controller import Controller

log = logging.getLogger(__name__)

Hand = Callable[[str, str | None], None]
"""Gives (lane, cause) to Celery's pool, which comes back through ``Desk.look``."""


@dataclass
class Slot:
    """State of one lane. ``handed_at``: given to the pool then, not begun. ``again``: rung while looking."""

    handed_at: float | None = None
    looking: bool = False
    again: bool = False
    cause: str | None = None

    @property
    def free(self) -> bool:
        return self.handed_at is None and not self.looking


class Desk:
    """Coalesces what wakes the lanes of one controller, and runs their looks one at a time each."""

    def __init__(self, controller: Controller):
        self.controller = controller
        self.slots = {lane.name: Slot() for lane in controller.system.lanes}
        self._hand: Hand | None = None
        self._changed = threading.Condition()

    def ring(self, lane: str, cause: str | None = None) -> None:
        """Have the lane look soon: in Celery's pool, or in a thread of its own while Celery has no Redis."""
        slot = self.slots[lane]
        with self._changed:
            if slot.looking:
                slot.again, slot.cause = True, cause
            if not slot.free:
                return
            slot.handed_at, slot.cause = time.monotonic(), cause
        self._give(lane, cause)

    def _give(self, lane: str, cause: str | None) -> None:
        hand = self._hand
        if hand is None:
            threading.Thread(target=self.look, args=(lane, cause), name=f"look-{lane}", daemon=True).start()
        else:
            hand(lane, cause)

    def ring_all(self) -> None:
        for lane in self.slots:
            self.ring(lane)

    def look(self, lane: str, cause: str | None = None) -> None:
        """Look until nobody has rung meanwhile. A lane that is looking already is only marked."""
        slot = self.slots[lane]
        with self._changed:
            slot.handed_at = None
            if slot.looking:
                slot.again, slot.cause = True, cause
                return
            slot.looking = True
        try:
            while True:
                self.controller.look(lane, cause)
                with self._changed:
                    if not slot.again:
                        return
                    slot.again, cause = False, slot.cause
        except Stopping as error:
            log.info("%s", error)
        finally:
            with self._changed:
                slot.looking = slot.again = False
                self._changed.notify_all()

    def attach(self, hand: Hand) -> None:
        """Celery is connected. What it had been handed before and never begun went with the old connection."""
        with self._changed:
            self._hand = hand
            self._changed.notify_all()
        self.hand_again(0.0)

    def hand_again(self, after_s: float) -> None:
        """Hand over once more what was handed over so long ago and never begun; a second copy does nothing."""
        now = time.monotonic()
        for lane, slot in self.slots.items():
            if slot.handed_at is not None and now - slot.handed_at >= after_s:
                self._give(lane, slot.cause)

    def detach(self) -> None:
        """Celery has lost its connection."""
        with self._changed:
            self._hand = None

    @property
    def attached(self) -> bool:
        return self._hand is not None

    @property
    def all_looking(self) -> bool:
        return all(slot.looking for slot in self.slots.values())

    def free_lanes(self) -> list[str]:
        return [lane for lane, slot in self.slots.items() if slot.free]

    def wait_attached(self, timeout_s: float) -> None:
        """Return once Celery is connected, or after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self.attached, timeout_s)

    def wait_quiet(self) -> None:
        """Return once no lane is looking any more."""
        with self._changed:
            self._changed.wait_for(lambda: not any(slot.looking for slot in self.slots.values()))

    def wait_free(self, timeout_s: float) -> list[str]:
        """The free lanes, once there is one and Celery is connected; or none after the timeout."""
        with self._changed:
            self._changed.wait_for(lambda: self.attached and self.free_lanes(), timeout_s)
            return self.free_lanes() if self.attached else []
