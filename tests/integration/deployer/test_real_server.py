"""The deployer with a real server process and real models: answers, restarts, failing canaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import BlockRow, EvaluationRow
from ratchet.run.base_model import prepare_base_model

from tests.support.home import small_home

from .server_process import Deploying

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]


@pytest.fixture
def deploying(tmp_path: Path) -> Iterator[Deploying]:
    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model(spec, lambda _message: None)

    told = {"port": 0, "watch_s": 0.0}
    with small_home(tmp_path / "run", prepare, serving=told) as home:
        deploying = Deploying(home, tmp_path)
        deploying.start_server()
        yield deploying
        deploying.kill_server()


def test_the_served_answers_are_those_of_the_deployed_checkpoint_across_restarts(deploying: Deploying) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    assert deploying.answerer() == deploying.identity(base)

    newer = deploying.add_seed(seed=1)
    deploying.sweep()
    assert deploying.answerer() == deploying.identity(base)
    deploying.deploy_by_hand(newer)
    deploying.sweep()
    assert deploying.home.verdicts("deployment") == {newer: "deployed"}
    assert deploying.answerer() == deploying.identity(newer)

    deploying.kill_server()
    deploying.start_server()
    assert deploying.answerer() == deploying.identity(newer)

    deploying.kill_server()
    (deploying.home.settings.serving_home / "state.json").unlink()
    deploying.start_server()
    deploying.sweep()
    assert deploying.answerer() == deploying.identity(newer)
    assert deploying.home.dead() == []


def test_a_served_model_that_differs_from_the_judged_one_is_rolled_back_and_blocked(deploying: Deploying) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    judged = deploying.add_seed(seed=1)
    deploying.sweep()
    other = deploying.add_seed(seed=2)
    with deploying.home.ledger.write() as tx:
        for row in tx.session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == judged):
            copied = {c.name: getattr(row, c.name) for c in EvaluationRow.__table__.columns}
            copied |= {"id": f"{other}/{row.suite_id}", "checkpoint_id": other}
            tx.session.add(EvaluationRow(**copied))
    deploying.deploy_by_hand(other)
    heard = deploying.sweep()
    assert "deployment.rolled_back" in heard
    assert deploying.home.verdicts("deployment")[other] == "rolled back"
    assert deploying.answerer() == deploying.identity(base)
    with deploying.home.ledger.read() as session:
        assert [row.checkpoint_id for row in session.query(BlockRow)] == [other]
        assert serving(session).desired_id == base
