"""The topics of `ratchet show`: columns, records, and messages for an empty ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.cli.main import app
from ratchet.data.example import Example
from ratchet.evaluation.preview import append_previews, graded
from ratchet.inference.generator import Generation
from ratchet.inference.prompt_format import PromptFormat
from ratchet.ledger import Ledger
from ratchet.ledger.deployments import freeze
from ratchet.ledger.tables import BatchRow, CheckpointRow, CoverageRow, DeadLetterRow, ImpactRow, MinedRow
from ratchet.systems import Subject, claims
from ratchet.user_tasks.add import Choice
from ratchet.views.comparison import sign_test
from sqlalchemy import select
from typer.testing import CliRunner

from tests.support.home import Home, small_home
from tests.support.previews import preview
from tests.support.rows import measured_without_gain
from tests.support.story import batch_id, checkpoint_id
from tests.support.user_tasks import add_task_record, home_of_tasks

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


@pytest.fixture
def free_text(home: Path) -> Iterator[Home]:
    """Two checkpoints on a task measured by loss, of which the second is better."""
    with home_of_tasks(home, {"babi_qa1_100.jsonl": Choice(task="rooms", metric="loss")}) as made:
        base, newer = made.base_id(), made.add_checkpoint()
        add_task_record(made, base, lambda _key: False, 1.9, "eval")
        add_task_record(made, newer, lambda _key: False, 1.6, "eval")
        made.bus(REGRESSION, COMPARISON).sweep()
        yield made


def test_a_task_measured_by_loss_is_shown_in_nats(free_text: Home) -> None:
    board = ratchet("show", "leaderboard").stdout
    assert "rooms 1.60 nats/token" in board
    assert board.index("#1") < board.index("#0")
    assert "rooms nats/token" in ratchet("show", "leaderboard", "--family", "rooms").stdout
    rows = json.loads(ratchet("show", "leaderboard", "--json").stdout)["checkpoints"]
    assert [row["scores"]["rooms"]["mean"] for row in rows] == [
        pytest.approx(1.6, abs=0.01),
        pytest.approx(1.9, abs=0.01),
    ]
    shown = ratchet("show", "diff", "0", "1").stdout
    assert "rooms, #1 against #0: loss 1.90 → 1.60 nats/token on 5 items" in shown
    assert "-0.30 nats" in shown
    why = ratchet("why", "1").stdout
    assert "On the eval suite: rooms 1.60 nats/token." in why
    assert "eval suite: rooms 1.60 nats/token" in why
    assert "rooms" in json.loads(ratchet("status", "--json").stdout)["checkpoints"][0]["scores"]


def test_diff_lists_both_answers_losses_first(judged: Home) -> None:
    values = json.loads(ratchet("show", "diff", "0", "1", "--limit", "40", "--json").stdout)
    assert (values["n"], values["gains"], values["losses"]) == (80, 20, 20)
    assert [item["gained"] for item in values["items"]] == [False] * 20 + [True] * 20
    assert {item["family"] for item in values["items"][:20]} == {"reverse"}
    assert values["items"][0]["after"] == "wrong"
    assert values["items"][0]["before"] == values["items"][0]["gold"]
    shown = ratchet("show", "diff", "0", "1", "--limit", "5").stdout
    assert "#1 against #0 on 80 eval items: 20 gained, 20 lost, +0.0 points; that may well be chance" in shown
    assert "… and 35 more" in shown


def test_differing_items_of_one_family(judged: Home) -> None:
    assert "0 gained, 20 lost" in ratchet("show", "diff", "0", "1", "--family", "reverse").stdout
    assert "the suite has chain_sum, reverse" in ratchet("show", "diff", "0", "1", "--family", "sums", code=2).stderr


def test_a_diff_needs_two_records_and_no_confirm_suite(judged: Home) -> None:
    assert "#0 has no record on that suite" in ratchet("show", "diff", "0", "1", "--suite", "probe", code=2).stderr
    assert "are never shown" in ratchet("show", "diff", "0", "1", "--suite", "confirm", code=2).stderr
    assert "`ratchet show suites`" in ratchet("show", "diff", "0", "1", "--suite", "ffffff", code=2).stderr


def test_the_sign_test_by_hand() -> None:
    assert sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(0, 0) == sign_test(3, 3) == 1.0
    assert sign_test(700, 700) == 1.0
    assert 0 < sign_test(1_000, 700) < 1e-12


def test_calibration_in_plain_words(judged: Home) -> None:
    shown = ratchet("show", "calibration", "1").stdout
    assert "#1 is right on" in shown
    assert "overconfident by" in shown
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
    shown = ratchet("show", "leaderboard").stdout
    assert shown.count("best or tied") == 2
    assert f"files of #{rows[0]['ordinal']}: {rows[0]['folder']}" in shown.replace("\n", "")
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


def test_why_names_the_verdicts_that_are_missing(judged: Home) -> None:
    found = {row["who"]: row["reason"] for row in json.loads(ratchet("why", "1", "--json").stdout)["waits_for"]}
    assert set(found) == {"testing", "mining", "curriculum", "deployment"}
    assert found["deployment"] == "waiting for testing"
    with judged.ledger.write() as tx:
        freeze(tx, "a holiday")
    assert "deployment: no verdict yet. deployments are frozen (a holiday)" in ratchet("why", "1").stdout


def test_why_shows_the_dead_letter_of_a_requested_record(judged: Home) -> None:
    with judged.ledger.write() as tx:
        checkpoint = tx.session.scalars(select(CheckpointRow).where(CheckpointRow.ordinal == 1)).one().id
        subject = Subject("request", f"{checkpoint}/suite/1")
        tx.session.add(
            DeadLetterRow(
                system="testing",
                subject_kind=subject.kind,
                subject_id=subject.id,
                error="no answer",
                traceback="",
                failures=3,
                kills=0,
                created_at=tx.now,
                resolved_at=None,
                resolution=None,
            )
        )
    assert "testing: gave up. no answer" in ratchet("why", "1").stdout


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


FOLLOW_UP = {
    "checkpoint": "before",
    "mined": 50,
    "mined_failed": 30,
    "random": 50,
    "random_failed": 20,
    "excess": {"low": 0.01, "high": 0.38, "confidence": 0.95},
    "by_category": {"wrong": [30, 50]},
}


def test_mined_shows_categories_yields_and_the_follow_up(ledger: Ledger) -> None:
    with ledger.write() as tx:
        row = tx.session.get_one(MinedRow, checkpoint_id(4))
        row.by_category = {"wrong": 10, "unstable": 4}
        row.numbers = {
            "asked": 240,
            "yields": {"sums/2 swap": [9, 30], "sums/2 fresh": [2, 210]},
            "follow_up": FOLLOW_UP,
        }
    shown = printed("show", "mined")
    for words in ("4 unstable, 10 wrong", "sums/2 swap: 9 of 30", "30 of 50 mined", "+1 to +38"):
        assert words in " ".join(shown.split()), words
    first = json.loads(printed("show", "mined", "--json", "--limit", "2"))["mined"][1]
    assert (first["ordinal"], first["follow_up"]["mined_failed"]) == (4, 30)


def test_corrections_show_the_effect_on_every_class_and_what_is_backed_off(ledger: Ledger) -> None:
    with ledger.write() as tx:
        batch = tx.session.get_one(BatchRow, batch_id(7))
        batch.provenance = {"counts": {"corrections": 90, "replay": 910}, "classes": {"sums:carry": 90}}
        tx.session.add(
            ImpactRow(
                batch_id=batch.id,
                checkpoint_id=checkpoint_id(5),
                error_class="sums:carry",
                baseline_id=checkpoint_id(4),
                items=50,
                before=9,
                after=4,
                gains=6,
                losses=1,
                low=0.01,
                high=0.2,
                created_at=tx.now,
            )
        )
        for place in range(3):
            measured_without_gain(tx.session, f"vain{place}", "sums:wrong")
    shown = printed("show", "corrections")
    for words in (
        "90 sums:carry",
        "+10.0",
        "+1.0 to +20.0",
        "no examples for now: sums:wrong",
    ):
        assert words in shown, words
    told = json.loads(printed("show", "corrections", "--json"))
    assert (told["batches"][0]["state"], told["effects"][0]["gains"]) == ("queued", 6)
    assert list(told["backed_off"]) == ["sums:wrong"]


def test_coverage_shows_cells_features_and_near_duplicates(ledger: Ledger) -> None:
    cell = {
        "family": "sums",
        "level": 2,
        "rows": 80,
        "share": 0.8,
        "wanted": 0.9,
        "gap": 0.11,
        "features": {"carry": 20, "zero": 0},
        "absent": ["zero"],
    }
    numbers = {
        "rows": 100,
        "novelty": 0.5,
        "duplicates": 7,
        "entropy": 0.4,
        "feature_entropy": 0.6,
        "cells": [cell],
        "texts": {"compared": 20, "repeats": 2, "known": 3, "runs": 10, "new_runs": 4},
    }
    with ledger.write() as tx:
        tx.session.add(CoverageRow(batch_id=batch_id(6), numbers=numbers, created_at=tx.now))
    shown = printed("show", "coverage")
    for words in ("sums 2", "carry 25, zero 0", "5 of 20", "40"):
        assert words in shown, words
    assert json.loads(printed("show", "coverage", "--json"))["batches"][0]["texts"]["known"] == 3


def test_the_views_of_an_empty_home_say_that_there_is_nothing(empty_ledger: Ledger) -> None:
    for kind in ("mined", "corrections", "coverage", "history", "generation", "suites", "leaderboard", "previews"):
        assert len(printed("show", kind).splitlines()) == 1
        found = json.loads(printed("show", kind, "--json"))
        assert [value for value in found.values() if value] == []


def test_previews_are_shown_with_their_verdict(ledger: Ledger, home: Path) -> None:
    assert "no previews yet" in CliRunner().invoke(app, ["show", "previews"]).stdout
    generation = Generation(
        text="1+2=3",
        token_ids=(1,),
        token_logprobs=(),
        finish_reason="stop",
        prompt_tokens=4,
        latency_s=0.1,
        weights="in training",
    )
    rows = [Example.ask("1+2=", "1+2=3", family="chain_sum"), Example.ask("Say a " + "very " * 40, "much")]
    append_previews(
        home / "status" / "previews.jsonl",
        [
            graded(row, generation, PromptFormat(), at=0.0, step=1200 + n, backend="local", line=n, seen=n == 1)
            for n, row in enumerate(rows)
        ],
    )
    shown = CliRunner().invoke(app, ["show", "previews"]).stdout.splitlines()
    assert "1,200" in shown[1]
    assert "right" in shown[1]
    assert "(seen)" in shown[2]
    assert "wrong" in shown[2]
    last = json.loads(CliRunner().invoke(app, ["show", "previews", "-n", "1", "--json"]).stdout)["previews"]
    assert [found["step"] for found in last] == [1201]


def test_status_shows_the_last_preview(ledger: Ledger, home: Path) -> None:
    wrong = preview(step=1300, answer="12+7=18", correct=False)
    append_previews(home / "status" / "previews.jsonl", [preview(step=1200), preview(step=1300), wrong])
    shown = CliRunner().invoke(app, ["status"]).stdout
    assert "step 1,300: 1 of 2 right · 2 of the last 3" in shown
    assert "✗ chain_sum/1  12+7=  →  12+7=18  not 19" in shown
    values = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert [(found["step"], found["correct"]) for found in values["previews"]] == [(1200, 1), (1300, 1), (1300, 0)]


def test_another_machine_shows_training_progress_from_the_claim(empty_ledger: Ledger, home: Path) -> None:
    """Its own files are of an earlier role, and older."""
    append_previews(home / "status" / "previews.jsonl", [preview(step=100, at=1.0)])
    (home / "status" / "training_status.json").write_text(json.dumps({"state": "training", "step": 100}))
    status = {"state": "training", "step": 1300, "previews": [preview(step=1300, at=2.0).model_dump()]}
    with empty_ledger.write() as tx:
        claim = claims.take(tx, "training", Subject("batch", "b"), "training@trainer+0", 60.0)
        assert claim is not None
        claims.renew(tx, claim, 60.0, 1, "", status)
    values = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    shown = json.loads(CliRunner().invoke(app, ["show", "previews", "--json"]).stdout)["previews"]
    assert [found["step"] for found in values["previews"]] == [1300]
    assert [found["step"] for found in shown] == [1300]
