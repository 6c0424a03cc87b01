from __future__ import annotations

import pytest
from ratchet.errors import LedgerBehind, PreconditionFailed, TransientError
from ratchet.settings.control import ControlSettings
from ratchet.worker.patience import patiently

QUICK = ControlSettings(backoff_first_s=0.001, backoff_last_s=0.002)


class Start:
    """Fails with each of these errors, then succeeds."""

    def __init__(self, *errors: Exception):
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "started"


def test_what_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    assert patiently(Start(*[TransientError("Redis is away")] * 4), QUICK) == "started"
    assert caplog.text.count("Redis is away") == 4


def test_without_time_the_first_error_stands() -> None:
    start = Start(TransientError("the first"), TransientError("the second"))
    with pytest.raises(TransientError, match="the first"):
        patiently(start, QUICK, limit_s=0)


def test_waiting_ends_with_the_error_that_stands() -> None:
    with pytest.raises(TransientError, match="away"):
        patiently(Start(*[TransientError("away")] * 1000), QUICK, limit_s=0.05)


def test_a_schema_is_waited_for_where_it_is_said() -> None:
    assert patiently(Start(LedgerBehind("run it")), QUICK, limit_s=60, for_schema=True) == "started"
    with pytest.raises(LedgerBehind):
        patiently(Start(LedgerBehind("run it")), QUICK, limit_s=60)


def test_what_is_refused_is_not_waited_for() -> None:
    with pytest.raises(PreconditionFailed):
        patiently(Start(PreconditionFailed("no")), QUICK, limit_s=60, for_schema=True)
