"""What the judges found, in plain words: flips, calibration, and suites from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.cli.flips import sign_test
from ratchet.ledger.tables import Checkpoint, Evaluation, EvaluationRequest
from ratchet.testing.home import Home, small_home

from .running import ratchet


@pytest.fixture
def judged(home: Path) -> Iterator[Home]:
    """Two checkpoints: the second learnt level 2 and forgot how to reverse."""
    with small_home(home) as made:
        base, newer = made.base_id(), made.add_checkpoint()
        made.add_record(base, "eval", lambda item: item.level == 1)
        made.add_record(newer, "eval", lambda item: item.family == "chain_sum", sure=0.9)
        made.bus(REGRESSION, COMPARISON, CALIBRATION).sweep()
        yield made


def test_flips_are_listed_with_both_answers_what_was_lost_first(judged: Home) -> None:
    values = json.loads(ratchet("flips", "0", "1", "--json").stdout)
    assert (values["n"], values["gains"], values["losses"]) == (80, 20, 20)
    assert [flip["gained"] for flip in values["flips"]] == [False] * 20 + [True] * 20
    assert {flip["family"] for flip in values["flips"][:20]} == {"reverse"}
    assert values["flips"][0]["after"] == "wrong"
    assert values["flips"][0]["before"] == values["flips"][0]["gold"]
    shown = ratchet("flips", "0", "1", "--limit", "5").stdout
    assert "#1 beside #0 on 80 eval items: 20 gained, 20 lost, +0.0 points; that may well be luck" in shown
    assert "… and 35 more" in shown


def test_flips_of_one_family(judged: Home) -> None:
    assert "0 gained, 20 lost" in ratchet("flips", "0", "1", "--family", "reverse").stdout
    assert "the suite has chain_sum, reverse" in ratchet("flips", "0", "1", "--family", "sums", code=2).stderr


def test_flips_need_two_records_and_no_confirm_suite(judged: Home) -> None:
    assert "#0 has no record on that suite" in ratchet("flips", "0", "1", "--suite", "probe", code=2).stderr
    assert "not for looking at" in ratchet("flips", "0", "1", "--suite", "confirm", code=2).stderr
    assert "`ratchet suite list`" in ratchet("flips", "0", "1", "--suite", "ffffff", code=2).stderr


def test_the_sign_test_by_hand() -> None:
    assert sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(0, 0) == sign_test(3, 3) == 1.0


def test_calibration_in_plain_words_and_as_a_picture(judged: Home) -> None:
    shown = ratchet("calibration", "1", "--png").stdout
    assert "#1 is right on" in shown
    assert "too sure by" in shown
    assert "isotonic" in shown
    assert "chain_sum 1" in shown
    picture = judged.settings.home / "reports" / "reliability-1.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    values = json.loads(ratchet("calibration", "1", "--json").stdout)
    assert values["shipped"]["temperature"] == pytest.approx(values["temperature"])


def test_a_checkpoint_without_calibration_is_refused(judged: Home) -> None:
    judged.add_checkpoint()
    assert "#2 has not been calibrated" in ratchet("calibration", "2", code=2).stderr


def samples(folder: Path, right: int) -> Path:
    rows = [
        {
            "target": str(2 * number),
            "arguments": {"gen_args_0": {"arg_0": f"What is twice {number}?", "arg_1": {"until": ["\n"]}}},
            "resps": [[str(2 * number) if number < right else "?"]],
            "filtered_resps": [str(2 * number) if number < right else "?"],
            "filter": "none",
            "metrics": ["exact_match"],
            "exact_match": float(number < right),
        }
        for number in range(10)
    ]
    folder.mkdir(exist_ok=True)
    file = folder / f"samples_twice_{right}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_task_and_answers_of_another_harness(judged: Home, tmp_path: Path) -> None:
    first = json.loads(
        ratchet("suite", "import", str(samples(tmp_path, 4)), "--family", "twice", "--checkpoint", "0", "--json").stdout
    )
    second = json.loads(
        ratchet("suite", "import", str(samples(tmp_path, 9)), "--family", "twice", "--checkpoint", "1", "--json").stdout
    )
    assert first["suite"] == second["suite"]
    assert (first["correct"], second["correct"]) == (4, 9)
    assert "5 gained, 0 lost, +50.0 points" in ratchet("flips", "0", "1", "--suite", first["suite"][:8]).stdout
    assert "imported" in ratchet("suite", "list").stdout
    again = ratchet("suite", "import", str(samples(tmp_path, 4)), "--family", "twice", "--checkpoint", "0", code=2)
    assert "has a record on that suite already" in again.stderr


def test_the_judges_leave_imported_records_alone(judged: Home, tmp_path: Path) -> None:
    before = {system: judged.verdicts(system) for system in ("regression", "comparison", "calibration")}
    ratchet("suite", "import", str(samples(tmp_path, 4)), "--checkpoint", "1")
    judged.bus(REGRESSION, COMPARISON, CALIBRATION).sweep()
    assert before == {system: judged.verdicts(system) for system in before}
    assert judged.dead() == []


def test_testing_is_asked_for_an_imported_suite(judged: Home, tmp_path: Path) -> None:
    suite = json.loads(ratchet("suite", "import", str(samples(tmp_path, 4)), "--json").stdout)["suite"]
    assert "testing is asked for" in ratchet("suite", "run", suite[:8], "1").stdout
    with judged.ledger.read() as session:
        (request,) = session.query(EvaluationRequest)
        assert session.query(Evaluation).where(Evaluation.suite_id == suite).count() == 0
    assert request.suite_id == suite
    assert "wears it out" in ratchet("suite", "run", "confirm", "1", code=2).stderr


def test_the_leaderboard_calls_ties_ties_and_ranks_a_family(judged: Home) -> None:
    rows = json.loads(ratchet("leaderboard", "--json").stdout)
    assert [row["is_tied_with_best"] for row in rows] == [True, True]
    assert rows[0]["cost"]["tokens_per_s"] == 1_000
    assert ratchet("leaderboard").stdout.count("best or tied") == 2
    by_family = json.loads(ratchet("leaderboard", "--family", "reverse", "--json").stdout)
    assert [(row["checkpoint"], row["rank"], row["is_tied_with_best"]) for row in by_family] == [
        ("#0", 1, True),
        ("#1", 2, False),
    ]
    assert "reverse %" in ratchet("leaderboard", "--family", "reverse").stdout
    assert "chain_sum, reverse" in ratchet("leaderboard", "--family", "sums", code=2).stderr


def test_why_names_what_was_forgotten_and_what_a_soup_is_made_of(judged: Home) -> None:
    shown = ratchet("why", "1").stdout
    assert "Forgotten: reverse." in shown
    assert "would have been seen with 80%" in shown
    with judged.ledger.write() as tx:
        row = tx.session.query(Checkpoint).where(Checkpoint.ordinal == 1).one()
        row.soup_of = f"{judged.base_id()}+{row.id}"
    assert "Its weights are the average of #0 and #1." in ratchet("why", "1").stdout
