from __future__ import annotations

import math

import pytest
from miner.diversity import measure, normalised_entropy
from ratchet.data.example import Example
from ratchet.errors import EmptyEvaluation
from ratchet.tasks.graders import item_key


def rows(*questions: str) -> list[tuple[Example, str]]:
    examples = [Example.ask(question, "?", family="chain_sum", level=question.count("+")) for question in questions]
    return [(example, item_key(example)) for example in examples]


def test_counts_levels_repeats_and_gaps() -> None:
    batch = rows("1+1=", "1+1=", "1+2=", "1+1+1=")
    found = measure(batch, {("chain_sum", 1): 0.5, ("chain_sum", 2): 0.3, ("reverse", 1): 0.2}, {})
    assert (found.rows, found.distinct, found.duplicates) == (4, 3, 1)
    assert {(cell.family, cell.level): cell.rows for cell in found.cells} == {
        ("chain_sum", 1): 3,
        ("chain_sum", 2): 1,
        ("reverse", 1): 0,
    }
    assert found.gaps() == {("chain_sum", 2): pytest.approx(1 - 0.25 / 0.3), ("reverse", 1): 1.0}


def test_novelty_is_what_no_earlier_batch_held() -> None:
    batch = rows("1+1=", "1+1=", "1+2=")
    uses = {"chain_sum:1+1": 2, "chain_sum:1+2": 5}
    assert measure(batch, {}, uses).novelty == 0.5


@pytest.mark.parametrize(("counted", "entropy"), [([5, 5], 1.0), ([7], 1.0), ([3, 1, 0], 0.811278), ([4, 4, 4], 1.0)])
def test_entropy_is_one_where_levels_are_even(counted: list[int], entropy: float) -> None:
    assert math.isclose(normalised_entropy(counted), entropy, rel_tol=1e-5)


def test_an_empty_batch_has_no_coverage() -> None:
    with pytest.raises(EmptyEvaluation):
        measure([], {}, {})
