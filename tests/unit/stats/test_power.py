from __future__ import annotations

import numpy as np
import pytest
from ratchet.stats.mcnemar import mcnemar_better
from ratchet.stats.power import connor_items, smallest_detectable, superiority_power


def test_connor_sizes() -> None:
    assert connor_items(0.02, 0.10, 0.025, 0.8) == pytest.approx(1_960, rel=0.005)
    assert connor_items(0.05, 0.15, 0.025, 0.8) == pytest.approx(470, rel=0.005)


def test_the_exact_test_needs_a_little_more() -> None:
    connor = connor_items(0.05, 0.15, 0.025, 0.8)
    assert superiority_power(connor, 0.05, 0.15, 0.025) < 0.8 < superiority_power(560, 0.05, 0.15, 0.025)


def test_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(11)
    draws = rng.multinomial(400, [0.1, 0.05, 0.85], size=20_000)
    found = (mcnemar_better(draws[:, 0], draws[:, 1]) <= 0.03).mean()
    assert superiority_power(400, 0.05, 0.15, 0.03) == pytest.approx(found, abs=0.012)


def test_with_no_gain_power_is_at_most_the_level() -> None:
    assert superiority_power(300, 0.0, 0.2, 0.05) <= 0.05


def test_smallest_detectable_difference() -> None:
    seen = smallest_detectable(150, 0.15, 0.05, 0.8)
    assert seen is not None
    assert superiority_power(150, seen, 0.15, 0.05) >= 0.8 > superiority_power(150, seen - 0.002, 0.15, 0.05)


def test_no_difference_is_visible_on_three_items() -> None:
    assert smallest_detectable(3, 0.5, 0.05, 0.8) is None
