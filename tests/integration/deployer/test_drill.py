"""A rollback drill with the embedded server and a real model, while a client asks.

The server runs in a thread of this process: torch is imported once. A deployer that is killed in the middle of a drill
is in tests/unit/deployer/systems/test_crashes.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployer.systems.deployment import SYSTEM as DEPLOYMENT
from evaluator.systems.testing import SYSTEM as TESTING
from ratchet.ledger import drills
from ratchet.ledger.tables import CheckpointRow
from ratchet.run.base_model import prepare_base_model
from ratchet.serving.app import build_app
from ratchet.serving.engine import model_loader
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.server_home import ServerHome, StateFile, server_token

from tests.support.home import Home, small_home
from tests.support.live_clients import Clients
from tests.support.served_apps import served

FEW = {"eval_items": 12, "probe_items": 4, "confirm_items": 4, "max_new_tokens": 4}


@contextmanager
def served_home(folder: Path) -> Iterator[tuple[Home, ModelManager, str]]:
    """A home with an untrained base model as its champion, its server, and the server's address."""

    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model(spec, lambda _message: None)

    with small_home(folder, prepare, suites=FEW) as home:
        settings = home.settings
        with ServerHome(settings.serving_home) as place:
            manager = ModelManager(settings.serving, StateFile(place.folder), model_loader(settings))
            token = server_token(settings.serving, place.folder)
            with served(build_app(manager, settings.serving, token)) as url:
                place.announce(url)
                home.bus(TESTING, DEPLOYMENT).sweep()
                yield home, manager, url


def test_a_drill_is_caught_while_a_client_gets_the_champions_answers_alone(tmp_path: Path) -> None:
    with served_home(tmp_path / "run") as (home, manager, url):
        with home.ledger.read() as session:
            champion = session.query(CheckpointRow).one()
        artifacts = sorted(home.artifacts.ids())
        with home.ledger.write() as tx:
            drill_id = drills.request(tx, "operator", "to see")[0].id
        with Clients(url, 1) as client:
            client.wait_for(1)
            home.bus(DEPLOYMENT).sweep()
            client.wait_for(1)
        with home.ledger.read() as session:
            row = drills.drill(session, drill_id)
            assert [known.id for known in session.query(CheckpointRow)] == [champion.id]
        assert (row.outcome, row.attempts) == ("caught", 1), row.detail
        assert list(row.steps) == list(drills.STEPS)
        assert (row.before_id, row.before_weights) == (row.after_id, row.after_weights)
        answering = {(body["ratchet"]["checkpoint"], body["ratchet"]["weights"]) for body in client.bodies}
        assert answering == {(champion.id, champion.weights)} == {(row.after_id, row.after_weights)}
        assert client.faults == home.dead() == []
        assert manager.health().loaded == {champion.id: champion.weights}
        assert sorted(home.artifacts.ids()) == artifacts
