from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from ratchet.errors import EmptyEvaluation, NotComparable
from ratchet.evaluation.paired_outcomes import CellOutcomes, OutcomeTable
from ratchet.gate.decision import (
    Decision,
    Promote,
    Refuse,
    conclude,
    decide,
    weigh,
)
from ratchet.gate.proofs import find_harm, prove_family
from ratchet.gate.screen import screen, screen_outcomes
from ratchet.settings.judging import GateSettings
from ratchet.stats.power import SAFETY_ALPHA, pool_items

from tests.support.records import evaluation

SETTINGS = GateSettings()
ENOUGH = pool_items(SETTINGS)


def cell(level: int, gains: int, losses: int, n: int = 200, family: str = "sum") -> CellOutcomes:
    return CellOutcomes(family=family, level=level, n=n, gains=gains, losses=losses)


def judge(
    table: OutcomeTable,
    k: int = 1,
    mastered: dict[str, set[int]] | None = None,
    smoke_passed: bool = True,
    settings: GateSettings = SETTINGS,
) -> Promote | Refuse:
    return conclude(
        weigh(
            table,
            champion="old",
            challenger="new",
            k=k,
            mastered={"sum": {1}} if mastered is None else mastered,
            settings=settings,
            smoke_passed=smoke_passed,
        )
    )


BETTER = (cell(1, 2, 2), cell(2, 40, 10))


def test_a_better_and_safe_challenger_is_promoted_with_its_numbers() -> None:
    decision = judge(BETTER)
    assert isinstance(decision, Promote)
    (target,), (family,) = decision.evidence.targets, decision.evidence.families
    assert (target.n, target.gains, target.losses) == (400, 42, 12)
    assert target.p <= target.alpha == pytest.approx(0.0304, abs=1e-4)
    assert family.enough
    assert family.p <= family.alpha
    assert family.lower_bound > -SETTINGS.margin
    assert "42 gains and 12 losses on 400 items" in decision.reason


def test_an_equal_challenger_is_refused() -> None:
    decision = judge((cell(1, 2, 2), cell(2, 20, 18)))
    assert isinstance(decision, Refuse)
    assert decision.reason.startswith("Not proved better: 22 gains and 20 losses")


def test_later_challenges_must_prove_more() -> None:
    table = (cell(1, 0, 0), cell(2, 10, 1))
    assert [isinstance(judge(table, k), Promote) for k in (1, 2, 3, 4)] == [True, True, False, False]


def test_a_loss_in_a_protected_family_is_refused_whatever_the_target_gains() -> None:
    decision = judge((cell(1, 3, 13), cell(2, 90, 5)))
    assert isinstance(decision, Refuse)
    assert decision.evidence.targets[0].proved
    assert "Family sum is not proved safe: 3 gains and 13 losses on 200 mastered items (-5.0%)" in decision.reason


def test_mastered_levels_are_pooled_by_family() -> None:
    table = (cell(1, 0, 5), cell(2, 5, 0), cell(3, 60, 10), cell(1, 3, 3, family="sort"))
    decision = judge(table, mastered={"sum": {1, 2}, "sort": {1}})
    assert isinstance(decision, Promote)
    assert [(f.family, f.levels, f.n) for f in decision.evidence.families] == [
        ("sort", (1,), 200),
        ("sum", (1, 2), 400),
    ]


def test_the_untrained_base_protects_nothing() -> None:
    decision = judge((cell(1, 6, 0, n=10), cell(2, 0, 0)), mastered={"sum": set()})
    assert isinstance(decision, Promote)
    assert decision.evidence.families == ()
    assert decision.evidence.unprotected == ("sum",)
    assert "masters nothing yet" in decision.reason


def test_a_single_level_proved_worse_is_refused_even_in_an_unprotected_family() -> None:
    decision = judge((cell(1, 2, 2), cell(2, 90, 5), cell(3, 4, 25, family="sort")))
    assert isinstance(decision, Refuse)
    assert decision.reasons == tuple(r for r in decision.reasons if r.startswith("sort level 3 is worse"))


def test_many_levels_are_not_proved_worse_by_one_unlucky_one() -> None:
    quiet = tuple(cell(level, 3, 3) for level in range(2, 22))
    assert find_harm((cell(1, 1, 8),), 0.05)[0].harmed
    assert not any(level.harmed for level in find_harm((cell(1, 1, 8), *quiet), 0.05))


def test_a_failed_smoke_test_is_refused() -> None:
    decision = judge(BETTER, smoke_passed=False)
    assert isinstance(decision, Refuse)
    assert decision.reasons == ("The smoke test failed.",)


@pytest.mark.parametrize(
    ("table", "stricter"),
    [
        ((cell(1, 0, 0), cell(2, 10, 1)), {"alpha": 0.005}),
        ((cell(1, 10, 20, n=2000), cell(2, 90, 5)), {"margin": 0.005}),
    ],
    ids=["alpha", "margin"],
)
def test_the_required_proof_follows_the_settings(table: OutcomeTable, stricter: dict[str, float]) -> None:
    assert isinstance(judge(table), Promote)
    assert isinstance(judge(table, settings=GateSettings.model_validate(stricter)), Refuse)


def test_a_family_is_proved_safe_and_a_level_proved_worse_at_a_level_of_error() -> None:
    pool = (cell(1, 60, 110, n=2000),)
    assert [prove_family(pool, "sum", {1}, SETTINGS, alpha).safe for alpha in (0.05, 0.001)] == [True, False]
    worse = (cell(1, 0, 0), cell(2, 90, 5), cell(3, 2, 9, family="sort"))
    assert [find_harm(worse, alpha)[2].harmed for alpha in (0.05, 0.2)] == [False, True]


def test_the_full_test_of_a_family_needs_more_items_by_the_plan() -> None:
    proofs = [
        prove_family((cell(1, 0, 0, n=ENOUGH),), "sum", {1}, settings)
        for settings in (SETTINGS, GateSettings(power=0.9))
    ]
    assert [proof.enough for proof in proofs] == [True, False]


class TestSmallPools:
    def test_with_enough_items_the_full_level_is_asked(self) -> None:
        proof = prove_family((cell(1, 0, 0, n=ENOUGH),), "sum", {1}, SETTINGS)
        assert (proof.enough, proof.alpha, proof.rule) == (True, SAFETY_ALPHA, "non_inferiority")

    def test_with_fewer_items_the_level_is_relaxed_and_reported(self) -> None:
        decision = judge((cell(1, 1, 1, n=75), cell(2, 90, 5)))
        assert isinstance(decision, Promote)
        (proof,) = decision.evidence.families
        assert not proof.enough
        assert SAFETY_ALPHA < proof.alpha <= 0.2 + 1e-12
        assert f"underpowered: 75 of {ENOUGH} items, tested at α = {proof.alpha:.2f}" in decision.reason

    def test_a_five_point_drop_on_few_items_is_refused(self) -> None:
        decision = judge((cell(1, 0, 4, n=75), cell(2, 90, 5)))
        assert isinstance(decision, Refuse)
        assert f"underpowered: 75 of {ENOUGH} items, tested at α = " in decision.reason

    def test_where_nothing_can_be_proved_no_net_loss_is_allowed(self) -> None:
        kept = judge((cell(1, 0, 0, n=10), cell(2, 90, 5)))
        assert isinstance(kept, Promote)
        assert kept.evidence.families[0].rule == "no_net_loss"
        lost = judge((cell(1, 0, 1, n=10), cell(2, 90, 5)))
        assert isinstance(lost, Refuse)
        assert "no net loss is allowed" in lost.reason

    def test_a_mastered_family_without_any_item_is_refused(self) -> None:
        decision = judge(BETTER, mastered={"sum": {1}, "lost": {1}})
        assert isinstance(decision, Refuse)
        assert "Family lost has no confirm item" in decision.reason


def test_reads_evaluations() -> None:
    old = evaluation("old", {("sum", 1): [True] * 200, ("sum", 2): [False] * 200})
    new = evaluation("new", {("sum", 1): [True] * 200, ("sum", 2): [True] * 20 + [False] * 180})
    decision = decide(old, new, 1, {"sum": {1}}, SETTINGS, smoke_passed=True)
    assert isinstance(decision, Promote)
    assert (decision.evidence.champion, decision.evidence.challenger) == ("old", "new")
    assert isinstance(decide(new, old, 1, {"sum": {1}}, SETTINGS, smoke_passed=True), Refuse)


def test_refuses_to_compare_what_is_not_comparable() -> None:
    old = evaluation("old", {("sum", 1): [True] * 9})
    with pytest.raises(NotComparable, match="suite"):
        decide(old, evaluation("new", {("sum", 1): [True] * 9}, suite="other"), 1, {}, SETTINGS, True)
    with pytest.raises(EmptyEvaluation):
        decide(evaluation("a", {}), evaluation("b", {}), 1, {}, SETTINGS, True)


@pytest.mark.parametrize("table", [BETTER, (cell(1, 3, 13), cell(2, 90, 5))])
def test_a_decision_survives_json(table: OutcomeTable) -> None:
    decision = judge(table)
    assert TypeAdapter(Decision).validate_json(decision.model_dump_json()) == decision


cells = st.integers(1, 120).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda flips: st.tuples(st.just(n), st.integers(0, flips), st.just(flips)))
)


@given(st.lists(cells, min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 4), st.booleans())
def test_one_more_win_never_turns_promote_into_refuse(
    shapes: list[tuple[int, int, int]], where: int, k: int, undo_a_loss: bool
) -> None:
    table = [cell(level, gains, flips - gains, n) for level, (n, gains, flips) in enumerate(shapes, start=1)]
    lucky = table[where % len(table)]
    if undo_a_loss and lucky.losses:
        won = lucky.model_copy(update={"losses": lucky.losses - 1})
    elif lucky.gains + lucky.losses < lucky.n:
        won = lucky.model_copy(update={"gains": lucky.gains + 1})
    else:
        return
    more = tuple(won if each is lucky else each for each in table)
    if isinstance(judge(tuple(table), k), Promote):
        assert isinstance(judge(more, k), Promote)


@given(st.lists(cells, min_size=1, max_size=4))
def test_never_promotes_both_ways(shapes: list[tuple[int, int, int]]) -> None:
    forth = tuple(cell(level, g, flips - g, n) for level, (n, g, flips) in enumerate(shapes, start=1))
    back = tuple(each.model_copy(update={"gains": each.losses, "losses": each.gains}) for each in forth)
    outcomes = [isinstance(judge(t, mastered={}), Promote) for t in (forth, back)]
    assert not all(outcomes)


def test_a_promising_model_is_worth_opening() -> None:
    old = evaluation("old", {("sum", 1): [False] * 50})
    new = evaluation("new", {("sum", 1): [True] * 5 + [False] * 45})
    seen = screen(old, new, SETTINGS)
    assert seen.is_worth_opening
    target = seen.targets[0].target
    assert (target.n, target.gains, target.losses) == (50, 5, 0)
    assert "+10.0%" in seen.reason


def test_an_equal_model_is_not_worth_opening() -> None:
    seen = screen_outcomes((cell(1, 6, 5, n=100),), "old", "new", SETTINGS)
    assert not seen.is_worth_opening
    assert "Not promising" in seen.reason


def test_a_model_with_a_level_proved_worse_is_not_worth_opening() -> None:
    seen = screen_outcomes((cell(1, 0, 12, n=100), cell(2, 60, 2, n=100)), "old", "new", SETTINGS)
    assert seen.targets[0].target.p < SETTINGS.screen_alpha
    assert not seen.is_worth_opening
    assert "sum level 1" in seen.reason


def test_the_required_promise_follows_the_setting() -> None:
    told = [GateSettings(screen_alpha=alpha) for alpha in (0.1, 0.5)]
    assert [screen_outcomes((cell(1, 9, 6, n=100),), "old", "new", s).is_worth_opening for s in told] == [False, True]


def test_on_eval_items_too_few_for_a_screen_a_candidate_that_is_not_worse_challenges() -> None:
    """Fifteen items: a gain that confirm shows at p = 2e-8 had p = 0.12 there, and was never challenged."""
    promising = screen_outcomes((cell(1, 3, 1, n=15),), "old", "new", SETTINGS)
    assert promising.targets[0].target.p > SETTINGS.screen_alpha
    assert promising.is_worth_opening
    assert "15 items are too few for a screen" in promising.reason
    worse = screen_outcomes((cell(1, 1, 3, n=15),), "old", "new", SETTINGS)
    assert not worse.is_worth_opening
    assert not screen_outcomes((cell(1, 12, 10, n=60),), "old", "new", SETTINGS).is_worth_opening


def test_an_eval_suite_without_a_target_leaves_it_to_confirm() -> None:
    assert screen_outcomes((), "old", "new", SETTINGS).is_worth_opening
