from __future__ import annotations

from miner.answered import Answered
from miner.impact import ClassImpact, Taught, impacts, shown, stopped_classes
from miner.mining import Limits
from ratchet.stats.interval import Interval
from ratchet.tasks.graders import item_key
from ratchet.testing.examples import made

LIMITS = Limits()
SUMS = made("chain_sum", 2, 20)


def answers(*errors: str | None) -> list[Answered]:
    """Answers to the sums, in order: an error class, None for right, ``?`` for right but shaky."""
    return [
        Answered(
            example=item,
            key=item_key(item),
            answer="said",
            error=None if error == "?" else error,
            mean_probability=0.9,
            least_probability=0.1 if error == "?" else 0.9,
        )
        for item, error in zip(SUMS, errors, strict=False)
    ]


def test_what_an_answer_shows() -> None:
    carry, shaky, right = answers("carry", "?", None)
    assert [shown(each, LIMITS) for each in (carry, shaky, right)] == ["chain_sum:carry", "chain_sum:low_margin", None]


def test_flips_into_and_out_of_a_class_are_counted_over_all_items_of_the_family() -> None:
    before = answers("carry", "carry", "carry", "wrong", None, None)
    after = answers(None, "wrong", "carry", "carry", None, None)
    (carry,) = impacts(before, after, ["chain_sum:carry"], LIMITS, {("chain_sum", 2)})
    assert (carry.items, carry.before, carry.after, carry.gains, carry.losses) == (6, 3, 2, 2, 1)
    assert carry.effect == 1 / 6
    assert carry.fall.low < 1 / 6 < carry.fall.high


def test_a_class_of_another_family_or_level_is_not_measured() -> None:
    assert impacts(answers("carry"), answers(None), ["reverse:order"], LIMITS, {("chain_sum", 2)}) == []
    assert impacts(answers("carry"), answers(None), ["chain_sum:carry"], LIMITS, {("chain_sum", 1)}) == []


def impact(gains: int, losses: int, name: str = "chain_sum:carry") -> ClassImpact:
    return ClassImpact(
        error_class=name,
        items=50,
        before=gains,
        after=losses,
        gains=gains,
        losses=losses,
        fall=Interval(low=-0.1, high=0.1, confidence=0.95),
    )


def taught(*each: ClassImpact, unmeasured: frozenset[str] = frozenset()) -> Taught:
    return Taught(frozenset(i.error_class for i in each) | unmeasured, {i.error_class: i for i in each})


def test_a_class_that_did_not_become_rarer_is_stopped_after_enough_batches() -> None:
    bad = taught(impact(1, 1))
    assert stopped_classes([bad, bad], patience=3, pause=6) == {}
    stopped = stopped_classes([bad, bad, bad], patience=3, pause=6)
    assert list(stopped) == ["chain_sum:carry"]
    assert "3 gained, 3 lost over 3 correction batches" in stopped.values()


def test_a_gain_keeps_it_going() -> None:
    history = [taught(impact(0, 1)), taught(impact(5, 1)), taught(impact(0, 1))]
    assert stopped_classes(history, patience=3, pause=6) == {}


def test_only_the_newest_measured_batches_count() -> None:
    history = [taught(impact(9, 0)), *[taught(impact(0, 1))] * 3, taught(unmeasured=frozenset({"chain_sum:carry"}))]
    assert list(stopped_classes(history, patience=3, pause=6)) == ["chain_sum:carry"]


def test_it_is_tried_again_after_a_rest() -> None:
    bad, other = taught(impact(0, 0)), taught(impact(3, 0, "reverse:order"))
    assert stopped_classes([bad, bad, other], patience=2, pause=2) != {}
    assert stopped_classes([bad, bad, other, other], patience=2, pause=2) == {}
