"""Error rates of the whole gate, by the benchmark's own simulation at a smaller size.

Bounds allow 2.6 binomial standard errors, seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from ratchet.settings.judging import GateSettings

from benchmarks.gate import run

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
