from __future__ import annotations

import numpy as np
import pytest
from evaluator.comparison import Ranking, rank
from evaluator.tally import Tally, tally
from ratchet.errors import EmptyEvaluation, NotComparable
from ratchet.testing.records import evaluation


def tallies(rates: list[float], items: int = 300, seed: int = 0) -> list[Tally]:
    rng = np.random.default_rng(seed)
    luck = rng.random((len(rates), items))
    return [
        tally(evaluation(f"c{i:03}", {("sum", 1): list(map(bool, luck[i] < rate))})) for i, rate in enumerate(rates)
    ]


def test_a_tally_keeps_the_grades_in_the_order_of_item_ids() -> None:
    record = evaluation("a", {("sum", 2): [True, False], ("sort", 1): [False, True, True]})
    kept = tally(record)
    expected = [item.correct for item in sorted(record.items, key=lambda item: item.item_id)]
    assert kept.unpacked().astype(bool).tolist() == expected
    assert kept.by_family["sort"].value == pytest.approx(2 / 3)
    assert Tally.model_validate_json(kept.model_dump_json()) == kept


def test_far_apart_is_ranked_and_close_is_tied() -> None:
    ranking = rank(tallies([0.2, 0.9, 0.88, 0.5]))
    assert [entry.checkpoint_id for entry in ranking.entries][2:] == ["c003", "c000"]
    assert [entry.group for entry in ranking.entries] == [1, 1, 2, 3]
    assert [entry.is_tied_with_best for entry in ranking.entries] == [True, True, False, False]
    assert [entry.rank for entry in ranking.entries] == [1, 2, 3, 4]


def test_equal_answers_share_a_rank_and_are_never_behind() -> None:
    record = {("sum", 1): [True, False] * 40}
    ranking = rank([tally(evaluation(name, record)) for name in ("b", "a", "c")])
    assert [(entry.checkpoint_id, entry.rank, entry.group) for entry in ranking.entries] == [
        ("a", 1, 1),
        ("b", 1, 1),
        ("c", 1, 1),
    ]
    assert all(entry.behind_at_most == pytest.approx(0.0, abs=1e-6) for entry in ranking.entries)


def test_the_order_of_arrival_changes_nothing() -> None:
    some = tallies([0.5, 0.6, 0.7, 0.8, 0.65])
    assert rank(some) == rank(list(reversed(some)))


def test_one_checkpoint_is_the_best_there_is() -> None:
    (entry,) = rank(tallies([0.4])).entries
    assert (entry.rank, entry.group, entry.n) == (1, 1, 300)
    assert entry.score in entry.interval


def test_the_pick_reads_the_choosing_half() -> None:
    ranking = rank(tallies([0.5, 0.52, 0.48, 0.51]))
    picked = ranking.best_of({"c000", "c002", "c003", "unknown"})
    assert picked is not None
    assert picked.checkpoint_id != "c001"
    assert picked.choosing_score == max(e.choosing_score for e in ranking.entries if e.checkpoint_id != "c001")
    assert ranking.best_of({"unknown"}) is None


def test_what_was_evaluated_otherwise_is_not_ranked_along() -> None:
    here, there = evaluation("a", {("sum", 1): [True] * 9}), evaluation("b", {("sum", 1): [True] * 9}, suite="other")
    longer = evaluation("c", {("sum", 1): [True] * 10})
    for other in (there, longer):
        with pytest.raises(NotComparable, match="evaluated alike"):
            rank([tally(here), tally(other)])


def test_nothing_to_rank_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation):
        rank([])
    with pytest.raises(EmptyEvaluation, match="a has no graded item"):
        tally(evaluation("a", {}))


def test_the_truly_best_is_in_the_leading_group() -> None:
    """95 % by design; 120 suites of 12 checkpoints, of which the last is best by a point."""
    held = 0
    for seed in range(120):
        ranking = rank(tallies([0.7] * 11 + [0.71], items=200, seed=seed))
        held += next(entry for entry in ranking.entries if entry.checkpoint_id == "c011").is_tied_with_best
    assert held / 120 >= 0.95 - 2.6 * np.sqrt(0.05 * 0.95 / 120)


def test_a_thousand_checkpoints_by_a_thousand_items() -> None:
    rng = np.random.default_rng(1)
    like = tallies([0.5], items=1_000)[0]
    many = [
        like.model_copy(
            update={
                "checkpoint_id": f"c{i:04}",
                "grades": np.packbits(rng.random(1_000) < 0.3 + i / 2_000).tobytes().hex(),
            }
        )
        for i in range(1_000)
    ]
    ranking = rank(many)
    scores = [entry.score for entry in ranking.entries]
    assert scores == sorted(scores, reverse=True)
    assert ranking.entries[0].group == 1
    assert 3 < max(entry.group for entry in ranking.entries) < 50
    assert Ranking.model_validate(ranking.model_dump()) == ranking
