from __future__ import annotations

import pytest
from deployer.canary import FEWEST, alarm
from ratchet.serving.protocol import Traffic
from ratchet.settings.serving import ServingSettings

LIMITS = ServingSettings(max_error_rate=0.02, max_latency_ratio=3.0)
BEFORE = Traffic(requests=500, latency_p95_s=0.1)


@pytest.mark.parametrize(
    "new",
    [
        Traffic(),
        Traffic(requests=100, errors=2, latency_p95_s=0.1),
        Traffic(requests=100, latency_p95_s=0.3),
        Traffic(requests=FEWEST - 1, latency_p95_s=9.0),
        Traffic(requests=100, latency_p95_s=None),
    ],
    ids=["no traffic", "errors at the limit", "latency at the limit", "too few to tell", "no latency"],
)
def test_no_alarm(new: Traffic) -> None:
    assert alarm(new, BEFORE, LIMITS) is None


def test_errors_over_the_limit_are_counted_out() -> None:
    assert alarm(Traffic(requests=100, errors=3), None, LIMITS) == ("3 of 100 requests failed, over the limit of 2%")


def test_a_single_failed_request_is_over_the_limit() -> None:
    assert alarm(Traffic(requests=1, errors=1), None, LIMITS) is not None


def test_slow_answers_are_compared_with_the_last_champion() -> None:
    said = alarm(Traffic(requests=100, latency_p95_s=0.42), BEFORE, LIMITS)
    assert said == "95 % of requests take up to 0.420 s, 4.2 times as long as with the last champion (limit 3.0)"


@pytest.mark.parametrize("before", [None, Traffic(), Traffic(requests=FEWEST - 1, latency_p95_s=0.1)])
def test_without_a_champion_to_compare_with_latency_raises_no_alarm(before: Traffic | None) -> None:
    assert alarm(Traffic(requests=100, latency_p95_s=60.0), before, LIMITS) is None


@pytest.mark.parametrize(
    ("new", "wider"),
    [
        (Traffic(requests=100, errors=3), {"max_error_rate": 0.03}),
        (Traffic(requests=100, latency_p95_s=0.42), {"max_latency_ratio": 5.0}),
    ],
    ids=["max_error_rate", "max_latency_ratio"],
)
def test_the_limits_are_set(new: Traffic, wider: dict[str, float]) -> None:
    assert alarm(new, BEFORE, LIMITS) is not None
    assert alarm(new, BEFORE, ServingSettings.model_validate(wider)) is None
