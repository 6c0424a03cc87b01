from __future__ import annotations

import random

import pytest
from trainer.monitoring import loss_spread, loss_trend


def noisy(slope: float, points: int = 50, noise: float = 0.05) -> list[float]:
    draw = random.Random(7)
    return [2.0 + slope * step + draw.gauss(0, noise) for step in range(points)]


@pytest.mark.parametrize(("slope", "said"), [(-0.02, "falling"), (0.0, "level"), (0.02, "rising")])
def test_a_trend_is_seen_through_the_noise(slope: float, said: str) -> None:
    assert loss_trend(noisy(slope)) == said


def test_only_the_end_of_the_curve_counts() -> None:
    assert loss_trend([9.0] * 100 + noisy(0.0)) == "level"


def test_few_points_show_nothing() -> None:
    assert loss_trend(noisy(-1.0, 7)) is None
    assert loss_spread([1.0]) is None


def test_a_curve_without_noise_has_a_trend_or_none_to_speak_of() -> None:
    assert loss_trend([1.0] * 8) == "level"
    assert loss_trend([float(8 - n) for n in range(8)]) == "falling"
    assert loss_spread([1.0] * 8) == 0
