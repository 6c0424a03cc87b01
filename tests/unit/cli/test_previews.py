from __future__ import annotations

import json
from pathlib import Path

import pytest
from ratchet.bus.bulletin import Bulletin, put_up
from ratchet.bus.connection import connect
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.cli.main import app
from ratchet.data.example import Example
from ratchet.evaluation.preview import append_previews, graded
from ratchet.inference.dress import Dress
from ratchet.inference.generator import Generation
from ratchet.ledger import Ledger
from ratchet.ledger.tables import WorkerRow
from typer.testing import CliRunner

from tests.support.previews import preview


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


def test_a_machine_that_does_not_train_shows_what_the_one_that_does_puts_up(
    ledger: Ledger, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own files are of an earlier role, and older."""
    append_previews(home / "status" / "previews.jsonl", [preview(step=100, at=1.0)])
    (home / "status" / "training_status.json").write_text(json.dumps({"state": "training", "step": 100}))
    with ledger.write() as tx:
        tx.session.add(
            WorkerRow(
                name="training@trainer+0",
                system="training",
                host="trainer",
                pid=1,
                version="0",
                started_at=tx.now,
                seen_at=tx.now,
                state="running",
            )
        )
    told = Bulletin({"state": "training", "step": 1300}, (preview(step=1300, at=2.0),))
    with EmbeddedRedis(tmp_path / "redis") as redis, connect(redis.url) as client:
        monkeypatch.setenv("RATCHET_REDIS__URL", redis.url)
        put_up(client, told)
        values = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)
        lines = CliRunner().invoke(app, ["previews", "--json"]).stdout.splitlines()
    assert [found["step"] for found in values["previews"]] == [1300]
    assert [json.loads(line)["step"] for line in lines] == [1300]
