"""A heartbeat that ends by an error is told of, since the claim would pass to others; a lost claim ends it rightly."""

from __future__ import annotations

from typing import Any

from ratchet.errors import ClaimLost
from ratchet.settings.control import ControlSettings
from ratchet.systems.claims import Claim, Heartbeat, Pulse, Subject
from ratchet.watchdog import Watchdog

from tests.support.workers import wait_until

OFTEN = ControlSettings(lease_s=0.06)


class Failing:
    """A ledger that fails in a given way."""

    def __init__(self, error: Exception):
        self._error = error

    def write(self) -> Any:
        raise self._error


def beating(error: Exception, watchdog: Watchdog, pulse: Pulse) -> Heartbeat:
    ledger: Any = Failing(error)
    return Heartbeat(ledger, Claim("toys", Subject("toy", "a"), "toys@here+0", 7, 0, 0), pulse, OFTEN, watchdog)


def test_an_error_that_nobody_expected_is_told_of() -> None:
    watchdog = Watchdog()
    with beating(ValueError("not as expected"), watchdog, Pulse()):
        wait_until(lambda: watchdog.problem is not None)
        assert watchdog.problem == "thread heartbeat-7 has ended, though nobody asked it to"


def test_a_lost_claim_ends_it_without_a_problem() -> None:
    watchdog, pulse = Watchdog(), Pulse()
    with beating(ClaimLost("another has it"), watchdog, pulse):
        wait_until(lambda: pulse.lost)
    assert watchdog.check() is None
