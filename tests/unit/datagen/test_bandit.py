from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from datagen.bandit import RULES, Experiment, Rules, Trial, assign, beginning, conclude, posterior
from pydantic import ValidationError
from ratchet.settings.data import CurriculumSettings

SETTINGS = CurriculumSettings()
ARMS = SETTINGS.strategies


def trial(arm: str, net: int, age: int = 0, tokens: int = 200_000) -> Trial:
    return Trial(
        arm=arm,
        checkpoint_id=f"after-{age}",
        before_id=f"before-{age}",
        tokens=tokens,
        items=360,
        gains=20 + max(net, 0),
        losses=20 + max(-net, 0),
        age=age,
    )


def campaign(truth: dict[str, float], length: int, seed: int) -> list[Trial]:
    """Each arm's net gain a trial, drawn with noise; arms take turns; the oldest first."""
    random = Random(seed)
    arms = list(truth)
    return [
        trial(arm := arms[place % len(arms)], round(random.gauss(truth[arm], 5)), age=length - 1 - place)
        for place in range(length)
    ]


def concluded(
    trials: list[Trial], settings: CurriculumSettings = SETTINGS, *, finished: bool = False, rules: Rules = RULES
) -> Experiment:
    return conclude(trials, settings, has_mastered=True, was_finished=finished, rules=rules)


def test_a_trials_outcome_is_points_for_100k_tokens() -> None:
    assert trial("mixed", 36).points == pytest.approx(5.0)
    assert trial("mixed", 36, tokens=400_000).points == pytest.approx(2.5)
    assert trial("mixed", -36).points == pytest.approx(-5.0)


def test_before_anything_is_mastered_the_favoured_arm_gets_every_batch() -> None:
    waiting = conclude([], SETTINGS, has_mastered=False)
    assert waiting.state == beginning(SETTINGS).state == "waiting"
    assert waiting.shares() == beginning(SETTINGS).shares()
    assert waiting.shares() == {arm: float(arm == SETTINGS.favoured) for arm in ARMS}


def test_at_first_the_favoured_arm_leads_and_the_others_are_tried() -> None:
    begun = concluded([])
    shares = begun.shares()
    assert begun.state == "open"
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[SETTINGS.favoured] > 0.5
    assert all(share >= SETTINGS.exploration / len(ARMS) for share in shares.values())


def test_the_initial_shares_follow_the_settings() -> None:
    def begun(**changed: float | str) -> dict[str, float]:
        return concluded([], CurriculumSettings.model_validate(changed)).shares()

    assert begun(exploration=1.0) == pytest.approx(dict.fromkeys(ARMS, 1 / len(ARMS)))
    assert begun(favoured="mixed")["mixed"] > 0.5


def test_the_favoured_arm_leads_by_its_advantage() -> None:
    shares = [concluded([], rules=Rules(advantage=by)).shares()["progressive"] for by in (0.0, 1.0, 4.0)]
    assert shares[0] == pytest.approx(1 / len(ARMS), abs=0.02)
    assert shares[1] < shares[2]


def test_one_arm_is_no_experiment() -> None:
    alone = concluded([], CurriculumSettings(strategies=("mixed",), favoured="mixed"))
    assert (alone.state, alone.shares(), alone.comparisons) == ("off", {"mixed": 1.0}, ())


def test_the_share_moves_to_the_arm_that_teaches_most() -> None:
    shares = concluded(campaign({"progressive": 5, "mixed": 5, "reverse": 0, "adaptive": 25}, 24, seed=1)).shares()
    assert max(shares, key=lambda arm: shares[arm]) == "adaptive"
    assert shares["reverse"] < 0.1


def test_a_clear_winner_ends_the_experiment_and_is_reported() -> None:
    done = concluded(campaign({"progressive": 5, "mixed": 5, "reverse": 0, "adaptive": 30}, 32, seed=2))
    assert (done.state, done.leader) == ("decided", "adaptive")
    assert done.shares()["adaptive"] == 1.0
    sentence = next(line for line in done.report if "mixed" in line)
    assert sentence.startswith("adaptive beats mixed by ")
    assert " points per 100k tokens, P = " in sentence


def test_equal_arms_end_the_experiment_as_even() -> None:
    done = concluded(campaign(dict.fromkeys(ARMS, 5.0), 60, seed=3), rules=Rules(even_points=3.0))
    assert done.state == "even"
    assert all("is even with" in line for line in done.report)


@pytest.mark.parametrize("rules", [Rules(certainty=1 - 1e-12), Rules(trials_each=50.0)], ids=["certainty", "trials"])
def test_the_experiment_ends_only_with_certainty_and_enough_trials(rules: Rules) -> None:
    trials = campaign({"progressive": 5, "mixed": 5, "reverse": 0, "adaptive": 30}, 32, seed=2)
    assert concluded(trials).state == "decided"
    assert concluded(trials, rules=rules).state == "open"


def test_arms_that_differ_by_less_than_the_even_points_are_even() -> None:
    trials = campaign(dict.fromkeys(ARMS, 5.0), 60, seed=3)
    found = [concluded(trials, rules=Rules(even_points=points)).comparisons[0].even for points in (0.1, 3.0)]
    assert found[0] < 0.5 < 0.95 < found[1]


def test_a_trial_counts_half_after_the_half_life() -> None:
    weights = [
        posterior([trial("mixed", 5, age=30)], SETTINGS, rules=Rules(half_life=h)).weight.sum() for h in (15, 30)
    ]
    assert weights == pytest.approx([0.25, 0.5])


def test_the_prior_counts_as_a_number_of_trials() -> None:
    trials = [trial("mixed", 36), trial("adaptive", 0)]
    told = [posterior(trials, SETTINGS, rules=Rules(prior_trials=trials_before)) for trials_before in (1.0, 10.0)]
    apart = [belief.difference(ARMS.index("mixed"), ARMS.index("adaptive"))[0] for belief in told]
    assert apart == pytest.approx([2.5, 5 / 11])


def test_equal_arms_are_rarely_called_different() -> None:
    wrong = [concluded(campaign(dict.fromkeys(ARMS, 5.0), 32, seed)).state == "decided" for seed in range(60)]
    assert sum(wrong) <= 3


def test_the_interval_covers_the_true_difference() -> None:
    truth = {"progressive": 5.0, "mixed": 5.0, "reverse": 0.0, "adaptive": 15.0}
    covered = []
    for seed in range(80):
        for found in concluded(campaign(truth, 40, seed)).comparisons:
            true_points = (truth[found.arm] - truth[found.other]) / 360 * 100 / 2
            covered.append(abs(found.points - true_points) <= found.half_width)
    assert sum(covered) / len(covered) > 0.9


def test_old_trials_are_forgotten() -> None:
    """The prior system took the slope over all history."""
    old = [trial("mixed", 30, age=150 + n) for n in range(10)] + [trial("adaptive", 0, age=160 + n) for n in range(10)]
    new = [trial("mixed", 0, age=n) for n in range(5)] + [trial("adaptive", 30, age=5 + n) for n in range(5)]
    assert concluded([*old, *new]).leader == "adaptive"
    assert posterior(old, SETTINGS).weight.sum() < 0.6


def test_a_decided_experiment_reopens_only_when_its_trials_are_old() -> None:
    truth = {"progressive": 5, "mixed": 5, "reverse": 0, "adaptive": 30}
    trials = campaign({arm: float(net) for arm, net in truth.items()}, 32, seed=2)

    def later(checkpoints: int) -> str:
        aged = [t.model_copy(update={"age": t.age + checkpoints}) for t in trials]
        return concluded(aged, finished=True).state

    assert later(0) == later(15) == "decided"
    assert later(150) == "open"


def test_gains_that_shrink_for_all_arms_are_no_difference() -> None:
    """An arm that was tried early, when everything is learnt fast, is not better for that."""
    falling = [trial("mixed", 40 - n, age=39 - n) for n in range(20)]
    falling += [trial("adaptive", 20 - n, age=19 - n) for n in range(20)]
    two = CurriculumSettings(strategies=("mixed", "adaptive"), favoured="mixed")
    (found,) = concluded(falling, two).comparisons
    assert found.better < 0.95


def test_a_short_segment_weighs_less() -> None:
    whole = posterior([trial("mixed", 5)] * 3, SETTINGS).weight.sum()
    cut = posterior([*[trial("mixed", 5)] * 2, trial("mixed", 5, tokens=50_000)], SETTINGS).weight.sum()
    assert cut == pytest.approx(whole - 1 + (50_000 / 200_000) ** 2)


def test_trials_of_an_arm_that_is_gone_are_left_out() -> None:
    settings = CurriculumSettings(strategies=("mixed", "adaptive"), favoured="mixed")
    assert concluded([trial("reverse", 100)], settings) == concluded([], settings)


def test_an_assignment_is_random_by_its_share_and_the_same_for_its_seed() -> None:
    shares = {"mixed": 0.75, "adaptive": 0.25, "reverse": 0.0}
    drawn = Counter(assign(shares, seed) for seed in range(2_000))
    assert drawn["reverse"] == 0
    assert 0.7 < drawn["mixed"] / 2_000 < 0.8
    assert [assign(shares, 7) for _ in range(5)] == [assign(shares, 7)] * 5


def test_contradictory_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="favoured 'best' is none of the strategies"):
        CurriculumSettings(favoured="best")
    with pytest.raises(ValidationError, match="strategies names one twice"):
        CurriculumSettings(strategies=("mixed", "mixed"), favoured="mixed")
