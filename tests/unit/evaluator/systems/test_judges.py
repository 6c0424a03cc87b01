"""Regression, comparison and calibration on records of made-up models."""

from __future__ import annotations

import json

import pytest
from evaluator.ranking import tally
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.comparison import ranked_with
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.data.example import Example
from ratchet.evaluation.load_evaluation import load_evaluation
from ratchet.ledger.tables import (
    CalibrationRow,
    EvaluationRequestRow,
    EvaluationRow,
    RankingRow,
    RegressionRow,
    VerdictRow,
)
from ratchet.systems import System

from tests.support.home import Home


def everything(_item: Example) -> bool:
    return True


def nothing(_item: Example) -> bool:
    return False


def easy(item: Example) -> bool:
    return item.level == 1


def judged(home: Home, *knowledge: object) -> list[str]:
    """The base model and newer checkpoints with eval records."""
    ids = [home.base_id()]
    ids += [home.add_checkpoint() for _ in knowledge[1:]]
    for checkpoint, knows in zip(ids, knowledge, strict=True):
        home.add_record(checkpoint, "eval", knows)  # type: ignore[arg-type]
    return ids


def test_numbers_of_verdicts_are_plain_json_and_events_are_not_repeated(home: Home) -> None:
    judged(home, nothing, everything, nothing, easy)
    bus = home.bus(REGRESSION, COMPARISON, CALIBRATION)
    bus.sweep()
    assert home.dead() == []
    with home.ledger.read() as session:
        numbers = [row.numbers for table in (VerdictRow, RegressionRow, CalibrationRow) for row in session.query(table)]
        numbers += [row.entries for row in session.query(RankingRow)]
        rankings = session.query(RankingRow).count()
    assert len(numbers) > 12
    for each in numbers:
        json.dumps(each, allow_nan=False)
    assert bus.sweep() == []
    with home.ledger.read() as session:
        assert session.query(RankingRow).count() == rankings


def test_a_better_checkpoint_is_cleared_and_the_champion_clears_itself(home: Home) -> None:
    base, better = judged(home, easy, everything)
    heard = home.bus(REGRESSION).sweep()
    assert home.verdicts("regression") == {better: "cleared", base: "cleared"}
    assert {event.name for event in heard} == {"checkpoint.cleared"}
    with home.ledger.read() as session:
        assert session.get_one(RegressionRow, better).baseline_id == base


def test_a_checkpoint_that_forgot_is_critically_regressed(home: Home) -> None:
    _, worse = judged(home, everything, easy)
    heard = home.bus(REGRESSION).sweep()
    assert home.verdicts("regression")[worse] == "regressed"
    assert [(e.name, getattr(e, "severity", "")) for e in heard if e.name == "checkpoint.regressed"] == [
        ("checkpoint.regressed", "critical")
    ]
    with home.ledger.read() as session:
        row = session.get_one(RegressionRow, worse)
        reason = session.query(VerdictRow).where(VerdictRow.subject_id == worse).one().reason
    assert row.severity == "critical"
    assert set(row.numbers["forgotten"]) == {"chain_sum", "reverse"}
    assert "level 2" in reason or "overall" in reason


def test_a_checkpoint_is_also_compared_with_the_best_so_far(home: Home) -> None:
    base, best, worse = judged(home, nothing, everything, easy)
    home.bus(REGRESSION).sweep()
    with home.ledger.read() as session:
        row = session.get_one(RegressionRow, worse)
    assert row.severity == "critical"
    assert {drop["baseline"] for drop in row.numbers["drops"]} == {base, best}


def test_in_a_long_lineage_only_champion_and_best_are_read(home: Home) -> None:
    *_, best, others, worse = ids = judged(home, nothing, everything, easy, easy)
    with home.ledger.write() as tx:
        for id in ids[:3]:
            row = tx.session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == id).one()
            row.tally = tally(load_evaluation(home.artifacts, row)).model_dump(mode="json")
            if id == others:
                row.artifact = "lost"
    home.bus(REGRESSION).sweep()
    assert home.dead() == []
    with home.ledger.read() as session:
        drops = session.get_one(RegressionRow, worse).numbers["drops"]
    assert {drop["baseline"] for drop in drops} == {ids[0], best}


def test_a_champion_without_a_record_is_asked_for_once_and_waited_for(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "eval", everything)
    bus = home.bus(REGRESSION)
    assert [event.name for event in bus.sweep()] == ["evaluation.requested"]
    bus.sweep()
    assert home.verdicts("regression") == {}
    with home.ledger.read() as session:
        (request,) = session.query(EvaluationRequestRow)
    assert request.checkpoint_id == home.base_id()
    home.add_record(home.base_id(), "eval", nothing)
    bus.sweep()
    assert home.verdicts("regression")[checkpoint] == "cleared"


def lose_record(home: Home, checkpoint: str) -> None:
    with home.ledger.read() as session:
        row = session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == checkpoint).one()
    home.artifacts.delete(row.artifact)


def test_an_unreadable_record_is_requested_again_without_blocking_others(home: Home) -> None:
    base, newer = judged(home, nothing, easy)
    lose_record(home, base)
    bus = home.bus(REGRESSION)
    assert [event.name for event in bus.sweep()].count("evaluation.requested") == 1
    assert home.dead() == []
    with home.ledger.read() as session:
        assert [row.checkpoint_id for row in session.query(EvaluationRequestRow)] == [base]
    home.add_record(base, "eval", nothing)
    bus.sweep()
    assert home.verdicts("regression") == {base: "cleared", newer: "cleared"}


@pytest.mark.parametrize("judge", [CALIBRATION, COMPARISON], ids=lambda judge: judge.name)
def test_an_unreadable_record_does_not_block_comparison_and_calibration(home: Home, judge: System) -> None:
    base, newer = judged(home, nothing, easy)
    lose_record(home, base)
    bus = home.bus(judge)
    assert [event.name for event in bus.sweep()].count("evaluation.requested") == 1
    assert home.verdicts(judge.name).keys() == {newer}
    home.add_record(base, "eval", nothing)
    bus.sweep()
    assert home.verdicts(judge.name).keys() == {base, newer}


def test_with_an_unreadable_best_only_the_champion_is_the_baseline(home: Home) -> None:
    base, best, newer = judged(home, nothing, everything, easy)
    lose_record(home, best)
    home.bus(REGRESSION).sweep()
    assert home.verdicts("regression")[newer] == "cleared"
    with home.ledger.read() as session:
        assert {drop["baseline"] for drop in session.get_one(RegressionRow, newer).numbers["drops"]} == {base}


def test_the_ranking_has_all_checkpoints_best_first(home: Home) -> None:
    base, middling, best = judged(home, nothing, easy, everything)
    home.bus(COMPARISON).sweep()
    with home.ledger.read() as session:
        newest = session.query(RankingRow).order_by(RankingRow.id.desc()).first()
        rankings = session.query(RankingRow).count()
    assert newest is not None
    assert newest.best_checkpoint_id == best
    assert [entry["checkpoint_id"] for entry in newest.entries["entries"]] == [best, middling, base]
    assert rankings == 3
    assert home.verdicts("comparison") == {best: "ranked", middling: "ranked", base: "ranked"}


def test_in_a_long_lineage_the_newest_and_the_lasting_ones_are_ranked(home: Home) -> None:
    ids = judged(home, nothing, easy, easy, everything, easy, easy)
    bus = home.bus(COMPARISON)
    bus.sweep()
    with home.ledger.write() as tx:
        last = tx.session.query(RankingRow).order_by(RankingRow.id.desc()).first()
        assert last is not None
        last.entries = {"entries": [entry for entry in last.entries["entries"] if entry["checkpoint_id"] == ids[3]]}
        rows = [tx.session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == id).one() for id in ids]
        assert list(ranked_with(tx.session, rows[1], 2)) == [ids[0], ids[1], ids[3], ids[5], ids[4]]
        assert set(ranked_with(tx.session, rows[1])) == set(ids)


def test_a_repeated_record_is_read_again(home: Home) -> None:
    _, newer = judged(home, easy, nothing)
    bus = home.bus(COMPARISON)
    bus.sweep()
    with home.ledger.write() as tx:
        tx.session.delete(tx.session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == newer).one())
    home.add_record(newer, "eval", everything)
    newest = home.add_checkpoint()
    home.add_record(newest, "eval", nothing)
    bus.sweep()
    with home.ledger.read() as session:
        last = session.query(RankingRow).order_by(RankingRow.id.desc()).first()
    assert last is not None
    assert last.best_checkpoint_id == newer


def test_indistinguishable_checkpoints_are_tied(home: Home) -> None:
    one, two = judged(home, easy, easy)
    home.bus(COMPARISON).sweep()
    with home.ledger.read() as session:
        newest = session.query(RankingRow).order_by(RankingRow.id.desc()).first()
        said = {row.subject_id: row.reason for row in session.query(VerdictRow)}
    assert newest is not None
    assert all(entry["is_tied_with_best"] for entry in newest.entries["entries"])
    assert "tied with the best" in said[one]
    assert said[two].startswith("rank 1 of 2")


def test_records_made_under_other_conditions_are_not_ranked_together(home: Home) -> None:
    base, newer = judged(home, easy, everything)
    with home.ledger.write() as tx:
        row = tx.session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == base).one()
        row.key = {**row.key, "dtype": "bf16"}
    home.bus(COMPARISON).sweep()
    with home.ledger.read() as session:
        rankings = session.query(RankingRow).all()
    assert [[e["checkpoint_id"] for e in row.entries["entries"]] for row in rankings] == [[newer], [base]]


def test_a_sure_but_wrong_model_gets_a_temperature_above_one(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    half = {item.id for item in home.suite_items("eval")[::2]}
    home.add_record(checkpoint, "eval", lambda item: item.id in half, sure=0.99)
    heard = home.bus(CALIBRATION).sweep()
    assert [event.name for event in heard] == ["checkpoint.calibrated"]
    with home.ledger.read() as session:
        numbers = session.get_one(CalibrationRow, checkpoint).numbers
    assert numbers["temperature"] > 1.5
    assert numbers["tempered"]["ece"] < numbers["raw"]["ece"]


def test_a_model_that_is_never_right_is_judged_but_gets_no_confidence(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "eval", nothing)
    home.bus(CALIBRATION).sweep()
    assert home.verdicts("calibration")[checkpoint] == "uncalibrated"
    with home.ledger.read() as session:
        row = session.get_one(CalibrationRow, checkpoint)
        assert (row.shipped, row.numbers["shipped"]) == ({}, None)
        assert "no success to predict" in row.numbers["reason"]


def test_each_record_is_judged_once_however_often_they_are_woken(home: Home) -> None:
    judged(home, easy, everything)
    bus = home.bus(REGRESSION, COMPARISON, CALIBRATION)
    bus.sweep()
    for _ in range(3):
        assert bus.sweep() == []
    with home.ledger.read() as session:
        assert session.query(VerdictRow).count() == 6
    assert home.dead() == []
