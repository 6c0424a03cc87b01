"""One trouble, told the same by the screen, the page, `ratchet doctor` and an alert."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from ratchet.cli.doctor import examine
from ratchet.cli.main import app
from ratchet.ledger import Ledger, Transaction, health
from ratchet.ledger.tables import DeadLetterRow, WorkerRow
from ratchet.metrics.hub import hub_registry
from ratchet.settings import Settings
from typer.testing import CliRunner

from tests.support.scrape import Scrape
from tests.support.viewer import Viewer

RULES = Path(__file__).parents[3] / "compose" / "prometheus" / "rules"
SIMPLE = re.compile(r"^(?:max|max_over_time|sum)?\(?(\w+)(?:\[\w+\])?\)?\s*(>|==)\s*(\d+)$")
"""An expression that compares one metric with a number."""

WORKER: dict[str, Any] = {"host": "box", "pid": 1, "version": "1", "metrics_url": None, "system": "testing"}


def add_worker(tx: Transaction, seen_ago_s: float = 1.0, **more: Any) -> None:
    at = tx.now - seen_ago_s
    tx.session.merge(WorkerRow(name="testing@box+0", **WORKER, started_at=at, seen_at=at, **more))


def fails(tx: Transaction) -> None:
    add_worker(tx, state="failed", error="Traceback\nRuntimeError: the driver is too old", failures=3)


def waits(tx: Transaction) -> None:
    add_worker(tx, state="waiting", error="Redis at 10.0.0.1 refuses writes: the disk is full")


def is_gone(tx: Transaction) -> None:
    add_worker(tx, seen_ago_s=900.0, state="running")


def finds_damage(tx: Transaction) -> None:
    error, waits = "weights of artifact abcd are damaged.", "checkpoint c1 waits until they are there again."
    health.record_damage(tx, "ab" * 32, error, "testing", "checkpoint", "c1", waits)


def gives_up(tx: Transaction) -> None:
    told: dict[str, Any] = {"subject_kind": "batch", "subject_id": "b1", "failures": 5, "kills": 0}
    error = "RuntimeError: a row that nobody understands"
    tx.session.add(DeadLetterRow(system="correction", **told, error=error, traceback=error, created_at=tx.now))


@dataclass(frozen=True)
class Trouble:
    """What happens, a part of what everybody says, and the alert that wakes somebody."""

    happens: Callable[[Transaction], None]
    said: str
    alert: str
    check: str = "failures"


TROUBLES = [
    Trouble(fails, "the driver is too old", "WorkerFails"),
    Trouble(waits, "testing@box+0 waits: Redis at 10.0.0.1 refuses writes", "WorkerWaits"),
    Trouble(is_gone, "testing@box+0", "WorkerMissing", check="workers"),
    Trouble(finds_damage, "weights of artifact abcd are damaged. checkpoint c1 waits", "ArtifactDamaged"),
    Trouble(gives_up, "1 dead letter", "DeadLetters"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.alert)
def test_the_screen_the_page_doctor_and_an_alert_tell_the_same(
    home: Path, empty_ledger: Ledger, trouble: Trouble
) -> None:
    before = told(home, empty_ledger, trouble)
    assert not any(before.values()), before
    with empty_ledger.write() as tx:
        trouble.happens(tx)
    after = told(home, empty_ledger, trouble)
    assert all(after.values()), after


def told(home: Path, ledger: Ledger, trouble: Trouble) -> dict[str, bool]:
    """Who tells of it."""
    settings = Settings(home=home)
    screen = CliRunner().invoke(app, ["status"]).output
    doctor = next(each for each in examine(settings) if each.check == trouble.check)
    return {
        "screen": trouble.said in " ".join(screen.split()),
        "page": trouble.said in " ".join(re.sub(r"<[^>]+>", "", Viewer(home, ledger).get("/")).split()),
        "doctor": doctor.state != "ok" and trouble.said in " ".join(doctor.text.split()),
        "alert": is_firing(ledger, settings, trouble.alert),
    }


def is_firing(ledger: Ledger, settings: Settings, alert: str) -> bool:
    """Whether the alert's rule holds for what the hub serves to Prometheus."""
    rules = [rule for file in RULES.glob("*.yml") for rule in yaml.safe_load(file.read_text())["groups"][0]["rules"]]
    expression = next(rule["expr"] for rule in rules if rule["alert"] == alert)
    match = SIMPLE.match(expression.strip())
    assert match is not None, expression
    name, comparison, number = match.groups()
    registry, collectors = hub_registry(ledger, settings, cache_s=0.0)
    try:
        samples = Scrape(generate_latest(registry).decode()).samples
    finally:
        for collector in collectors:
            collector.close()
    values = [sample.value for sample in samples if sample.name == name]
    return any(value > float(number) if comparison == ">" else value == float(number) for value in values)
