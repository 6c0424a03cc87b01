from __future__ import annotations

from miner.correction_impact import impacts, shown_class
from miner.mined_items import GradedAnswer
from ratchet.tasks.graders import item_key

from tests.support.examples import made

SUMS = made("chain_sum", 2, 20)


def answers(*errors: str | None) -> list[GradedAnswer]:
    """Answers to the sums, in order: an error class, None for right, ``?`` for right but shaky."""
    return [
        GradedAnswer(
            example=item,
            key=item_key(item),
            answer="said",
            error=None if error == "?" else error,
            mean_probability=0.9,
            least_probability=0.1 if error == "?" else 0.9,
        )
        for item, error in zip(SUMS, errors, strict=False)
    ]


def test_the_error_class_of_an_answer_is_found() -> None:
    carry, shaky, right = answers("carry", "?", None)
    assert [shown_class(each) for each in (carry, shaky, right)] == ["chain_sum:carry", "chain_sum:low_margin", None]


def test_gains_and_losses_of_a_class_are_counted_over_all_items_of_the_family() -> None:
    before = answers("carry", "carry", "carry", "wrong", None, None)
    after = answers(None, "wrong", "carry", "carry", None, None)
    (carry,) = impacts(before, after, ["chain_sum:carry"], {("chain_sum", 2)})
    assert (carry.items, carry.before, carry.after, carry.gains, carry.losses) == (6, 3, 2, 2, 1)
    assert carry.effect == 1 / 6
    assert carry.fall.low < 1 / 6 < carry.fall.high


def test_a_class_of_another_family_or_level_is_not_measured() -> None:
    assert impacts(answers("carry"), answers(None), ["reverse:order"], {("chain_sum", 2)}) == []
    assert impacts(answers("carry"), answers(None), ["chain_sum:carry"], {("chain_sum", 1)}) == []
