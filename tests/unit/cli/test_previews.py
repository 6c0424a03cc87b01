from __future__ import annotations

import json
from pathlib import Path

from ratchet.cli.main import app
from ratchet.data.example import Example
from ratchet.evaluation.preview import append_previews, graded
from ratchet.inference.generator import Generation
from ratchet.inference.prompt_format import PromptFormat
from ratchet.ledger import Ledger
from ratchet.systems import Subject, claims
from typer.testing import CliRunner

from tests.support.previews import preview


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


def test_another_machine_shows_what_is_on_the_claim_of_the_one_that_trains(empty_ledger: Ledger, home: Path) -> None:
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
