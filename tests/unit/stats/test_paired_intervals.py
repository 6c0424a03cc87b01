"""The intervals of the page are those of the tests, to eight decimals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ratchet.stats import paired_scores, paired_tests
from ratchet.stats.paired_intervals import difference_interval, mean_interval

DRAWN = np.random.default_rng(7)


@pytest.mark.parametrize(
    ("gains", "losses", "n"),
    [
        (0, 0, 1),
        (0, 0, 300),
        (1, 0, 1),
        (0, 1, 1),
        (5, 5, 10),
        (10, 0, 10),
        (0, 10, 10),
        (17, 4, 364),
        (500, 480, 1_000),
    ],
)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_differences_of_rates(gains: int, losses: int, n: int, confidence: float) -> None:
    ours = difference_interval(gains, losses, n, confidence)
    theirs = paired_tests.difference_interval(gains, losses, n, confidence)
    assert ours.low == pytest.approx(theirs.low, abs=1e-8)
    assert ours.high == pytest.approx(theirs.high, abs=1e-8)


@pytest.mark.parametrize(
    "differences",
    [
        [0.0],
        [0.3],
        [-2.0],
        [0.0] * 20,
        [0.5] * 12,
        [-0.5] * 12,
        [0.01] * 49 + [-9.0],
        [1.0, 0.0, -1.0] * 7,
        DRAWN.normal(0.02, 0.1, 16).tolist(),
        DRAWN.normal(-0.1, 0.3, 200).tolist(),
        DRAWN.standard_t(2, 364).tolist(),
        (DRAWN.exponential(0.05, 1_000) - 0.01).tolist(),
    ],
    ids=lambda differences: f"{len(differences)} from {differences[0]:.2f}",
)
@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_means_of_clipped_differences(differences: list[float], bound: float) -> None:
    ours = mean_interval(tuple(differences), bound)
    theirs = paired_scores.mean_interval(differences, bound)
    assert ours.low == pytest.approx(theirs.low, abs=1e-7)
    assert ours.high == pytest.approx(theirs.high, abs=1e-7)


def test_they_load_no_numerical_library() -> None:
    code = "import sys, ratchet.views.comparison as _, ratchet.stats.paired_intervals as _; "
    code += "assert not {'numpy', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
