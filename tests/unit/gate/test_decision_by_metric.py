"""The gate on tasks of the user: of any metric, with few items, and with the general task beside them."""

from __future__ import annotations

import numpy as np
import pytest
from deployer.challenge import Pair
from ratchet.evaluation.paired_outcomes import CellOutcomes, PairedScores, ScoreTable
from ratchet.evaluation.record import GENERAL, Evaluation, Metric
from ratchet.gate.decision import Promote, Refuse, conclude, decide, weigh
from ratchet.gate.proofs import prove_general, prove_score_safe, prove_task
from ratchet.gate.screen import screen_outcomes
from ratchet.ledger.tables import CheckpointRow, SuiteRow
from ratchet.settings.judging import GateSettings

from tests.support.records import evaluation

SETTINGS = GateSettings()


def scores(
    effect: float, n: int = 60, family: str = "menus", metric: Metric = "loss", spread: float = 0.1, **counts: int
) -> PairedScores:
    """A task whose scores change by this much on average; a positive effect of a loss is a fall."""
    noise = np.random.default_rng(n).standard_normal(n)
    differences = effect + spread * (noise - noise.mean()) / noise.std(ddof=1)
    sign = -1 if metric == "loss" else 1
    before = 1.92 if metric == "loss" else 0.4
    return PairedScores(
        family=family,
        metric=metric,
        n=n,
        before=before,
        after=before + sign * effect,
        differences=tuple(map(float, differences)),
        **counts,
    )


def judge(
    *tasks: PairedScores,
    table: tuple[CellOutcomes, ...] = (),
    drift: PairedScores | None = None,
    unprotected: str = "",
    k: int = 1,
) -> Promote | Refuse:
    names = {task.family for task in tasks} | {cell.family for cell in table} | {GENERAL}
    return conclude(
        weigh(
            table,
            champion="old",
            challenger="new",
            k=k,
            mastered={},
            settings=SETTINGS,
            smoke_passed=True,
            scores=tasks,
            tasks=frozenset(names - {unprotected}),
            drift=drift,
        )
    )


def graded(gains: int, losses: int, n: int = 46, family: str = "sums") -> CellOutcomes:
    return CellOutcomes(family=family, level=1, n=n, gains=gains, losses=losses)


def test_a_lower_loss_is_proved_and_told_in_nats() -> None:
    decision = judge(scores(0.31))
    assert isinstance(decision, Promote)
    assert decision.reason.startswith(
        "Proved better on menus: loss 1.92 → 1.61 nats/token on 60 items (−0.31, 95 % from −0.34 to −0.26), p = "
    )
    assert "Not worse in menus (the margin is 0.05 nats/token at α = 0.05, 60 items)" in decision.reason


def test_an_equal_loss_is_not_proved_better() -> None:
    decision = judge(scores(0.0))
    assert isinstance(decision, Refuse)
    assert decision.reason.startswith("Not proved better on menus: loss 1.92 → 1.92 nats/token on 60 items (+0.00)")


def test_a_few_huge_outliers_prove_nothing() -> None:
    """The mean loss falls by 0.3, all of it on two items."""
    outliers = scores(0.0).model_copy(update={"differences": (9.0, 9.0, *(0.0,) * 58)})
    decision = judge(outliers)
    assert isinstance(decision, Refuse)
    assert "clipped at 0.5" in decision.reason


def test_a_gain_on_most_items_that_the_others_outweigh_is_none() -> None:
    hidden = scores(0.0, n=400).model_copy(update={"differences": (*(0.1,) * 380, *(-5.0,) * 20)})
    target = judge(hidden).evidence.targets[0]
    assert target.p < target.alpha
    assert not target.proved


def test_targets_share_alpha() -> None:
    tasks = [scores(0.0, family=f"task{i}") for i in range(3)]
    evidence = judge(*tasks, table=(graded(8, 1),)).evidence
    assert [target.task for target in evidence.targets] == ["sums", "task0", "task1", "task2"]
    assert {target.alpha for target in evidence.targets} == {evidence.alpha_k / 4}
    alone = judge(table=(graded(8, 1),))
    assert isinstance(alone, Promote)
    assert isinstance(judge(*tasks, table=(graded(8, 1),)), Refuse)


def test_one_proved_target_suffices_if_no_other_task_is_worse() -> None:
    assert isinstance(judge(scores(0.31), scores(0.0, family="letters")), Promote)
    worse = judge(scores(0.31), scores(-0.2, family="letters"))
    assert isinstance(worse, Refuse)
    assert worse.reason.startswith("Task letters is not proved safe: loss 1.92 → 2.12 nats/token on 60 items")
    assert isinstance(judge(scores(0.31), scores(-0.2, family="letters"), unprotected="letters"), Promote)


def test_the_general_task_is_no_target() -> None:
    decision = judge(scores(0.4, family=GENERAL))
    assert isinstance(decision, Refuse)
    assert decision.evidence.targets == ()


def test_a_judged_task_is_told_in_preferences() -> None:
    decision = judge(scores(0.4, metric="judge", spread=0.1))
    assert isinstance(decision, Promote)
    assert "on menus: preferred over the reference 40% → 80% on 60 items (+40.0%, 95 % from" in decision.reason


def test_graded_items_of_one_task_are_called_by_its_name() -> None:
    alone, beside = judge(table=(graded(20, 2),)), judge(table=(graded(20, 2), graded(0, 0, family="letters")))
    assert isinstance(alone, Promote)
    assert isinstance(beside, Promote)
    assert alone.reason.startswith("Proved better on sums: 20 gains and 2 losses on 46 items (+39.1%")
    assert beside.reason.startswith("Proved better: 20 gains and 2 losses on 92 items")


def test_without_votes_nothing_is_proved() -> None:
    silent = PairedScores(family="menus", metric="judge", n=0, unscored=60, before=0, after=0, differences=())
    decision = judge(silent, table=(graded(20, 0),))
    assert isinstance(decision, Refuse)
    assert "menus has no item with a score in both records, of 60" in decision.reason
    assert "`ratchet data set menus --unprotected`" in decision.reason


def test_a_target_without_any_score_does_not_pass_the_screen() -> None:
    silent = PairedScores(family="menus", metric="judge", n=0, unscored=60, before=0, after=0, differences=())
    seen = screen_outcomes((), "old", "new", SETTINGS, (silent,))
    assert not seen.is_worth_opening
    assert seen.reason.startswith("Not promising on the eval suite: menus has no item with a score in both records.")


def unreadable(count: int) -> PairedScores:
    """Sixty judged items: on twelve the challenger wins 8 and loses 2; on this many others the judge's reply to its
    answer is unreadable.
    """
    few = PairedScores(
        family="menus", metric="judge", n=12, before=0.3, after=0.8, differences=(1.0,) * 8 + (-1.0,) * 2 + (0.0,) * 2
    )
    return few.model_copy(update={"unscored": count, "only_before": count})


def test_answers_that_cannot_be_judged_prove_nothing() -> None:
    assert isinstance(judge(unreadable(0).model_copy(update={"differences": (1.0,) * 12})), Promote)
    decision = judge(unreadable(48).model_copy(update={"differences": (1.0,) * 12}))
    assert isinstance(decision, Refuse)
    assert not decision.evidence.targets[0].proved
    assert "on 12 items, and 48 without a score of the challenger's, which count as the worst" in decision.reasons[0]
    assert decision.reasons[1].startswith("Task menus is not proved safe: ")
    assert not screen_outcomes((), "old", "new", SETTINGS, (unreadable(48),)).is_worth_opening


def test_what_only_the_challenger_has_a_score_of_is_no_gain() -> None:
    """Nor does it hide a loss among the others."""
    better = scores(0.31)
    beside = better.model_copy(update={"unscored": 60, "only_after": 60})
    both, alone = (judge(task).evidence for task in (beside, better))
    assert both.targets[0].effect == pytest.approx(alone.targets[0].effect / 2)
    assert both.tasks[0].effect == pytest.approx(alone.tasks[0].effect)


class TestTasksOfFewItems:
    def test_the_margin_grows_with_the_flips_and_is_named(self) -> None:
        proof = prove_task((graded(6, 6),), "sums", SETTINGS)
        assert SETTINGS.margin < proof.margin < 0.15
        assert proof.alpha == pytest.approx(0.2)
        assert proof.safe
        decision = judge(scores(0.31), table=(graded(6, 6),))
        assert isinstance(decision, Promote)
        assert f"sums (drop below {proof.margin:.1%} on 46 items; underpowered" in decision.reason

    def test_the_items_that_are_tested_do_not_choose_the_margin(self) -> None:
        """A challenger that flips more of them would be granted a wider margin; the eval suite says what to expect."""
        told = {"champion": "old", "challenger": "new", "k": 1, "mastered": {}, "smoke_passed": True}
        told |= {"settings": SETTINGS, "tasks": frozenset({"sums", "menus"})}

        def margins(flips: int, spread: float, seen_flips: int, seen_spread: float) -> tuple[float, float]:
            evidence = weigh(
                (graded(flips, flips),),
                scores=(scores(0.0, n=30, spread=spread),),
                screened_table=(graded(seen_flips, seen_flips, n=31),),
                screened_scores=(scores(0.0, n=31, spread=seen_spread),),
                **told,
            )
            return evidence.families[0].margin, evidence.tasks[0].margin

        assert margins(1, 0.1, 4, 0.3) == margins(9, 0.4, 4, 0.3)
        few, many = margins(4, 0.3, 1, 0.1), margins(4, 0.3, 4, 0.3)
        assert few[0] < many[0] <= 0.15
        assert few[1] < many[1]

    def test_a_task_is_protected_whatever_its_success_rate(self) -> None:
        decision = judge(scores(0.31), table=(graded(1, 9),))
        assert isinstance(decision, Refuse)
        assert decision.reason.startswith("Task sums is not proved safe: 1 gains and 9 losses on 46 items (-17.4%)")

    @pytest.mark.parametrize(("n", "share"), [(40, 0.25), (70, 0.2), (150, 0.3), (900, 0.15)])
    def test_an_equal_model_passes_and_one_worse_by_the_margin_does_not(self, n: int, share: float) -> None:
        rng = np.random.default_rng(n)
        margin = prove_task((graded(round(share * n / 2), round(share * n / 2), n),), "sums", SETTINGS).margin

        def passed(drop: float) -> float:
            flips = rng.multinomial(n, [(share - drop) / 2, (share + drop) / 2, 1 - share], size=300)
            return float(
                np.mean([prove_task((graded(g, losses, n),), "sums", SETTINGS).safe for g, losses, _ in flips])
            )

        assert passed(0.0) >= 0.75
        assert passed(margin) <= 0.25

    @pytest.mark.parametrize(("n", "spread"), [(20, 0.2), (150, 0.1)])
    def test_so_it_is_with_losses(self, n: int, spread: float) -> None:
        rng = np.random.default_rng(n)
        margin = prove_score_safe(scores(0.0, n=n, spread=spread), SETTINGS).margin

        def passed(rise: float) -> float:
            drawn = -rise + spread * rng.standard_normal((80, n))
            tasks = [scores(0.0, n=n).model_copy(update={"differences": tuple(map(float, row))}) for row in drawn]
            return float(np.mean([prove_score_safe(task, SETTINGS).safe for task in tasks]))

        assert passed(0.0) >= 0.7
        assert passed(margin) <= 0.25

    def test_a_candidate_that_is_not_worse_passes_the_screen_on_few_scores(self) -> None:
        few: ScoreTable = (scores(0.01, n=8),)
        assert screen_outcomes((), "old", "new", SETTINGS, few).is_worth_opening
        assert not screen_outcomes((), "old", "new", SETTINGS, (scores(-0.01, n=8),)).is_worth_opening
        assert not screen_outcomes((), "old", "new", SETTINGS, (scores(0.001, n=60),)).is_worth_opening


class TestGeneralAbility:
    def test_a_small_drift_passes_and_is_told(self) -> None:
        decision = judge(scores(0.31), drift=scores(-0.03, n=26, family=GENERAL))
        assert isinstance(decision, Promote)
        assert "general ability (drift +0.03 nats/token from the base on 26 items" in decision.reason

    def test_a_drift_beyond_the_margin_is_refused(self) -> None:
        decision = judge(scores(0.31), drift=scores(-0.4, n=26, family=GENERAL))
        assert isinstance(decision, Refuse)
        assert decision.reason.startswith(
            "General ability is not proved safe: loss of the base's own answers 1.92 → 2.32 nats/token on 26 items"
        )

    @pytest.mark.parametrize("n", [1, 4, 26])
    def test_without_drift_any_number_of_items_passes(self, n: int) -> None:
        still = scores(0.0, n=26, family=GENERAL).model_copy(update={"n": n, "differences": (0.0,) * n})
        assert prove_general(still, SETTINGS).safe
        assert not prove_general(still.model_copy(update={"differences": (-0.4,) * n}), SETTINGS).safe

    def test_answers_of_one_word_are_refused_even_where_the_loss_is_kept(self) -> None:
        for shortened, is_safe in ((0, True), (10, True), (11, False), (26, False)):
            assert prove_general(scores(0.0, n=26, family=GENERAL, shortened=shortened), SETTINGS).safe == is_safe
        decision = judge(scores(0.31), drift=scores(0.0, n=26, family=GENERAL, shortened=20))
        assert isinstance(decision, Refuse)
        assert (
            "20 of 26 answers are shorter than a third of the base's, which is more than 25% (p = 4.1e-08)"
            in decision.reason
        )


def test_answers_that_become_faulty_are_a_harm_whatever_the_loss() -> None:
    decision = judge(scores(0.31, new_faults=30, mended_faults=1))
    assert isinstance(decision, Refuse)
    assert decision.reasons == (
        "More answers of menus are empty, endless or repeating: 30 newly and 1 no longer, of 60, p = 1.5e-08 after "
        "correction.",
    )


def test_the_margin_of_a_loss_is_a_setting() -> None:
    slightly = scores(-0.06, n=400)
    told = [prove_score_safe(slightly, GateSettings(loss_margin=margin)).safe for margin in (0.05, 0.1)]
    assert told == [False, True]


def test_the_margin_of_the_drift_is_a_setting() -> None:
    drift = scores(-0.15, n=60, family=GENERAL)
    told = [prove_general(drift, GateSettings(general_margin=margin)).safe for margin in (0.1, 0.3)]
    assert told == [False, True]


def general_record(name: str, loss: float, tokens: int = 30) -> Evaluation:
    """Forty graded items of which half are right, and thirty general prompts."""
    graded_items = evaluation(name, {("sums", 1): [True, False] * 20})
    like = graded_items.items[0]
    general = [
        like.model_copy(
            update={
                "item_id": f"general:{i}",
                "family": GENERAL,
                "metric": "loss",
                "correct": None,
                "gold_nll": loss + 0.01 * (i % 5),
                "token_logprobs": (-0.1,) * tokens,
            }
        )
        for i in range(30)
    ]
    return graded_items.model_copy(update={"items": (*graded_items.items, *general)})


def test_drift_is_measured_from_the_base_and_not_from_the_champion() -> None:
    """Each of two deployments drifts by less than the margin, both together by more."""
    base, champion, challenger = (general_record(name, loss) for name, loss in (("b", 0.6), ("c", 0.8), ("d", 1.0)))
    tasks = frozenset({"sums", GENERAL})

    def general(first: Evaluation) -> bool:
        decision = decide(champion, challenger, 1, {}, SETTINGS, smoke_passed=True, tasks=tasks, base=first)
        assert decision.evidence.general is not None
        return decision.evidence.general.safe

    assert general(champion)
    assert not general(base)
    terse = general_record("t", 0.6, tokens=3)
    refused = decide(base, terse, 1, {}, SETTINGS, smoke_passed=True, tasks=tasks, base=base)
    assert "30 of 30 answers are shorter than a third of the base's" in refused.reason
    unprotected = decide(champion, challenger, 1, {}, SETTINGS, smoke_passed=True, tasks=frozenset({"sums"}), base=base)
    assert unprotected.evidence.general is None


def test_the_bases_record_is_asked_for_where_there_are_general_items() -> None:
    base, champion, challenger = (CheckpointRow(id=name) for name in ("base", "champion", "challenger"))
    suite = SuiteRow(id="s")
    plain, general = evaluation("champion", {("sums", 1): [True]}), general_record("champion", 0.6)
    assert Pair(champion, challenger, base, suite, plain, plain, None).absent == ()
    assert Pair(champion, challenger, base, suite, general, general, None).absent == (base,)
    assert Pair(base, challenger, base, suite, None, general, None).absent == (base,)
    assert Pair(champion, challenger, base, suite, general, general, general).absent == ()
