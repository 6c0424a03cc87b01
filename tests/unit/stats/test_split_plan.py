from __future__ import annotations

import subprocess
import sys

import pytest
from ratchet.evaluation.record import Metric
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_tests import alpha_spent
from ratchet.stats.power import superiority_power
from ratchet.stats.split_plan import SplitPlan, fewest_rows, plan_split, smallest_provable

GATE = GateSettings()
METRICS: tuple[Metric, ...] = ("accuracy", "loss", "judge")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rows", [0, 2, 5, 16, 100, 400, 3_000])
def test_every_row_is_used_once_and_at_most_half_are_held_out(metric: Metric, rows: int) -> None:
    plan = plan_split(rows, metric, GATE)
    assert plan.train + plan.held_out == rows
    assert plan.held_out <= rows / 2
    assert plan.confirm >= plan.eval + plan.probe


def test_of_a_hundred_rows_confirm_gets_forty() -> None:
    plan = plan_split(100, "accuracy", GATE)
    assert (plan.train, plan.sizes) == (50, {"probe": 5, "eval": 5, "confirm": 40})
    gain = plan.smallest_gain
    assert gain is not None
    alpha = alpha_spent(GATE.alpha, 1)
    assert superiority_power(40, gain, max(gain, GATE.discordant_share), alpha) >= GATE.power


@pytest.mark.parametrize("metric", METRICS)
def test_the_rows_that_halve_the_gain_do(metric: Metric) -> None:
    few = plan_split(200, metric, GATE)
    assert few.rows_to_halve is not None
    assert few.smallest_gain is not None
    many = plan_split(few.rows_to_halve, metric, GATE)
    assert many.smallest_gain is not None
    assert many.confirm >= (few.confirm_to_halve or 0)
    assert many.smallest_gain == pytest.approx(few.smallest_gain / 2, rel=0.2)
    assert f"With {few.rows_to_halve:,} rows" in few.sentences()[1]


@pytest.mark.parametrize("metric", METRICS)
def test_where_nothing_can_be_proved_it_says_so(metric: Metric) -> None:
    fewest = fewest_rows(metric, GATE)
    none = plan_split(fewest - 1, metric, GATE)
    assert (none.smallest_gain, none.rows_to_halve) == (None, None)
    assert none.sentences()[0].startswith("Nothing can be proved")
    assert f"From {fewest} rows on" in none.sentences()[1]
    assert plan_split(fewest, metric, GATE).smallest_gain is not None


def test_more_targets_need_more_items() -> None:
    one, four = (plan_split(100, "loss", GATE, targets=targets).smallest_gain for targets in (1, 4))
    assert one is not None
    assert four is not None
    assert four > one


def test_the_largest_pools_are_kept_to() -> None:
    plan = plan_split(50_000, "accuracy", GATE, most_probe=100, most_eval=200, most_confirm=300)
    assert (plan.probe, plan.eval, plan.confirm) == (100, 200, 300)


def test_a_gain_is_told_in_the_unit_of_the_metric() -> None:
    assert SplitPlan.model_validate(plan_split(100, "loss", GATE).model_dump()).smallest_gain_text.endswith(
        "nats a token"
    )
    assert plan_split(100, "accuracy", GATE).smallest_gain_text.endswith("points")
    assert smallest_provable(0, "loss", 0.15, 0.03, 0.8) is None


def test_importing_the_plan_imports_no_scipy() -> None:
    told = "import sys, ratchet.stats.split_plan; print({'numpy', 'scipy'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "set()\n"
