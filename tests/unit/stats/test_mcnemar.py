from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.mcnemar import mcnemar_better
from scipy.stats import binomtest

counts = st.integers(0, 400)


@given(counts, counts)
def test_agrees_with_the_binomial_test(gains: int, losses: int) -> None:
    if gains + losses == 0:
        assert mcnemar_better(0, 0) == 1.0
        return
    expected = binomtest(gains, gains + losses, alternative="greater").pvalue
    assert mcnemar_better(gains, losses) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(counts, counts)
def test_is_a_probability(gains: int, losses: int) -> None:
    assert 0 <= mcnemar_better(gains, losses) <= 1


@given(counts, counts)
def test_another_gain_never_weakens_it(gains: int, losses: int) -> None:
    assert mcnemar_better(gains + 1, losses) <= mcnemar_better(gains, losses) * (1 + 1e-12)


def test_six_unanimous_flips_pass_the_first_challenge_and_five_do_not() -> None:
    first = 0.05 * 6 / np.pi**2
    assert mcnemar_better(6, 0) <= first < mcnemar_better(5, 0)


def test_takes_arrays() -> None:
    assert mcnemar_better([1, 0, 9], [1, 3, 0]).tolist() == pytest.approx([0.75, 1.0, 2**-9])
