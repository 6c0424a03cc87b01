from __future__ import annotations

import pytest
from trainer.monitoring import Throughput


def test_the_average_is_over_all_steps_and_the_recent_one_over_the_last() -> None:
    pace = Throughput()
    assert (pace.average, pace.recent) == (0.0, 0.0)
    pace.begin(100.0)
    for step in range(1, 101):
        pace.step(100.0 + step, 1_000 * step)
    assert (pace.average, pace.recent) == pytest.approx((1_000, 1_000))
    for step in range(1, 21):
        pace.step(200.0 + 10 * step, 100_000 + 1_000 * step)
    assert pace.elapsed_s == 300
    assert pace.average == pytest.approx(400)
    assert 100 < pace.recent < 120
