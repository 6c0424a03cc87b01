"""A base model is checked before anything is set up on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.errors import SettingsError
from ratchet.inference.tiny import build_tiny_model
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import CheckpointRow
from ratchet.run.base_model import prepare_base_model
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    build_tiny_model(tmp_path / "mine")
    return tmp_path / "mine"


def prepare(model: Path, tmp_path: Path) -> dict[str, object]:
    return prepare_base_model({"model": str(model), "folder": str(tmp_path / "base")}, lambda _message: None)


def test_a_model_folder_is_used_unchanged(mine: Path, tmp_path: Path) -> None:
    assert prepare(mine, tmp_path)["folder"] == str(tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == (mine / "model.safetensors").read_bytes()


def test_the_tokenizer_path_follows_the_setting(mine: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other")
    template = (other / "chat_template.jinja").read_text() + "{# another #}"
    (other / "chat_template.jinja").write_text(template)
    settings = Settings(home=tmp_path / "home", model={"path": str(mine), "tokenizer_path": str(other)})
    told: list[dict[str, Any]] = []

    def prepare_and_tell(_settings: Settings, spec: dict[str, Any]) -> dict[str, Any]:
        told.append(spec)
        return prepare_base_model(spec, lambda _message: None)

    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    bootstrap(settings, ledger, ArtifactStore(settings.artifact_url), prepare_and_tell)
    with ledger.read() as session:
        base = session.query(CheckpointRow).one()
    ledger.close()
    folder = ArtifactStore(settings.artifact_url).fetch(base.artifact)
    assert (folder / "chat_template.jinja").read_text() == template
    assert told[0]["tokenizer"] == str(other)


def test_a_model_without_a_chat_template_is_refused_with_the_way_out(mine: Path, tmp_path: Path) -> None:
    for file in mine.glob("*.jinja"):
        file.unlink()
    config = json.loads((mine / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (mine / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(SettingsError, match=r"mine has no chat template: add chat_template\.jinja"):
        prepare(mine, tmp_path)


def test_a_template_that_never_ends_an_answer_is_refused(mine: Path, tmp_path: Path) -> None:
    (mine / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(SettingsError, match="never learn to stop"):
        prepare(mine, tmp_path)


def test_a_broken_tokenizer_is_named(mine: Path, tmp_path: Path) -> None:
    (mine / "tokenizer.json").write_text("{")
    with pytest.raises(SettingsError, match="tokenizer"):
        prepare(mine, tmp_path)
