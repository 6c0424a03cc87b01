from __future__ import annotations

from deployer.gate import screen, screen_outcomes
from ratchet.evaluation.paired_outcomes import CellOutcomes
from ratchet.settings.gate import GateSettings

from tests.support.records import evaluation

SETTINGS = GateSettings()


def flips(level: int, gains: int, losses: int) -> CellOutcomes:
    return CellOutcomes(family="sum", level=level, n=100, gains=gains, losses=losses)


def test_promising_is_worth_opening() -> None:
    old = evaluation("old", {("sum", 1): [False] * 50})
    new = evaluation("new", {("sum", 1): [True] * 5 + [False] * 45})
    seen = screen(old, new, SETTINGS)
    assert seen.is_worth_opening
    assert (seen.n, seen.gains, seen.losses) == (50, 5, 0)
    assert "+10.0%" in seen.reason


def test_equal_is_not() -> None:
    seen = screen_outcomes((flips(1, 6, 5),), "old", "new", SETTINGS)
    assert not seen.is_worth_opening
    assert "Not promising" in seen.reason


def test_a_level_already_proved_worse_is_not_either() -> None:
    seen = screen_outcomes((flips(1, 0, 12), flips(2, 60, 2)), "old", "new", SETTINGS)
    assert seen.p < SETTINGS.screen_alpha
    assert not seen.is_worth_opening
    assert "sum level 1" in seen.reason


def test_how_promising_a_checkpoint_must_be_is_set() -> None:
    told = [GateSettings(screen_alpha=alpha) for alpha in (0.1, 0.5)]
    assert [screen_outcomes((flips(1, 9, 6),), "old", "new", s).is_worth_opening for s in told] == [False, True]
