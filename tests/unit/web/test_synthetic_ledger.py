"""The made-up ledger: it has the size that was asked for, and every read view takes it for a real one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from miner.data_gate import Quarantined
from miner.mined_items import MinedItem
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.cli.main import app
from ratchet.cli.show import TOPICS
from ratchet.evaluation.load_evaluation import load_evaluation, load_suite
from ratchet.events import decode
from ratchet.ledger import Ledger, tables
from ratchet.ledger.migrate import migrate
from ratchet.settings import Settings
from ratchet.systems import registry
from ratchet.views.reading import read_view
from sqlalchemy import func, select
from typer.testing import CliRunner

from tests.support.ledgers import engine, ledger, ledger_url
from tests.support.synthetic_ledger import HOSTILE, Size, build

__all__ = ["engine", "ledger", "ledger_url"]

OPTIONS = {"diff": ("3", "4")}
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "hostile"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Ledger]]:
    """A home with such a ledger, which the environment names."""
    folder, before = tmp_path_factory.mktemp("synthetic"), dict(os.environ)
    os.environ |= {"RATCHET_HOME": str(folder / "run"), "TERM": "dumb", "COLUMNS": "140"}
    os.environ.pop("RATCHET_CONFIG", None)
    settings = Settings(home=folder / "run")
    made = Ledger(settings.ledger_url)
    migrate(made)
    build(made, artifact_store(settings), hostile=request.param)
    yield settings, made
    made.close()
    os.environ.clear()
    os.environ.update(before)


def ratchet(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


COMMANDS = (
    ("status",), ("why", "3"), ("events", "--limit", "500"), ("dead", "list"), ("dead", "show", "1"), ("data", "list"),
    ("queue", "list"), ("systems",), ("config", "show"),
)  # fmt: skip


def test_no_command_sends_control_characters_to_the_terminal(home: tuple[Settings, Ledger]) -> None:
    topics = [("show", topic.__name__, *OPTIONS.get(topic.__name__, ())) for topic in TOPICS]
    for command in (*COMMANDS, *topics):
        for shown in (ratchet(*command), ratchet(*command, "--json") if command in topics else ""):
            assert UNSAFE.findall(shown) == [], command


def test_every_topic_shows_it(home: tuple[Settings, Ledger]) -> None:
    for topic in TOPICS:
        named = ("show", topic.__name__, *OPTIONS.get(topic.__name__, ()))
        assert ratchet(*named)
        records = json.loads(ratchet(*named, "--json"))
        assert any(isinstance(value, list) and value for value in records.values()), topic.__name__


def test_every_checkpoint_is_explained(home: tuple[Settings, Ledger]) -> None:
    for ordinal in range(Size().checkpoints):
        assert f"#{ordinal}" in ratchet("why", str(ordinal), "--numbers")


def test_the_view_has_all_that_can_happen(home: tuple[Settings, Ledger]) -> None:
    settings, made = home
    view = read_view(made, settings)
    assert len(view.checkpoints) == Size().checkpoints
    assert len(view.workers) == len(registry.systems()) == 11
    assert view.training.state == "training"
    assert len(view.previews) == 10
    assert {task.state for task in view.tasks} == {"active", "used_up"}
    assert view.queue.quarantined == Size().quarantined
    outcomes = {checkpoint.outcomes.get("deployment") for checkpoint in view.checkpoints}
    assert {"deployed", "rolled back", "superseded", "screened out", None} <= outcomes
    assert len(view.warnings) >= 3
    with made.read() as session:
        assert set(session.scalars(select(tables.VerdictRow.system).distinct())) == set(registry.systems())
        for row in tables.Base.__subclasses__():
            assert session.scalar(select(func.count()).select_from(row)), row.__name__


def test_what_pages_read_is_there(home: tuple[Settings, Ledger]) -> None:
    settings, made = home
    store = artifact_store(settings)
    with made.read() as session:
        suites = session.scalars(select(tables.SuiteRow)).all()
        records = session.scalars(select(tables.EvaluationRow)).all()
        batches = session.scalars(select(tables.BatchRow).where(tables.BatchRow.quarantined > 0)).all()
        mined = session.scalars(select(tables.MinedRow).where(tables.MinedRow.count > 0)).all()
    assert [len(load_suite(store, row).items) for row in suites] == [row.items for row in suites]
    readable = [row for row in records if store.exists(row.artifact)]
    assert {row.items for row in readable} == {len(load_evaluation(store, row).items) for row in readable}
    for batch in batches:
        rows = [
            Quarantined.model_validate_json(line)
            for line in store.open_lines(batch.quarantine_artifact, "quarantine.jsonl")
        ]
        assert len(rows) == batch.quarantined == sum(batch.report["reasons"].values())
    found = [row for row in mined if store.exists(str(row.artifact))]
    assert found
    for row in found:
        assert len([MinedItem.model_validate_json(line) for line in store.open_lines(str(row.artifact))]) == row.count


def test_hostile_text_is_where_text_comes_from_outside(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    made = Ledger(settings.ledger_url)
    migrate(made)
    build(made, None, hostile=True)
    outside = [
        tables.TaskRow.source,
        tables.VerdictRow.reason,
        tables.DeadLetterRow.error,
        tables.DeadLetterRow.traceback,
        tables.DamageRow.error,
        tables.WorkerRow.error,
        tables.DeploymentRow.reason,
    ]
    with made.read() as session:
        for column in outside:
            texts = "\n".join(str(text) for text in session.scalars(select(column)))
            assert any(hostile in texts for hostile in HOSTILE), column
    made.close()


def test_both_engines_store_it(ledger: Ledger, tmp_path: Path) -> None:
    size = Size(checkpoints=9, batches=24, events=120, quarantined=500)
    build(ledger, None, size, hostile=True, seed=1)
    with ledger.read() as session:
        counts = [
            session.scalar(select(func.count()).select_from(row)) for row in (tables.CheckpointRow, tables.BatchRow)
        ]
        bodies = session.scalars(select(tables.OutboxRow.body)).all()
        quarantined = session.scalar(select(func.sum(tables.BatchRow.quarantined)))
    assert (*counts, len(bodies), quarantined) == (9, 24, 120, 500)
    told = [decode(body) for body in bodies]
    known = {event.id for event in told}
    assert sum(event.cause in known for event in told) > 60
    assert len(read_view(ledger, Settings(home=tmp_path)).checkpoints) == 9
