"""A rollback drill with the embedded server and a real model, while a client asks.

The server runs in a thread of this process, for both tests: torch is imported once. Deployers that are killed at other
points are in tests/unit/deployer/systems/test_crashes.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deployer.systems.deployment import SYSTEM as DEPLOYMENT
from evaluator.systems.testing import SYSTEM as TESTING
from ratchet.ledger import drills
from ratchet.ledger.tables import CheckpointRow, ClaimRow, DrillRow
from ratchet.run.base_model import prepare_base_model
from ratchet.serving.app import build_app
from ratchet.serving.engine import model_loader
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.server_home import ServerHome, StateFile, server_token
from ratchet.settings.section import environment

from tests.support.failpoints import arm
from tests.support.home import Home, small_home
from tests.support.live_clients import Clients
from tests.support.served_apps import served

FEW = {"eval_items": 12, "probe_items": 4, "confirm_items": 4, "max_new_tokens": 4}


@dataclass
class Drilling:
    """A home with an untrained base model as its champion, and its server."""

    home: Home
    manager: ModelManager
    url: str

    def request(self) -> int:
        with self.home.ledger.write() as tx:
            return drills.request(tx, "operator", "to see")[0].id

    def drill(self, drill_id: int) -> DrillRow:
        with self.home.ledger.read() as session:
            return drills.drill(session, drill_id)

    def require_as_before(self, row: DrillRow, client: Clients) -> None:
        """Only the champion is known, loaded, live and stored, and it alone has answered the client."""
        with self.home.ledger.read() as session:
            champion = session.query(CheckpointRow).one()
        live = (champion.id, champion.weights)
        assert (row.before_id, row.before_weights) == (row.after_id, row.after_weights) == live
        assert {(body["ratchet"]["checkpoint"], body["ratchet"]["weights"]) for body in client.bodies} == {live}
        assert client.faults == self.home.dead() == []
        assert self.manager.health().loaded == dict([live])
        assert row.planted_artifact is None
        planted = [id for id in self.home.artifacts.ids() if "drill" in self.home.artifacts.manifest(id).provenance]
        assert planted == []


@pytest.fixture(scope="module")
def drilling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drilling]:
    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model(spec, lambda _message: None)

    with small_home(tmp_path_factory.mktemp("drill") / "run", prepare, suites=FEW) as home:
        settings = home.settings
        with ServerHome(settings.serving_home) as place:
            manager = ModelManager(settings.serving, StateFile(place.folder), model_loader(settings))
            token = server_token(settings.serving, place.folder)
            with served(build_app(manager, settings.serving, token)) as url:
                place.announce(url)
                home.bus(TESTING, DEPLOYMENT).sweep()
                yield Drilling(home, manager, url)


def test_a_drill_is_caught_while_a_client_gets_the_champions_answers_alone(drilling: Drilling) -> None:
    drill_id = drilling.request()
    with Clients(drilling.url, 1) as client:
        client.wait_for(1)
        drilling.home.bus(DEPLOYMENT).sweep()
        client.wait_for(1)
    row = drilling.drill(drill_id)
    assert (row.outcome, row.attempts) == ("caught", 1), row.detail
    assert list(row.steps) == list(drills.STEPS)
    drilling.require_as_before(row, client)


def test_after_a_deployer_that_died_in_the_middle_the_next_one_removes_what_was_planted(
    drilling: Drilling, tmp_path: Path
) -> None:
    drill_id = drilling.request()
    arm(tmp_path, "after-load")
    root = Path(__file__).parents[3]
    with Clients(drilling.url, 1) as client:
        died = subprocess.run(
            [sys.executable, str(root / "tests/unit/deployer/systems/dying.py")],
            env={**os.environ, "RATCHET_FAILPOINTS": str(tmp_path), "PYTHONPATH": str(root)},
            input=json.dumps(environment(drilling.home.settings)) + "\n",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert int(died.stdout) == -signal.SIGKILL
        assert f"drill-{drill_id}" in drilling.manager.health().loaded
        with drilling.home.ledger.write() as tx:
            tx.session.query(ClaimRow).update({ClaimRow.expires_at: 0.0})
        drilling.home.bus(DEPLOYMENT).sweep()
        client.wait_for(1)
    row = drilling.drill(drill_id)
    assert (row.outcome, row.attempts) == ("caught", 2), row.detail
    drilling.require_as_before(row, client)
