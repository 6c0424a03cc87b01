from __future__ import annotations

import pytest
from ratchet.stats.mcnemar import mcnemar_better
from ratchet.stats.spending import alpha_spent


def test_adds_up_to_alpha() -> None:
    spent = sum(alpha_spent(0.05, k) for k in range(1, 100_001))
    assert 0.04999 < spent < 0.05


def test_the_ninety_sixth_challenge_takes_nineteen_unanimous_flips() -> None:
    level = alpha_spent(0.05, 96)
    assert level == pytest.approx(3.3e-6, rel=0.01)
    assert mcnemar_better(19, 0) <= level < mcnemar_better(18, 0)


def test_counts_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        alpha_spent(0.05, 0)
