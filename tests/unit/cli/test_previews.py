from __future__ import annotations

import json
from pathlib import Path

from ratchet.cli.main import app
from ratchet.data.example import Example
from ratchet.evaluation.preview import append_previews, graded
from ratchet.inference.dress import Dress
from ratchet.inference.generator import Generation
from ratchet.ledger import Ledger
from ratchet.testing.previews import preview
from typer.testing import CliRunner


def test_previews_are_shown_with_their_verdict(home: Path) -> None:
    assert "no previews yet" in CliRunner().invoke(app, ["previews"]).stdout
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
            graded(row, generation, Dress(), at=0.0, step=1200 + n, backend="local", line=n, seen=n == 1)
            for n, row in enumerate(rows)
        ],
    )
    shown = CliRunner().invoke(app, ["previews"]).stdout.splitlines()
    assert "1,200" in shown[1]
    assert "right" in shown[1]
    assert "(seen)" in shown[2]
    assert "wrong" in shown[2]
    last = CliRunner().invoke(app, ["previews", "-n", "1", "--json"]).stdout.splitlines()
    assert [json.loads(line)["step"] for line in last] == [1201]


def test_status_shows_the_last_preview(ledger: Ledger, home: Path) -> None:
    wrong = preview(step=1300, answer="12+7=18", correct=False)
    append_previews(home / "status" / "previews.jsonl", [preview(step=1200), preview(step=1300), wrong])
    shown = CliRunner().invoke(app, ["status"]).stdout
    assert "step 1,300: 1 of 2 right · 2 of the last 3" in shown
    assert "✗ chain_sum/1  12+7=  →  12+7=18  not 19" in shown
    values = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
    assert [(found["step"], found["correct"]) for found in values["previews"]] == [(1200, 1), (1300, 1), (1300, 0)]
