from __future__ import annotations

import numpy as np
import pytest
from ratchet.errors import NotComparable
from ratchet.evaluation.noise_floor import NOISE_ITEMS, noise_floor, noise_sample
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_tests import mcnemar_better

from tests.support.records import evaluation


def test_flips_and_changed_texts_are_counted() -> None:
    first = evaluation("a", {("sums", 1): [True, True, False, False]})
    again = evaluation("a", {("sums", 1): [True, False, True, False]})
    found = noise_floor(first, again)
    assert (found.items, found.changed, found.graded, found.flips) == (4, 2, 4, 2)
    assert found.share == 0.5
    assert 0.5 < found.upper < 1.0
    assert (found.engine, found.dtype, found.gpu_class) == ("local", "fp32", "cpu")


def test_no_flip_is_still_bounded_from_above() -> None:
    first = evaluation("a", {("sums", 1): [True] * 200})
    found = noise_floor(first, first)
    assert found.flips == 0
    assert 0.01 < found.upper < 0.02


def test_a_sample_is_spread_over_all_tasks_and_is_all_of_a_short_suite() -> None:
    assert noise_sample(range(NOISE_ITEMS)) == list(range(NOISE_ITEMS))
    assert noise_sample([]) == []
    sample = noise_sample(range(5 * NOISE_ITEMS + 1))
    assert len(sample) <= NOISE_ITEMS
    assert sample[-1] > 4.9 * NOISE_ITEMS


def test_free_text_counts_changed_answers() -> None:
    first = evaluation("a", {("notes", 1): [True, True]})
    texts = [
        first.model_copy(
            update={
                "items": tuple(
                    item.model_copy(update={"correct": None, "metric": "loss", "answer": answer})
                    for item, answer in zip(first.items, answers, strict=True)
                )
            }
        )
        for answers in (("one", "two"), ("one", "three"))
    ]
    found = noise_floor(*texts)
    assert (found.graded, found.flips, found.changed, found.share) == (0, 0, 1, 0.5)


def test_other_conditions_are_not_compared() -> None:
    first = evaluation("a", {("sums", 1): [True]})
    with pytest.raises(NotComparable):
        noise_floor(first, evaluation("a", {("sums", 1): [True]}, suite="another"))


@pytest.mark.parametrize("flip_rate", [0.0, 0.01, 0.05, 0.2])
def test_noise_alone_is_called_a_gain_at_most_at_rate_alpha(flip_rate: float) -> None:
    """An unchanged model judged twice: each grade flips at that rate in each judging, whatever it was."""
    random, alpha, runs, n = np.random.default_rng(4), GateSettings().alpha, 4_000, 400
    truth = random.random((runs, n)) < 0.6
    first, again = truth ^ (random.random((runs, n)) < flip_rate), truth ^ (random.random((runs, n)) < flip_rate)
    p = mcnemar_better((again & ~first).sum(axis=1), (first & ~again).sum(axis=1))
    assert float((p <= alpha).mean()) <= alpha + 2.6 * float(np.sqrt(alpha * (1 - alpha) / runs))
