"""Whom a fork sets against each other, and what its test says."""

from __future__ import annotations

from collections import Counter

import pytest
from datagen.fork import BEST, CHALLENGER, ForkResult, contestants, judge
from ratchet.evaluation.flips import Count
from scipy.stats import binomtest

SHARES = {"progressive": 0.5, "mixed": 0.1, "reverse": 0.1, "adaptive": 0.3}


def judged(gains: int, losses: int, certainty: float = 0.95) -> ForkResult:
    """200 items, and 50,000 tokens on either branch."""
    return judge(("mixed", "adaptive"), Count(n=200, gains=gains, losses=losses), (50_000, 50_000), certainty)


def test_the_arm_with_the_largest_share_is_challenged_by_the_others_by_theirs() -> None:
    drawn = [list(contestants(SHARES, seed)) for seed in range(2_000)]
    assert {best for best, _ in drawn} == {"progressive"}
    counts = Counter(challenger for _, challenger in drawn)
    assert counts["adaptive"] / 2_000 == pytest.approx(0.6, abs=0.05)
    assert set(counts) == {"mixed", "reverse", "adaptive"}


def test_each_contestant_has_the_probability_it_was_drawn_with() -> None:
    arms = contestants(SHARES, seed=7)
    best, challenger = arms
    assert arms[best] == 1.0
    assert arms[challenger] == pytest.approx(SHARES[challenger] / 0.5)


def test_where_no_other_arm_has_a_share_all_of_them_are_drawn_alike() -> None:
    drawn = {challenger for seed in range(50) for challenger in contestants({"a": 1.0, "b": 0.0, "c": 0.0}, seed)}
    assert drawn == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("gains", "losses", "winner", "is_tie"),
    [
        (20, 5, CHALLENGER, False),
        (5, 20, BEST, False),
        (12, 5, BEST, True),
        (0, 0, BEST, True),
        (6, 0, CHALLENGER, False),
        (5, 0, BEST, True),
    ],
)
def test_the_challenger_wins_only_where_it_is_proved_better(gains: int, losses: int, winner: int, is_tie: bool) -> None:
    found = judged(gains, losses)
    assert (found.winner, found.is_tie) == (winner, is_tie)


@pytest.mark.parametrize(("gains", "losses"), [(9, 2), (2, 9), (4, 4), (1, 0)])
def test_p_is_the_exact_sign_test_of_the_flips(gains: int, losses: int) -> None:
    assert judged(gains, losses).p == pytest.approx(binomtest(gains, gains + losses).pvalue)


def test_how_sure_a_fork_must_be_is_the_certainty_of_the_experiment() -> None:
    assert judged(12, 5, certainty=0.95).winner == BEST
    assert judged(12, 5, certainty=0.85).winner == CHALLENGER
    assert judged(12, 5, certainty=0.85).low > judged(12, 5, certainty=0.95).low


def test_the_difference_comes_with_its_range_and_for_a_token() -> None:
    found = judged(20, 6)
    assert found.points == pytest.approx(14.0)
    assert found.low < 0.07 < found.high
    assert found.sentence.startswith("adaptive beats mixed: 20 won and 6 lost of 200 items (+7.0 points, +")
    assert found.sentence.endswith("training goes on from adaptive")
    assert "adaptive is even with mixed" in judged(3, 3).sentence
    assert "adaptive loses to mixed" in judged(3, 30).sentence


def test_equal_arms_are_called_different_no_oftener_than_promised() -> None:
    """Exact: over all outcomes of 30 flips that either arm wins as likely as the other."""
    outcomes = [judged(gains, 30 - gains) for gains in range(31)]
    chances = [binomtest(k, 30).pvalue for k in range(31)]
    assert all(found.is_tie == (p > 0.05) for found, p in zip(outcomes, chances, strict=True))
