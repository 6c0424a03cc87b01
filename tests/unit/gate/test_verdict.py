"""Verdicts from counted outcomes: which of the four answers, its exit code, and the items that could tell."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ratchet.evaluation.noise_floor import NoiseFloor
from ratchet.evaluation.paired_outcomes import CellOutcomes, OutcomeTable, PairedScores
from ratchet.gate.decision import families_of, weigh
from ratchet.gate.verdict import give_verdict
from ratchet.gate.verdict_text import to_markdown
from ratchet.gate.verdict_values import EXIT_CODES, Verdict
from ratchet.settings.judging import GateSettings

SETTINGS = GateSettings()


def cell(gains: int, losses: int, n: int, family: str = "menus", level: int = 1) -> CellOutcomes:
    return CellOutcomes(family=family, level=level, n=n, gains=gains, losses=losses)


def scored(differences: np.ndarray, metric: str = "loss", family: str = "notes") -> PairedScores:
    found = tuple(float(value) for value in differences)
    return PairedScores(
        family=family, metric=metric, n=len(found), before=2.0, after=2.0 - sum(found) / len(found), differences=found
    )


def verdict(*table: CellOutcomes, scores: tuple[PairedScores, ...] = (), **known: Any) -> Verdict:
    outcomes: OutcomeTable = tuple(table)
    evidence = weigh(
        outcomes,
        champion="base",
        challenger="candidate",
        k=0,
        alpha=SETTINGS.alpha,
        mastered={},
        settings=SETTINGS,
        smoke_passed=True,
        scores=scores,
        tasks=families_of(outcomes, scores),
    )
    return give_verdict(evidence, SETTINGS, **known)


@pytest.mark.parametrize(
    ("table", "answer"),
    [
        ((cell(60, 20, 400),), "better"),
        ((cell(3, 2, 1_000),), "not better"),
        ((cell(20, 60, 400),), "worse"),
        ((cell(6, 4, 60),), "cannot tell"),
        ((cell(2, 1, 8),), "cannot tell"),
        ((cell(120, 20, 400), cell(2, 30, 200, family="sums")), "worse"),
    ],
)
def test_each_answer_has_its_exit_code(table: tuple[CellOutcomes, ...], answer: str) -> None:
    found = verdict(*table)
    assert found.verdict == answer
    assert found.exit_code == EXIT_CODES[found.verdict]
    assert found.reasons
    assert (found.items_needed is not None) == (answer == "cannot tell")


def test_what_is_better_in_all_but_may_be_worse_on_a_task_cannot_be_told() -> None:
    found = verdict(cell(90, 20, 400), cell(3, 9, 60, family="sums"))
    assert found.verdict == "cannot tell"
    assert any("Task sums is not proved safe" in reason for reason in found.reasons)


def test_the_items_that_could_tell_would_have_told() -> None:
    """A candidate with the same rates on so many items gets a verdict with the power of the settings."""
    gains, losses, n = 0.12, 0.07, 100
    first = verdict(cell(round(gains * n), round(losses * n), n))
    assert first.verdict == "cannot tell"
    needed = first.items_needed
    assert needed is not None
    assert needed > n
    random = np.random.default_rng(1)
    told = 0
    for _ in range(200):
        won, lost, _ = random.multinomial(needed, [gains, losses, 1 - gains - losses])
        told += verdict(cell(int(won), int(lost), needed)).verdict != "cannot tell"
    assert told >= 0.7 * 200


def test_losses_are_told_apart_as_grades_are() -> None:
    random = np.random.default_rng(2)
    better = verdict(scores=(scored(random.normal(0.2, 0.1, 200)),))
    worse = verdict(scores=(scored(random.normal(-0.2, 0.1, 200)),))
    same = verdict(scores=(scored(random.normal(0.0, 0.02, 400)),))
    unclear = verdict(scores=(scored(random.normal(0.03, 0.4, 30)),))
    assert [found.verdict for found in (better, worse, same, unclear)] == [
        "better",
        "worse",
        "not better",
        "cannot tell",
    ]
    assert "nats/token" in better.reasons[0]
    assert unclear.items_needed is not None
    assert unclear.items_needed > 30


def test_equal_models_are_called_better_or_worse_at_most_at_the_level() -> None:
    """Of 2,000 pairs of equal models that differ on 15 % of the items: one-sided 5 % better, two-sided 5 % worse."""
    random = np.random.default_rng(3)
    runs, found = 2_000, {"better": 0, "worse": 0}
    for _ in range(runs):
        won, lost, _ = random.multinomial(300, [0.075, 0.075, 0.85])
        answer = verdict(cell(int(won), int(lost), 300)).verdict
        found[answer] = found.get(answer, 0) + 1
    slack = 2.6 * np.sqrt(0.05 * 0.95 / runs)
    assert found["better"] / runs <= SETTINGS.alpha + slack
    assert found["worse"] / runs <= 0.05 + slack  # 2.5 % of the interval, and the one-sided 5 % of its only level


def test_the_json_is_whole_and_the_markdown_says_it_in_a_table() -> None:
    noise = NoiseFloor(
        engine="torch", dtype="bf16", gpu_class="L4", items=200, changed=31, graded=200, flips=4, upper=0.05
    )
    found = verdict(
        cell(60, 20, 400),
        noise=noise,
        conditions={"base": {"dtype": "bf16"}, "candidate": {"dtype": "bf16"}},
        notes=("one row twice",),
    )
    assert Verdict.model_validate(json.loads(found.model_dump_json())) == found
    text = to_markdown(found)
    assert text.startswith("# Better: candidate against base\n")
    assert "| menus | 400 | +10.0 % (60 gains, 20 losses) |" in text
    assert "31 of 200 answers changed, 4 of 200 grades (at most 5.0% at 95 %)" in text
    assert "- one row twice" in text


def test_names_from_outside_end_no_cell_and_are_no_markup() -> None:
    text = to_markdown(verdict(cell(60, 20, 400, family="a|b<script>\nx")))
    assert "| a\\|b&lt;script> x | 400 |" in text
