"""The nominal false alarm rate holds over a history, by the benchmark's own simulation at a smaller size."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

RUN = Path(__file__).parents[3] / "benchmarks" / "regression" / "run.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regression_benchmark", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_equal_checkpoints_are_rarely_called_worse(benchmark: ModuleType) -> None:
    alarms = benchmark.simulate(benchmark.monitor, histories=6, checkpoints=50, seed=11)
    assert alarms.mean() <= 0.05


def test_picking_and_testing_on_the_same_items_raises_false_alarms(benchmark: ModuleType) -> None:
    alarms = benchmark.simulate(benchmark.best_on_all_items, histories=10, checkpoints=200, seed=11)
    assert alarms[:, 150:].mean() > 0.25


def test_a_paired_test_on_the_test_split_keeps_its_level(benchmark: ModuleType) -> None:
    """Without the slack of Holm and of many levels: the split alone keeps a single test at its level."""

    def overall(grades: np.ndarray, _: np.random.Generator) -> np.ndarray:
        alarms = []
        for checkpoint in range(1, len(grades)):
            best = grades[benchmark.best_before(grades, checkpoint, ~benchmark.TESTING)]
            table = benchmark.outcomes(best, grades[checkpoint], benchmark.TESTING)
            losses, gains = sum(c.losses for c in table), sum(c.gains for c in table)
            alarms.append(benchmark.mcnemar_better(losses, gains) <= 0.05)
        return np.array(alarms)

    alarms = benchmark.simulate(overall, histories=40, checkpoints=200, seed=5)
    clustered = alarms[:, 150:].mean(axis=1)
    assert clustered.mean() <= 0.05 + 2.6 * clustered.std(ddof=1) / np.sqrt(len(clustered))


def test_slow_decay_is_detected(benchmark: ModuleType) -> None:
    """A fifth of a point a checkpoint, far below what any two neighbours show; a rolling baseline lets it through."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        grades = benchmark.worse_history(200, loss=0.20, only_level=None, gradual=True, rng=rng)
        assert benchmark.monitor(grades, rng, first=191)[190:].any()
