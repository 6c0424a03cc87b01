"""A base model is checked before anything is set up on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Message
from ratchet.errors import SettingsError
from ratchet.inference.chat_template import chat_template, stop_ids
from ratchet.inference.tiny import build_tiny_model
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import CheckpointRow
from ratchet.run.base_model import prepare_base_model
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings
from ratchet.settings.training import ModelSettings
from transformers import AutoTokenizer, GenerationConfig


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    build_tiny_model(tmp_path / "mine")
    return tmp_path / "mine"


def prepare(model: Path, tmp_path: Path, **spec: object) -> list[str]:
    """What was said while the model was copied to ``base``."""
    notes: list[str] = []
    told = {"model": str(model), "folder": str(tmp_path / "base"), **spec}
    assert prepare_base_model(told, lambda message: notes.append(message["note"]))["folder"] == told["folder"]
    return notes


def remove_template(model: Path) -> None:
    for file in model.glob("*.jinja"):
        file.unlink()
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_model_folder_is_used_unchanged(mine: Path, tmp_path: Path) -> None:
    assert prepare(mine, tmp_path) == [f"preparing {mine}"]
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == (mine / "model.safetensors").read_bytes()


def test_the_tokenizer_path_follows_the_setting(mine: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other")
    template = (other / "chat_template.jinja").read_text() + "{# another #}"
    (other / "chat_template.jinja").write_text(template)
    settings = Settings(
        home=tmp_path / "home",
        model={"path": str(mine), "tokenizer_path": str(other)},
        suites={"families": [{"name": "reverse", "levels": [1, 2]}], "general_prompts": "none"},
    )
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
    remove_template(mine)
    with pytest.raises(SettingsError, match=r"mine has no chat template.*set model\.chat_template to a Jinja file"):
        prepare(mine, tmp_path)


def test_a_template_of_the_settings_goes_into_the_base_model(mine: Path, tmp_path: Path) -> None:
    remove_template(mine)
    documented = (Path(__file__).parents[3] / "docs/profiles.md").read_text().partition("```jinja\n")[2]
    file = tmp_path / "plain.jinja"
    file.write_text(documented.partition("```")[0])
    model = ModelSettings(path=str(mine), chat_template=file)
    prepare(mine, tmp_path, chat_template=str(model.chat_template))
    assert (tmp_path / "base" / "chat_template.jinja").read_text() == file.read_text()


def test_a_generation_config_that_could_not_be_saved_is_cleaned(mine: Path, tmp_path: Path) -> None:
    path = mine / "generation_config.json"
    path.write_text(json.dumps({"do_sample": False, "temperature": 0.9, "top_k": 20, "eos_token_id": [257, 256]}))
    notes = prepare(mine, tmp_path)
    assert notes[1:] == [
        f"{mine}: generation_config.json sets temperature, top_k without do_sample, which has no effect: removed from "
        "the copy."
    ]
    cleaned = GenerationConfig.from_pretrained(tmp_path / "base")
    cleaned.save_pretrained(tmp_path)
    assert cleaned.eos_token_id == [257, 256]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert stop_ids(tokenizer) == (256, 257, tokenizer.eos_token_id), "every end token is kept"


@pytest.mark.parametrize(
    "fields", [{"num_return_sequences": 3}, {"cache_implementation": "none"}, {"max_new_tokens": -3}]
)
def test_a_generation_config_that_no_cleaning_makes_savable_is_refused(
    mine: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    (mine / "generation_config.json").write_text(json.dumps(fields))
    with pytest.raises(SettingsError, match=r"generation_config.json cannot be saved with .*remove the file"):
        prepare(mine, tmp_path)


def test_a_second_set_of_weights_is_not_copied(mine: Path, tmp_path: Path) -> None:
    shutil.copyfile(mine / "model.safetensors", mine / "consolidated.safetensors")
    assert "consolidated.safetensors is a second set of weights" in prepare(mine, tmp_path)[1]
    assert [file.name for file in (tmp_path / "base").glob("*.safetensors")] == ["model.safetensors"]


def test_the_day_of_a_template_with_a_date_is_kept_in_every_checkpoint(mine: Path, tmp_path: Path) -> None:
    path = mine / "chat_template.jinja"
    path.write_text("{{ strftime_now('%d %b %Y') + '\n' }}" + path.read_text())
    assert "stays that of the first run" in prepare(mine, tmp_path, day="2026-11-30")[1]
    AutoTokenizer.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "checkpoint")
    later = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    assert chat_template(later).prompt_text([Message(role="user", content="?")]).startswith("30 Nov 2026\n")


def test_a_template_that_never_ends_an_answer_is_refused(mine: Path, tmp_path: Path) -> None:
    (mine / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(SettingsError, match="never learn to stop"):
        prepare(mine, tmp_path)


def test_a_broken_tokenizer_is_named(mine: Path, tmp_path: Path) -> None:
    (mine / "tokenizer.json").write_text("{")
    with pytest.raises(SettingsError, match="tokenizer"):
        prepare(mine, tmp_path)
