from __future__ import annotations

import numpy as np
import pytest
from evaluator.ranking import Board, Cost, Ranking, Tally, packed, rank, tally
from ratchet.errors import EmptyEvaluation, NotComparable
from ratchet.evaluation.record import GENERAL, Evaluation
from ratchet.settings.judging import ComparisonSettings

from tests.support.records import evaluation


def tallies(rates: list[float], items: int = 300, seed: int = 0) -> list[Tally]:
    rng = np.random.default_rng(seed)
    luck = rng.random((len(rates), items))
    return [
        tally(evaluation(f"c{i:03}", {("sum", 1): list(map(bool, luck[i] < rate))})) for i, rate in enumerate(rates)
    ]


def test_a_tally_keeps_the_grades_by_family_and_item_id() -> None:
    record = evaluation("a", {("sum", 2): [True, False], ("sort", 1): [False, True, True]})
    kept = tally(record)
    expected = [item.correct for item in sorted(record.items, key=lambda item: (item.family, item.item_id))]
    assert kept.unpacked().astype(bool).tolist() == expected
    assert kept.by_family["sort"].mean == pytest.approx(2 / 3)
    assert Tally.model_validate_json(kept.model_dump_json()) == kept


def test_distant_checkpoints_are_ranked_and_close_ones_tied() -> None:
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


def test_a_single_checkpoint_is_the_best() -> None:
    (entry,) = rank(tallies([0.4])).entries
    assert (entry.rank, entry.group, entry.n) == (1, 1, 300)
    assert entry.score in entry.interval


def test_records_under_other_conditions_are_not_comparable() -> None:
    here, there = evaluation("a", {("sum", 1): [True] * 9}), evaluation("b", {("sum", 1): [True] * 9}, suite="other")
    longer = evaluation("c", {("sum", 1): [True] * 10})
    for other in (there, longer):
        with pytest.raises(NotComparable, match="under the same conditions"):
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


def made_up(name: str, grades: np.ndarray, like: Tally) -> Tally:
    """A tally of one family with these grades."""
    mean = float(grades.mean())
    family = like.by_family["sum"].model_copy(update={"correct": int(grades.sum()), "mean": mean, "score": mean})
    scores = packed([float(grade) for grade in grades])
    return like.model_copy(update={"checkpoint_id": name, "scores": scores, "by_family": {"sum": family}})


def test_a_thousand_checkpoints_by_a_thousand_items() -> None:
    rng = np.random.default_rng(1)
    like = tallies([0.5], items=1_000)[0]
    many = [made_up(f"c{i:04}", rng.random(1_000) < 0.3 + i / 2_000, like) for i in range(1_000)]
    ranking = rank(many)
    scores = [entry.score for entry in ranking.entries]
    assert scores == sorted(scores, reverse=True)
    assert ranking.entries[0].group == 1
    assert 3 < max(entry.group for entry in ranking.entries) < 50
    assert Ranking.model_validate(ranking.model_dump()) == ranking


def test_an_incremental_board_equals_a_new_one() -> None:
    some = tallies([0.5, 0.6, 0.7, 0.8])
    board = Board()
    for tally_ in some:
        board.add(tally_)
        board.add(tally_)
    assert len(board) == 4
    assert board.rank() == rank(some)
    assert board.rank(["c001", "c002", "unknown"]) == rank(some[1:3])


def test_a_repeated_record_replaces_the_old_one() -> None:
    some = tallies([0.5, 0.6])
    board = Board()
    for tally_ in (*some, some[1].model_copy(update={"checkpoint_id": "c000"})):
        board.add(tally_)
    assert [entry.rank for entry in board.rank().entries] == [1, 1]


def test_families_are_ranked_on_their_own_items() -> None:
    half = [True, False] * 60
    good_at_sums = tally(evaluation("a", {("sum", 1): [True] * 120, ("sort", 1): half}))
    good_at_sorting = tally(evaluation("b", {("sum", 1): half, ("sort", 1): [True] * 120}))
    first, second = rank([good_at_sums, good_at_sorting]).entries
    assert first.is_tied_with_best
    assert second.is_tied_with_best
    by_family = {
        e.checkpoint_id: {f: (s.rank, s.is_tied_with_best) for f, s in e.by_family.items()} for e in (first, second)
    }
    assert by_family == {"a": {"sum": (1, True), "sort": (2, False)}, "b": {"sum": (2, False), "sort": (1, True)}}
    interval = first.by_family["sort"].interval
    assert interval is not None
    assert interval.low < 0.5 < interval.high


def test_cost_does_not_change_the_score() -> None:
    some = tallies([0.7, 0.9])
    board = Board()
    for tally_ in some:
        board.add(tally_)
    costs = {"c000": Cost(tokens_per_s=900, size_bytes=10), "c001": Cost(tokens_per_s=90, size_bytes=30)}
    free = board.rank(costs=costs)
    bound = board.rank(costs=costs, budget=ComparisonSettings(max_size_bytes=20))
    slow = board.rank(costs=costs, budget=ComparisonSettings(min_tokens_per_s=100))
    assert [e.checkpoint_id for e in free.entries] == [e.checkpoint_id for e in bound.entries] == ["c001", "c000"]
    assert (free.best.checkpoint_id, bound.best.checkpoint_id) == ("c001", "c000")
    assert bound.entries[0].over_budget == "30 bytes are more than the 20 allowed"
    assert slow.entries[0].over_budget == "90 tokens/s are fewer than the 100 asked for"


def test_the_best_checkpoint_has_kept_files() -> None:
    board = Board()
    for tally_ in tallies([0.7, 0.9]):
        board.add(tally_)
    gone = {"c001": Cost(tokens_per_s=1, size_bytes=1, is_kept=False)}
    assert board.rank(costs=gone).best.checkpoint_id == "c000"


def with_loss(name: str, losses: list[float | None], right: list[bool]) -> Evaluation:
    """Sums that are graded, notes measured by loss, and general items."""
    graded = evaluation(name, {("sum", 1): right})
    notes = [
        graded.items[0].model_copy(
            update={"item_id": f"{family}{i}", "family": family, "metric": "loss", "correct": None, "gold_nll": loss}
        )
        for family in ("notes", GENERAL)
        for i, loss in enumerate(losses)
    ]
    return graded.model_copy(update={"items": (*graded.items, *notes)})


def test_a_score_is_the_mean_over_all_metrics_without_the_general_task() -> None:
    found = tally(with_loss("a", [0.5, 1.5, None, 1.0], [True, True, False, False]))
    assert (found.n, list(found.by_family)) == (8, ["notes", "sum"])
    notes = found.by_family["notes"]
    assert (notes.metric, notes.n, notes.measured, notes.correct, notes.mean) == ("loss", 4, 3, None, 1.0)
    probabilities = np.exp([-0.5, -1.5, -1.0])
    assert notes.score == pytest.approx(probabilities.mean())
    (entry,) = rank([found]).entries
    assert entry.score == pytest.approx((2 + probabilities.sum()) / 7, abs=1e-4)
    assert entry.score in entry.interval


def test_a_lower_loss_ranks_higher() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(2.0, 0.5, 60)
    losses = {"worse": base + 0.3, "better": base - 0.3, "same": base}
    ranking = rank(
        [tally(with_loss(name, [float(x) for x in loss], [True, False] * 5)) for name, loss in losses.items()]
    )
    assert [entry.checkpoint_id for entry in ranking.entries] == ["better", "same", "worse"]
    assert [entry.by_family["notes"].rank for entry in ranking.entries] == [1, 2, 3]
    assert [entry.by_family["notes"].is_tied_with_best for entry in ranking.entries] == [True, False, False]
    assert {entry.by_family["sum"].rank for entry in ranking.entries} == {1}


def test_scores_are_kept_compactly() -> None:
    assert len(packed([float(x) for x in np.random.default_rng(0).random(1_000) < 0.5])) < 500
    assert len(packed([None] * 10)) < 40
