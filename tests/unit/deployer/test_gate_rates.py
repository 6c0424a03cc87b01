"""Error rates of the whole gate, by the benchmark's own simulation at a smaller size.

Bounds allow 2.6 binomial standard errors, seeds are fixed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ratchet.settings.gate import GateSettings

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gate"
RUNS = 100


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    try:
        import run

        yield run
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("run", "rules", "scenarios", "world"):
            sys.modules.pop(name, None)


def slack(rate: float) -> float:
    return 2.6 * float(np.sqrt(rate * (1 - rate) / RUNS))


def test_equal_checkpoints_are_hardly_ever_promoted(benchmark: ModuleType) -> None:
    shape = benchmark.SHIPPED[0]
    outcomes = benchmark.run_gate(shape, RUNS, 0.5, 1, benchmark.CHECKPOINTS, GateSettings())
    assert benchmark.promoted(outcomes) / RUNS <= 0.05 + slack(0.05)
    assert np.mean([o.challenges for o in outcomes]) > 2


def test_five_points_at_fifteen_percent_flips_are_promoted_within_ten_challenges(benchmark: ModuleType) -> None:
    gains = benchmark.better(benchmark.SHIPPED[0])
    assert gains.effect == pytest.approx(0.05)
    assert gains.flip_share == pytest.approx(0.15)
    outcomes = benchmark.run_gate(gains, RUNS, 0.5, 2, benchmark.CHALLENGES, GateSettings())
    assert benchmark.promoted(outcomes) / RUNS >= 0.80 - slack(0.80)


def test_five_points_lost_in_a_protected_family_are_refused(benchmark: ModuleType) -> None:
    loses = benchmark.forgetting(benchmark.SHIPPED[0])
    assert loses.effect == pytest.approx(0.05)
    outcomes = benchmark.run_gate(loses, RUNS, 0.5, 3, benchmark.CHALLENGES, GateSettings())
    assert 1 - benchmark.promoted(outcomes) / RUNS >= 0.80 - slack(0.80)
