"""Damaged files of the training lineage: where training resumes, and which batches it trains again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import TransientError
from ratchet.ledger import health
from ratchet.ledger.lineage import lineage
from ratchet.ledger.tables import CheckpointRow, RegressionRow
from ratchet.settings.training import LockedSettings
from ratchet.systems import Subject, claims
from trainer import retention
from trainer.recovery import recover


def flip_a_byte(training: Any, artifact: str, name: str) -> None:
    path: Path = training.home.artifacts.fetch(artifact) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)


def found(training: Any) -> list[str]:
    with training.home.ledger.read() as session:
        return [damage.consequence for damage in health.damages_since(session, 0.0)]


def in_peace(start_training: Callable[..., Any], tmp_path: Path, batches: int) -> list[str]:
    """Digests of the weights where nothing is damaged."""
    training = start_training(home=tmp_path / "in-peace")
    for seed in range(1, batches + 1):
        training.queue(seed)
    training.sweep()
    return [checkpoint.weights for checkpoint in training.checkpoints()]


def sweep_often(training: Any, times: int = 8) -> None:
    for _ in range(times):
        training.sweep()


def test_a_damaged_state_loses_no_batch_and_ends_in_the_same_weights(
    training: Any, start_training: Callable[..., Any], tmp_path: Path
) -> None:
    first = training.queue(1)
    training.sweep()
    head = training.checkpoints()[-1]
    flip_a_byte(training, head.state_artifact, "optimizer.safetensors")
    rest = [training.queue(seed) for seed in (2, 3)]
    sweep_often(training)
    assert training.home.dead() == []
    assert training.home.verdicts("training") == dict.fromkeys([first, *rest], "trained")
    mended, *after = training.checkpoints()[2:]
    assert mended.parent_id == training.checkpoints()[0].id
    assert [c.weights for c in (training.checkpoints()[0], mended, *after)] == in_peace(start_training, tmp_path, 3)
    (said,) = found(training)
    assert f"resumes from {training.checkpoints()[0].id} from its exact state; trained again: batch {first}." in said


def test_an_open_batch_resumes_at_the_intact_state(training: Any) -> None:
    batch_id = training.queue(1, rows=96)
    training.children.dies_at = 3
    training.sweep()
    assert training.batch(batch_id).offset == 64
    flip_a_byte(training, training.checkpoints()[-1].state_artifact, "optimizer.safetensors")
    sweep_often(training)
    assert training.home.verdicts("training") == {batch_id: "trained"}
    begun = [spec.config.data.offset for spec in training.children.specs]
    assert begun == [0, 32, 64, 32, 64]
    assert training.batch(batch_id).offset == 96


def test_without_a_state_training_resumes_from_the_weights(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STATES_KEPT", 1)
    first = training.queue(1)
    training.sweep()
    head = training.checkpoints()[-1]
    flip_a_byte(training, head.state_artifact, "optimizer.safetensors")
    second = training.queue(2)
    sweep_often(training)
    assert training.home.verdicts("training") == {first: "trained", second: "trained"}
    assert training.checkpoints()[2].parent_id == head.id
    assert training.children.specs[2].config.output.resume_from is None
    assert found(training) == [f"Training resumes from {head.id} with a fresh optimizer."]


def test_a_head_with_damaged_weights_is_abandoned(training: Any) -> None:
    first = training.queue(1)
    training.sweep()
    middle, head = training.checkpoints()
    flip_a_byte(training, head.artifact, "model.safetensors")
    second = training.queue(2)
    sweep_often(training)
    assert training.home.dead() == []
    assert training.home.verdicts("training") == {first: "trained", second: "trained"}
    assert training.checkpoints()[2].parent_id == middle.id


def test_a_state_that_cannot_be_resumed_is_abandoned(training: Any) -> None:
    """A byte that was wrong before it was published passes every digest; the training process finds it."""
    first = training.queue(1)
    training.sweep()
    head = training.checkpoints()[-1]
    folder = training.home.artifacts.fetch(head.state_artifact)
    copy = training.home.settings.work_folder / "another-state"
    copy.mkdir(parents=True)
    for file in folder.iterdir():
        if file.name != "manifest.json":
            (copy / file.name).write_bytes(file.read_bytes()[: 100 if file.name == "optimizer.safetensors" else None])
    broken = training.home.artifacts.publish(copy, "state", {}).id
    with training.home.ledger.write() as tx:
        tx.session.merge(head).state_artifact = broken
    second = training.queue(2)
    sweep_often(training)
    assert training.home.dead() == []
    assert training.home.verdicts("training") == {first: "trained", second: "trained"}
    assert training.checkpoints()[2].parent_id == training.checkpoints()[0].id


def test_a_wrong_setting_makes_no_dead_letter(training: Any) -> None:
    wrong = {"locked": LockedSettings(vocab_size=7)}
    training.home.settings = training.home.settings.model_copy(update=wrong)
    batch_ids = [training.queue(seed) for seed in (1, 2, 3, 4)]
    sweep_often(training, 12)
    assert training.home.dead() == []
    assert {training.batch(id).state for id in batch_ids} <= {"queued", "training"}


def test_without_an_intact_checkpoint_training_waits(training: Any) -> None:
    training.queue(1)
    training.sweep()
    with training.home.ledger.read() as session:
        artifacts = [checkpoint.artifact for checkpoint in session.query(CheckpointRow)]
    for artifact in artifacts:
        flip_a_byte(training, artifact, "model.safetensors")
    with pytest.raises(TransientError, match="no checkpoint is intact"):
        recover(training.home.settings, training.home.ledger, training.home.artifacts)


@pytest.mark.parametrize("states", [2, 1], ids=["from an intact state", "from the saved adapters"])
def test_adapters_are_recovered_too(
    start_training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, states: int
) -> None:
    monkeypatch.setattr(retention, "STATES_KEPT", states)
    training = start_training(model={"lora_rank": 4})
    first = training.queue(1)
    training.sweep()
    middle, head = training.checkpoints()
    flip_a_byte(training, head.state_artifact, "optimizer.safetensors")
    second = training.queue(2)
    sweep_often(training)
    assert training.home.dead() == []
    assert training.home.verdicts("training") == {first: "trained", second: "trained"}
    assert training.checkpoints()[2].parent_id == (middle.id if states == 2 else head.id)
    assert (training.children.specs[2].config.output.resume_from is None) == (states == 1)


def rewind_by_hand(training: Any, checkpoint_id: str) -> None:
    """The effects of a rewind on the lineage."""
    with training.home.ledger.write() as tx:
        main = lineage(tx.session)
        main.head_id, main.fresh_optimizer = checkpoint_id, True


def test_recovery_with_fresh_adapters_checks_the_head(start_training: Callable[..., Any]) -> None:
    training = start_training(model={"lora_rank": 4})
    training.queue(1)
    training.sweep()
    middle, _ = training.checkpoints()
    rewind_by_hand(training, middle.id)
    flip_a_byte(training, middle.artifact, "adapter_model.safetensors")
    second = training.queue(2)
    sweep_often(training)
    assert training.home.verdicts("training")[second] == "trained"
    assert training.checkpoints()[2].parent_id == training.home.base_id()


def set_rank(training: Any, rank: int) -> None:
    model = training.home.settings.model.model_copy(update={"lora_rank": rank})
    training.home.settings = training.home.settings.model_copy(update={"model": model})


def test_adapter_states_on_other_weights_are_not_resumed(
    start_training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STATES_KEPT", 8)
    training = start_training(model={"lora_rank": 4})
    first = training.queue(1, rows=32)
    training.sweep()
    set_rank(training, 8)
    second = training.queue(2, rows=32)
    training.sweep()
    merged = training.checkpoints()[-1].id
    set_rank(training, 4)
    third = training.queue(3, rows=32)
    training.sweep()
    head = training.checkpoints()[-1]
    assert (head.parent_id, training.line().adapter_base_id) == (merged, merged)
    flip_a_byte(training, head.state_artifact, "optimizer.safetensors")
    fourth = training.queue(4)
    sweep_often(training, 14)
    assert training.home.verdicts("training") == dict.fromkeys([first, second, third, fourth], "trained")
    assert training.checkpoints()[3].parent_id == head.id
    assert found(training) == [f"Training resumes from {head.id} with a fresh optimizer."]


@pytest.mark.parametrize("states", [2, 1])
def test_a_state_that_two_checkpoints_name_is_kept_for_the_one(
    training: Any, monkeypatch: pytest.MonkeyPatch, states: int
) -> None:
    """A batch that is trained again ends in the same bits, and so in the same artifacts."""
    monkeypatch.setattr(retention, "STATES_KEPT", states)
    for seed in (1, 2):
        training.queue(seed, rows=32)
    training.sweep()
    flip_a_byte(training, training.checkpoints()[-1].artifact, "model.safetensors")
    training.queue(3, rows=32)
    sweep_often(training)
    named = [row.state_artifact for row in training.checkpoints() if row.state_artifact is not None]
    assert named
    assert all(training.home.artifacts.exists(artifact) for artifact in named)


def test_a_segment_on_an_abandoned_head_is_not_recorded(training: Any) -> None:
    first = training.queue(1, rows=32)
    training.sweep()
    base = training.home.base_id()
    training.queue(2, rows=32)
    run, moved = training.children.run, []

    def moved_meanwhile(*arguments: Any, **limits: Any) -> Any:
        result = run(*arguments, **limits)
        if not moved:
            moved.append(True)
            with training.home.ledger.write() as tx:
                lineage(tx.session).head_id = base
        return result

    training.children.run = moved_meanwhile
    training.sweep()
    assert [checkpoint.batch_id for checkpoint in training.checkpoints()] == [first]
    assert training.line().head_id == base


def test_the_line_is_left_alone_while_another_worker_trains_on_it(training: Any) -> None:
    training.queue(1)
    training.sweep()
    head = training.checkpoints()[-1]
    flip_a_byte(training, head.state_artifact, "optimizer.safetensors")
    with training.home.ledger.write() as tx:
        assert claims.take(tx, "training", Subject("batch", "b"), "training@other+0", 60.0)
    assert not recover(training.home.settings, training.home.ledger, training.home.artifacts)
    assert training.line().head_id == head.id


def test_bad_batches_do_not_block_a_good_one(training: Any) -> None:
    bad = [training.queue(seed, rows=32) for seed in (1, 2, 3, 4, 5)]
    for batch_id in bad:
        path = training.home.artifacts.fetch(training.batch(batch_id).artifact) / "rows.jsonl"
        path.chmod(0o644)
        path.write_text("nonsense\n")
    good = training.queue(6, rows=32)
    sweep_often(training, 25)
    assert training.home.verdicts("training") == {good: "trained"}
    assert len(training.home.dead()) == 5


def break_(training: Any, checkpoint_id: str) -> None:
    with training.home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, checkpoint_id).state = "broken"


def regress(training: Any, checkpoint_id: str, severity: str = "critical") -> None:
    with training.home.ledger.write() as tx:
        tx.session.add(
            RegressionRow(
                checkpoint_id=checkpoint_id, baseline_id=None, severity=severity, numbers={}, created_at=tx.now
            )
        )


@pytest.mark.parametrize("go_bad", [break_, regress])
def test_a_rewind_returns_to_the_champion_and_quarantines_the_batches_since(training: Any, go_bad: Any) -> None:
    kept = training.queue(1)
    training.sweep()
    champion = training.checkpoints()[-1].id
    training.make_champion(champion)
    since = [training.queue(2), training.queue(3)]
    training.sweep()
    go_bad(training, training.checkpoints()[2].id)
    heard = training.sweep()
    assert heard == ["training.failed", "training.failed", "queue.low"]
    assert training.line().head_id == champion
    assert training.line().fresh_optimizer
    assert [training.batch(id).state for id in since] == ["quarantined", "quarantined"]
    assert training.batch(kept).state == "trained"


def test_training_restarts_once_from_the_champion_with_a_fresh_optimizer(training: Any) -> None:
    training.queue(1)
    training.sweep()
    break_(training, training.checkpoints()[0].id)
    training.sweep()
    training.queue(2)
    training.sweep()
    begun = training.children.specs[2:]
    assert [spec.config.output.resume_from is None for spec in begun] == [True, False]
    assert [spec.config.data.offset for spec in begun] == [0, 32]
    assert training.checkpoints()[2].parent_id == training.home.base_id()
    assert not training.line().fresh_optimizer


def test_one_rewind_covers_all_bad_checkpoints_of_the_abandoned_lineage(training: Any) -> None:
    training.queue(1)
    training.sweep()
    first, second = (checkpoint.id for checkpoint in training.checkpoints())
    break_(training, first)
    regress(training, second)
    training.sweep()
    verdicts = training.home.verdicts("training")
    assert {verdicts[first], verdicts[second]} == {"rewound", "left behind"}
    assert training.line().head_id == training.home.base_id()


def test_a_warning_causes_no_rewind(training: Any) -> None:
    training.queue(1)
    training.sweep()
    regress(training, training.checkpoints()[-1].id, "warning")
    training.sweep()
    assert training.line().head_id == training.checkpoints()[-1].id


def test_a_champion_that_regressed_itself_is_not_rewound_to(training: Any) -> None:
    batch_id = training.queue(1)
    training.sweep()
    champion = training.checkpoints()[-1].id
    training.make_champion(champion)
    regress(training, champion)
    training.sweep()
    assert training.home.verdicts("training")[champion] == "left behind"
    assert training.batch(batch_id).state == "trained"


def test_a_rewind_does_not_wait_for_the_end_of_the_batch(training: Any) -> None:
    training.queue(1)
    training.sweep()
    bad = training.checkpoints()[-1].id
    running, after = training.queue(2), training.queue(3)

    class Breaking(list[Any]):
        def append(self, spec: Any) -> None:
            super().append(spec)
            if len(self) == 3:
                break_(training, bad)

    training.children.specs = Breaking(training.children.specs)
    training.sweep()
    assert training.batch(running).state == "quarantined"
    assert training.home.verdicts("training")[bad] == "rewound"
    assert training.batch(after).state == "trained"
    assert training.checkpoints()[3].parent_id == training.home.base_id()


def test_with_a_champion_on_another_branch_all_batches_since_the_fork_are_quarantined(training: Any) -> None:
    kept = training.queue(1)
    training.sweep()
    fork = training.checkpoints()[-1].id
    one = training.queue(2)
    training.sweep()
    left = training.checkpoints()[-1].id
    training.make_champion(fork)
    break_(training, left)
    training.sweep()
    other = training.queue(3)
    training.sweep()
    training.make_champion(left)
    break_(training, training.checkpoints()[-1].id)
    training.sweep()
    assert training.line().head_id == left
    assert training.batch(other).state == "quarantined"
    assert (training.batch(kept).state, training.batch(one).state) == ("trained", "quarantined")


def test_a_poisonous_batch_is_quarantined_and_training_rewinds_to_the_champion(training: Any) -> None:
    good = training.queue(1)
    training.sweep()
    champion = training.checkpoints()[-1].id
    training.make_champion(champion)
    poison = training.queue(2)
    training.children.poison = training.batch(poison).artifact
    after = training.queue(3)
    heard = training.sweep()
    assert heard[:3] == ["training.started", "queue.low", "training.failed"]
    assert training.home.verdicts("training") == {good: "trained", poison: "quarantined", after: "trained"}
    assert training.batch(poison).state == "quarantined"
    assert training.checkpoints()[2].parent_id == champion
    assert training.children.specs[-2].config.output.resume_from is None
    assert training.home.dead() == []
