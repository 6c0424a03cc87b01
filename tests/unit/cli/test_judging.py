"""What the judges found, in plain words: differing items, calibration, suites, and the leaderboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.cli.show_checkpoints import sign_test

from tests.support.home import Home, small_home

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


def test_differing_items_are_listed_with_both_answers_what_was_lost_first(judged: Home) -> None:
    values = json.loads(ratchet("show", "diff", "0", "1", "--limit", "40", "--json").stdout)
    assert (values["n"], values["gains"], values["losses"]) == (80, 20, 20)
    assert [item["gained"] for item in values["items"]] == [False] * 20 + [True] * 20
    assert {item["family"] for item in values["items"][:20]} == {"reverse"}
    assert values["items"][0]["after"] == "wrong"
    assert values["items"][0]["before"] == values["items"][0]["gold"]
    shown = ratchet("show", "diff", "0", "1", "--limit", "5").stdout
    assert "#1 beside #0 on 80 eval items: 20 gained, 20 lost, +0.0 points; that may well be luck" in shown
    assert "… and 35 more" in shown


def test_differing_items_of_one_family(judged: Home) -> None:
    assert "0 gained, 20 lost" in ratchet("show", "diff", "0", "1", "--family", "reverse").stdout
    assert "the suite has chain_sum, reverse" in ratchet("show", "diff", "0", "1", "--family", "sums", code=2).stderr


def test_a_diff_needs_two_records_and_no_confirm_suite(judged: Home) -> None:
    assert "#0 has no record on that suite" in ratchet("show", "diff", "0", "1", "--suite", "probe", code=2).stderr
    assert "not for looking at" in ratchet("show", "diff", "0", "1", "--suite", "confirm", code=2).stderr
    assert "`ratchet show suites`" in ratchet("show", "diff", "0", "1", "--suite", "ffffff", code=2).stderr


def test_the_sign_test_by_hand() -> None:
    assert sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(0, 0) == sign_test(3, 3) == 1.0


def test_calibration_in_plain_words(judged: Home) -> None:
    shown = ratchet("show", "calibration", "1").stdout
    assert "#1 is right on" in shown
    assert "too sure by" in shown
    assert "isotonic" in shown
    assert "chain_sum 1" in shown
    values = json.loads(ratchet("show", "calibration", "1", "--json").stdout)
    assert values["shipped"]["temperature"] == pytest.approx(values["temperature"])


def test_a_checkpoint_without_calibration_is_refused(judged: Home) -> None:
    judged.add_checkpoint()
    assert "#2 has not been calibrated" in ratchet("show", "calibration", "2", code=2).stderr


def test_suites_are_listed_with_their_records(judged: Home) -> None:
    found = json.loads(ratchet("show", "suites", "--json").stdout)["suites"]
    assert {row["pool"]: row["records"] for row in found} == {"probe": 0, "eval": 2, "confirm": 0}


def test_the_leaderboard_calls_ties_ties_and_ranks_a_family(judged: Home) -> None:
    rows = json.loads(ratchet("show", "leaderboard", "--json").stdout)["checkpoints"]
    assert [row["is_tied_with_best"] for row in rows] == [True, True]
    assert rows[0]["cost"]["tokens_per_s"] == 1_000
    assert ratchet("show", "leaderboard").stdout.count("best or tied") == 2
    by_family = json.loads(ratchet("show", "leaderboard", "--family", "reverse", "--json").stdout)["checkpoints"]
    assert [(row["checkpoint"], row["rank"], row["is_tied_with_best"]) for row in by_family] == [
        ("#0", 1, True),
        ("#1", 2, False),
    ]
    assert "reverse %" in ratchet("show", "leaderboard", "--family", "reverse").stdout
    assert "chain_sum, reverse" in ratchet("show", "leaderboard", "--family", "sums", code=2).stderr


def test_why_names_what_was_forgotten(judged: Home) -> None:
    shown = ratchet("why", "1").stdout
    assert "Forgotten: reverse." in shown
    assert "would have been seen with 80%" in shown
