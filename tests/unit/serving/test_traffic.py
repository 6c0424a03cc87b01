from __future__ import annotations

from ratchet.serving.model_manager import WINDOW, TrafficMeter


def test_nothing_asked_has_no_latency() -> None:
    traffic = TrafficMeter().read()
    assert (traffic.requests, traffic.latency_p95_s) == (0, None)


def test_requests_errors_tokens_and_quantiles() -> None:
    meter = TrafficMeter()
    for number in range(100):
        meter.answered(latency_s=number / 100, tokens=3)
    meter.failed()
    traffic = meter.read()
    assert (traffic.requests, traffic.errors, traffic.generated_tokens) == (101, 1, 300)
    assert (traffic.latency_p50_s, traffic.latency_p95_s) == (0.5, 0.95)


def test_latencies_are_those_of_the_last_requests() -> None:
    meter = TrafficMeter()
    for _ in range(WINDOW):
        meter.answered(latency_s=9.0, tokens=1)
    for _ in range(WINDOW):
        meter.answered(latency_s=1.0, tokens=1)
    assert meter.read().latency_p95_s == 1.0
