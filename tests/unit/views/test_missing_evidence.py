"""What numbers of verdicts fell short of: the sentences, and the counts that would have sufficed."""

from __future__ import annotations

from math import comb

import pytest
from ratchet.views.missing_evidence import gains_needed, gate_needs, items_needed, regression_needs, screen_needs

TARGET = {"task": None, "metric": "accuracy", "n": 900, "gains": 30, "losses": 20, "effect": 1 / 90}
TARGET |= {"p": 0.1, "alpha": 0.03, "proved": False, "before": None, "after": None}


def test_regressions_of_other_measures_are_told() -> None:
    task = {"baseline": "c1", "family": "menus", "metric": "loss", "n": 40, "before": 1.2, "after": 1.6}
    judge = {"baseline": "c1", "family": "letters", "metric": "judge", "n": 40, "before": 0.6, "after": 0.4}
    rise = {"baseline": "c1", "n": 48, "before": 0.01, "after": 0.2, "is_proved": True}
    told = list(
        regression_needs(
            {"scores": [task | {"severity": "warning"}, judge | {"severity": "warning"}], "losses": [rise]}
        )
    )
    assert "its loss rose from 1.20 to 1.60 nats per token" in told[0]
    assert "preferred in 40%, before in 60%" in told[1]
    assert "a sign of forgetting" in told[2]


def test_the_screen_says_how_far_it_was() -> None:
    screened = {"target": TARGET | {"n": 300, "alpha": 0.1}, "decides": True, "passes": False}
    assert "p = 0.1 where 0.1 is allowed" in next(iter(screen_needs({"targets": [screened], "harmed": []})))
    few = next(iter(screen_needs({"targets": [screened | {"decides": False}], "harmed": []})))
    assert "only have to show no net loss" in few
    harmed = {"family": "reverse", "level": 2, "of": "grades", "n": 17, "gains": 0, "losses": 9, "harmed": True}
    assert list(screen_needs({"targets": [screened], "harmed": [harmed]})) == [
        "reverse level 2 is proved worse: 9 lost and 0 gained of 17 items."
    ]


def test_each_guard_of_the_gate_has_its_sentence() -> None:
    margin = {"n": 50, "effect": -0.02, "lower_bound": -0.09, "margin": 0.04, "p": 0.3, "alpha": 0.2, "safe": False}
    family = margin | {"family": "reverse", "rule": "non_inferiority", "gains": 0, "losses": 1, "items_needed": 194}
    few = margin | {"family": "menus", "n": 4, "rule": "no_net_loss", "gains": 0, "losses": 1}
    loss = margin | {"family": "notes", "metric": "loss", "rule": "non_inferiority"}
    none = margin | {"family": "empty", "n": 0, "rule": "non_inferiority"}
    general = {"n": 16, "drift": 0.3, "drift_at_most": 0.4, "margin": 0.25, "safe": False}
    faults = {"family": "notes", "level": 0, "of": "answers", "n": 20, "gains": 0, "losses": 9, "harmed": True}
    proved = TARGET | {"proved": True}
    evidence = {"targets": [proved], "families": [family, few, none], "tasks": [loss], "general": general}
    told = list(gate_needs(evidence | {"levels": [faults], "smoke_passed": False}))
    assert told == [
        "reverse may be worse by 9.0 points; less than 4.0 has to be proved, on 50 items. The full test needs 194 "
        "items; there are 50.",
        "menus: 1 lost and 0 gained on 4 items. With so few, no net loss is allowed.",
        "empty: no item has a score of both, so nothing can be shown about it.",
        "notes may be worse by 0.090 nats per token; less than 0.040 has to be proved, on 50 items.",
        "It may have drifted from what the base model could do by 0.40 nats per token; less than 0.25 has to be "
        "proved, on 16 items.",
        "More answers of notes are empty, endless or repeating: 9 newly, 0 no longer, of 20.",
        "The inference server's answers were not those that had been judged (the smoke test failed).",
    ]


def test_targets_of_other_measures_say_what_would_do() -> None:
    loss = TARGET | {"task": "menus", "metric": "loss", "n": 60, "before": 1.9, "after": 1.8, "effect": 0.1, "p": 0.2}
    told = next(iter(gate_needs({"targets": [loss], "families": [], "tasks": []})))
    assert "loss 1.900 → 1.800 nats per token on 60 items" in told
    assert "A fall of about 0.223 nats per token would do" in told
    worse = next(iter(gate_needs({"targets": [loss | {"effect": -0.1, "p": 0.9}], "families": [], "tasks": []})))
    assert worse.endswith("It is not better.")
    unmeasured = next(iter(gate_needs({"targets": [loss | {"n": 0}], "families": [], "tasks": []})))
    assert "no item has a score of both" in unmeasured
    assert "has to be built" in next(iter(gate_needs({"targets": [], "families": [], "tasks": []})))


def tail(gains: int, differing: int) -> float:
    return sum(comb(differing, k) for k in range(gains, differing + 1)) / 2**differing


@pytest.mark.parametrize(("differing", "alpha"), [(20, 0.1), (50, 0.03), (7, 0.05), (400, 0.0076)])
def test_the_needed_gains_are_the_fewest_that_the_test_accepts(differing: int, alpha: float) -> None:
    needed = gains_needed(differing, alpha)
    assert needed is not None
    assert tail(needed, differing) <= alpha < tail(needed - 1, differing)


def test_too_few_differing_answers_prove_nothing() -> None:
    assert gains_needed(3, 0.01) is None
    assert "even without a loss 7 gains are needed" in next(
        iter(gate_needs({"targets": [TARGET | {"gains": 3, "losses": 0, "alpha": 0.01}], "families": [], "tasks": []}))
    )


def test_many_differing_answers_are_reckoned_by_the_normal_distribution() -> None:
    exact, near = gains_needed(999, 0.01), gains_needed(1_001, 0.01)
    assert exact is not None
    assert near is not None
    assert abs(near - exact) <= 2


def test_no_number_of_items_shows_a_gain_that_is_none() -> None:
    assert items_needed(10, 10, 300, 0.05) is None
    assert items_needed(1_001, 1_000, 5_000, 0.0001) is None  # more than anyone would make
    assert items_needed(60, 10, 300, 0.05) is None  # it is shown already
