"""The rollback drill against the real server's application: caught, not caught, and what it waits for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ratchet.artifacts import weights_digest
from ratchet.errors import ArtifactError
from ratchet.ledger import drills, operator_actions
from ratchet.ledger.tables import CheckpointRow, DrillRow, EvaluationRow

from .knowing import easy

VOCABULARY = 3


class Planting(dict[str, Any]):
    """The models of the server. What it does not know is a damaged copy of the champion."""

    def __init__(self, known: dict[str, Any], champion: Any, make: Callable[[Any], Any]):
        super().__init__(known)
        self._champion, self._make = champion, make

    def __missing__(self, weights: str) -> Any:
        return self._make(replace(self._champion, weights=weights, heard=[]))


def with_champion(
    deploying: Any, make: Callable[[Any], Any] = lambda model: replace(model, drifts=lambda: True)
) -> str:
    """Deploy a champion with files that can be damaged; ``make`` makes the server's model of the damaged copy."""
    home, checkpoint = deploying.home, deploying.add(easy, judge=False)
    folder = home.settings.work_folder / "with-a-matrix"
    folder.mkdir(parents=True)
    head = json.dumps({"embed": {"dtype": "F32", "shape": [VOCABULARY, 1], "data_offsets": [0, 4 * VOCABULARY]}})
    rows = b"".join(bytes([number]) * 4 for number in range(VOCABULARY))
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head.encode() + rows)
    (folder / "config.json").write_text(json.dumps({"vocab_size": VOCABULARY}))
    artifact = home.artifacts.publish(folder, "checkpoint", {}, consume=True)
    model = deploying.model(checkpoint)
    with home.ledger.write() as tx:
        row = tx.session.get_one(CheckpointRow, checkpoint)
        row.artifact, row.weights = artifact.id, weights_digest(artifact.manifest)
        champion = replace(model, weights=row.weights)
        operator_actions.deploy(tx, row, "for a drill", force=True)
    deploying.server.models = Planting({**deploying.server.models, champion.weights: champion}, champion, make)
    home.add_record(checkpoint, "eval", easy)
    deploying.sweep()
    assert deploying.server.live() == checkpoint
    return str(checkpoint)


def drill(deploying: Any) -> DrillRow:
    """Ask for a drill, and carry it out as far as it gets."""
    with deploying.home.ledger.write() as tx:
        row, _ = drills.request(tx, "operator", "to see")
    deploying.sweep()
    return drilled(deploying, row.id)


def drilled(deploying: Any, drill_id: int) -> DrillRow:
    with deploying.home.ledger.read() as session:
        return drills.drill(session, drill_id)


def is_as_before(deploying: Any, champion: str, artifacts: list[str]) -> bool:
    """Whether the champion alone is loaded, and nothing planted is left or known to the ledger."""
    with deploying.home.ledger.read() as session:
        ids = {row.id for row in session.query(CheckpointRow)}
    assert not any(name.startswith("drill-") for name in ids)
    assert deploying.blocked() == deploying.home.dead() == []
    return (
        deploying.server.live() == champion
        and deploying.server.loaded() == {champion}
        and artifacts == stored(deploying)
    )


def stored(deploying: Any) -> list[str]:
    return sorted(deploying.home.artifacts.ids())


def test_a_planted_checkpoint_is_caught_and_all_is_as_before(deploying: Any) -> None:
    champion = with_champion(deploying)
    artifacts, changes = stored(deploying), deploying.deployments()
    row = drill(deploying)
    assert (row.outcome, row.attempts) == ("caught", 1)
    assert "a log-probability differs" in row.detail
    assert list(row.steps) == list(drills.STEPS)
    assert all(took_s >= 0 for took_s in row.steps.values())
    assert (row.before_id, row.before_weights) == (row.after_id, row.after_weights) == (champion, row.before_weights)
    assert row.started_at is not None
    assert row.finished_at is not None
    assert row.finished_at >= row.started_at >= row.requested_at
    assert is_as_before(deploying, champion, artifacts)
    assert deploying.deployments() == changes
    assert (deploying.desired().canary_id, deploying.desired().canary_passed) == (champion, True)
    assert deploying.verdicts()[str(row.id)] == "caught"
    assert drill(deploying).id == row.id + 1


def test_a_damage_that_changes_no_answer_is_not_caught(deploying: Any) -> None:
    champion = with_champion(deploying, make=lambda model: model)
    artifacts = stored(deploying)
    row = drill(deploying)
    assert row.outcome == "not caught"
    assert is_as_before(deploying, champion, artifacts)


def test_a_server_that_refuses_the_load_fails_the_drill(deploying: Any) -> None:
    def refuse(_model: Any) -> Any:
        raise ArtifactError("no memory for it")

    champion = with_champion(deploying, make=refuse)
    artifacts = stored(deploying)
    row = drill(deploying)
    assert row.outcome == "failed"
    assert "no memory for it" in row.detail
    assert list(row.steps) == ["control", "plant"]
    assert is_as_before(deploying, champion, artifacts)


def test_a_canary_that_refuses_the_champion_too_has_caught_nothing(deploying: Any) -> None:
    champion = with_champion(deploying)
    deploying.model(champion).drifts = lambda: True
    row = drill(deploying)
    assert row.outcome == "failed"
    assert f"{champion} does not pass its own canary" in row.detail


def test_a_champion_without_a_record_is_waited_for(deploying: Any) -> None:
    champion = with_champion(deploying)
    with deploying.home.ledger.write() as tx:
        tx.session.query(EvaluationRow).filter_by(checkpoint_id=champion).delete()
    with deploying.home.ledger.write() as tx:
        row, is_new = drills.request(tx, "operator", "to see")
    assert is_new
    deploying.bus(without_testing=True).sweep()
    row = drilled(deploying, row.id)
    assert (row.outcome, row.attempts) == (None, 0)
    assert str(row.waiting_for).startswith(f"a record of the champion {champion} on the current eval suite")
    with deploying.home.ledger.write() as tx:
        assert drills.request(tx, "operator", "again")[1] is False
    deploying.sweep()  # testing answers the request
    deploying.sweep()
    row = drilled(deploying, row.id)
    assert (row.outcome, row.waiting_for) == ("caught", None)


def test_a_deployment_by_hand_comes_before_a_drill_that_has_begun(deploying: Any) -> None:
    base, champion = deploying.home.base_id(), ""

    def roll_back(model: Any) -> Any:
        """What an operator does while the planted model is loaded, the first time."""
        if deploying.desired().desired_id == champion:
            with deploying.home.ledger.write() as tx:
                operator_actions.rollback(tx, "in the middle of a drill")
        return replace(model, drifts=lambda: True)

    champion = with_champion(deploying, make=roll_back)
    row = drill(deploying)
    assert (row.outcome, row.attempts, row.steps) == (None, 0, {})
    assert row.waiting_for == f"the deployment of {base}, which comes first"
    deploying.bus().sweep()
    assert deploying.server.live() == base
    assert not [name for name in deploying.server.loaded() if name.startswith("drill-")]


@pytest.mark.parametrize("left", ["loaded", "stored"])
def test_what_an_interrupted_attempt_has_left_is_removed(deploying: Any, left: str) -> None:
    """A worker that was killed has neither unloaded nor deleted anything."""
    champion = with_champion(deploying)
    artifacts = stored(deploying)
    with deploying.home.ledger.write() as tx:
        row, _ = drills.request(tx, "operator", "to see")
        drills.begin(tx, row.id, champion, "")
        drills.begin(tx, row.id, champion, "")
    with deploying.server.client() as client:
        if left == "loaded":
            client.load(f"drill-{row.id}", "anywhere", "f" * 64)
    if left == "stored":
        file = deploying.home.settings.work_folder / "planted"
        file.write_text("bad")
        with deploying.home.ledger.write() as tx:
            planted = deploying.home.artifacts.publish(file, "checkpoint", {}).id
            drills.note_planted(tx, row.id, planted)
    deploying.sweep()
    row = drilled(deploying, row.id)
    assert (row.outcome, row.detail) == ("failed", "it was interrupted 2 times by the end of the worker")
    assert is_as_before(deploying, champion, artifacts)
