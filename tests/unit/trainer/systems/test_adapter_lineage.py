"""Training of adapters: the base of each segment, and changes of the settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratchet.inference.adapter_folder import base_name
from ratchet.ledger.tables import CheckpointRow

LORA = {"lora_rank": 4}


def grounds(training: Any) -> list[str]:
    """Artifacts that segments were begun on."""
    return [Path(spec.config.model.path).name for spec in training.children.specs]


def artifact(training: Any, checkpoint_id: str) -> str:
    with training.home.ledger.read() as session:
        path: Path = training.home.artifacts.fetch(session.get_one(CheckpointRow, checkpoint_id).artifact)
    return path.name


def test_segments_resume_their_adapters_on_the_frozen_base(start_training: Callable[..., Any]) -> None:
    training = start_training(model=LORA)
    training.queue(1)
    training.sweep()
    base = training.home.base_id()
    first, second = training.checkpoints()
    assert grounds(training) == [artifact(training, base)] * 2
    assert [spec.config.output.resume_from is None for spec in training.children.specs] == [True, False]
    assert (second.parent_id, training.line().adapter_base_id) == (first.id, base)
    files = {path.name for path in training.home.artifacts.fetch(second.artifact).iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "base.json"} <= files
    assert "model.safetensors" not in files
    assert training.home.artifacts.manifest(second.artifact).requires == (artifact(training, base),)
    assert base_name(training.home.artifacts.fetch(second.artifact)) == training.home.settings.model.path


def test_after_a_rewind_the_champions_adapters_are_continued_on_the_same_base(
    start_training: Callable[..., Any],
) -> None:
    training = start_training(model=LORA)
    training.queue(1)
    training.sweep()
    champion = training.checkpoints()[-1].id
    training.make_champion(champion)
    training.queue(2)
    training.sweep()
    with training.home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, training.checkpoints()[-1].id).state = "broken"
    training.sweep()
    training.queue(3)
    training.sweep()
    base = training.home.base_id()
    assert grounds(training)[-2:] == [artifact(training, champion), artifact(training, base)]
    assert training.line().adapter_base_id == base


def test_changed_adapter_settings_start_from_the_merged_head(start_training: Callable[..., Any]) -> None:
    training = start_training(model=LORA)
    training.queue(1)
    training.sweep()
    head = training.line().head_id
    for model in ({"lora_rank": 8}, {"lora_rank": 0}):
        training.home.settings = training.home.settings.model_copy(
            update={"model": training.home.settings.model.model_copy(update=model)}
        )
        training.queue(2 + model["lora_rank"])
        training.sweep()
        begun = training.children.specs[-2:]
        assert [spec.config.output.resume_from is None for spec in begun] == [True, False]
        assert Path(begun[0].config.model.path).name == artifact(training, head)
        assert training.line().adapter_base_id == (head if model["lora_rank"] else None)
        if model["lora_rank"]:
            folder = training.home.artifacts.fetch(training.checkpoints()[-1].artifact)
            assert base_name(folder) == head, "which is no model of the user's"
        head = training.line().head_id
    assert training.home.dead() == []


def test_retention_keeps_the_base_of_adapters(start_training: Callable[..., Any]) -> None:
    training = start_training(model=LORA, retention={"checkpoints_gb": 1e-6})
    training.queue(1)
    training.sweep()
    assert training.line().adapter_base_id == training.home.base_id()
    training.queue(2)
    training.sweep()
    assert training.home.dead() == []
    assert training.children.specs[-1].config.output.resume_from is not None
