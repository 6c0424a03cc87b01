"""Error rates of the whole gate, by the benchmark's own simulation at a smaller size.

Bounds allow 2.6 binomial standard errors, seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from ratchet.settings.judging import GateSettings

from benchmarks.gate import run, scores

RUNS = 100


def slack(rate: float) -> float:
    return 2.6 * float(np.sqrt(rate * (1 - rate) / RUNS))


def test_equal_checkpoints_are_promoted_at_most_at_rate_alpha() -> None:
    shape = run.SHIPPED[0]
    outcomes = run.run_gate(shape, RUNS, 0.5, 1, run.CHECKPOINTS, GateSettings())
    assert run.promoted(outcomes) / RUNS <= 0.05 + slack(0.05)
    assert np.mean([o.challenges for o in outcomes]) > 2


def test_five_points_at_fifteen_percent_flips_are_promoted_within_ten_challenges() -> None:
    gains = run.better(run.SHIPPED[0])
    assert gains.effect == pytest.approx(0.05)
    assert gains.discordant_share == pytest.approx(0.15)
    outcomes = run.run_gate(gains, RUNS, 0.5, 2, run.CHALLENGES, GateSettings())
    assert run.promoted(outcomes) / RUNS >= 0.80 - slack(0.80)


def test_five_points_lost_in_a_protected_family_are_refused() -> None:
    loses = run.forgetting(run.SHIPPED[0])
    assert loses.effect == pytest.approx(0.05)
    outcomes = run.run_gate(loses, RUNS, 0.5, 3, run.CHALLENGES, GateSettings())
    assert 1 - run.promoted(outcomes) / RUNS >= 0.80 - slack(0.80)


def test_equal_losses_with_rare_harm_are_promoted_at_most_at_rate_alpha() -> None:
    """A t-test promotes such checkpoints in most runs, and its error grows with every challenge."""
    equal, rng = scores.Differences.of("2 % of items −3 nats", 0.0), np.random.default_rng(4)
    assert sum(scores.promoted_at(equal, (5, 40), 0.5, rng) is not None for _ in range(20)) <= 2


def test_a_gain_on_few_rows_is_promoted_and_a_harm_beside_it_refused() -> None:
    rng = np.random.default_rng(5)
    graded = [scores.graded_promoted_at(0.3, 0.3, (5, 40), 0.5, rng) for _ in range(20)]
    assert sum(k is not None and k <= scores.CHALLENGES for k in graded) >= 14
    harm = scores.Differences.of("normal, sd 0.2", -0.15)
    assert sum(scores.harm_is_refused(harm, (5, 40), rng) for _ in range(20)) >= 14
