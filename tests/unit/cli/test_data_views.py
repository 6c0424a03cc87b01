"""What was mined, what was corrected, what is covered: the three views of the data side."""

from __future__ import annotations

import json

from ratchet.cli.main import app
from ratchet.ledger import Ledger
from ratchet.ledger.tables import BatchRow, CoverageRow, ImpactRow, MinedRow
from typer.testing import CliRunner

from tests.support.rows import measured_without_gain
from tests.support.story import batch_id, checkpoint_id


def ratchet(*arguments: str) -> str:
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


def test_mined_shows_categories_yields_and_what_the_next_one_still_fails(ledger: Ledger) -> None:
    with ledger.write() as tx:
        row = tx.session.get_one(MinedRow, checkpoint_id(4))
        row.by_category = {"wrong": 10, "unstable": 4}
        row.numbers = {
            "asked": 240,
            "yields": {"sums/2 swap": [9, 30], "sums/2 fresh": [2, 210]},
            "follow_up": FOLLOW_UP,
        }
    shown = ratchet("show", "mined")
    for words in ("4 unstable, 10 wrong", "sums/2 swap: 9 of 30", "30 of 50 mined", "+1 to +38"):
        assert words in " ".join(shown.split()), words
    first = json.loads(ratchet("show", "mined", "--json", "--limit", "2"))["mined"][1]
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
    shown = ratchet("show", "corrections")
    for words in (
        "90 sums:carry",
        "+10.0",
        "+1.0 to +20.0",
        "no examples for now: sums:wrong",
    ):
        assert words in shown, words
    told = json.loads(ratchet("show", "corrections", "--json"))
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
    shown = ratchet("show", "coverage")
    for words in ("sums 2", "carry 25, zero 0", "5 of 20", "40"):
        assert words in shown, words
    assert json.loads(ratchet("show", "coverage", "--json"))["batches"][0]["texts"]["known"] == 3


def test_before_anything_happened_they_say_so(empty_ledger: Ledger) -> None:
    for kind in ("mined", "corrections", "coverage", "history", "generation", "suites", "leaderboard", "previews"):
        assert len(ratchet("show", kind).splitlines()) == 1
        found = json.loads(ratchet("show", kind, "--json"))
        assert [value for value in found.values() if value] == []
