from __future__ import annotations

import pytest
from trainer.schedule import Cycle, Schedule


def schedule(shape: str, **changes: object) -> Schedule:
    fields = {"floor": 0.1, "warmup_steps": 0, "cycle": Cycle(100, 50), "fresh_at": 0, **changes}
    return Schedule(shape=shape, **fields)  # type: ignore[arg-type]


def test_warm_up_counts_from_the_fresh_optimizer_only() -> None:
    warming = schedule("constant", warmup_steps=4, fresh_at=10)
    assert [warming.factor(step) for step in (10, 11, 12, 13, 14, 500)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("shape", ["linear_per_segment", "cosine_per_segment"])
def test_a_cycle_falls_from_the_peak_to_the_floor_and_never_below(shape: str) -> None:
    factors = [schedule(shape).factor(step) for step in range(100, 151)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0.1)
    assert schedule(shape).factor(10_000) == pytest.approx(0.1)
    assert schedule(shape).factor(125) == pytest.approx(0.55)


def test_nothing_decays_across_cycles() -> None:
    for start in (0, 1_000, 1_000_000):
        assert schedule("cosine_per_segment", cycle=Cycle(start, 50)).factor(start) == 1.0
