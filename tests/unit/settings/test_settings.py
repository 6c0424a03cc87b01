"""Sources of settings and their precedence, and errors for wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from ratchet.errors import SettingsError
from ratchet.settings import Settings, load
from ratchet.settings.section import reveal
from ratchet.settings.sources import names, nearest
from ratchet.settings.training import HyperparamSettings, TrainerConfig


def test_command_line_then_environment_then_file_then_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ratchet.toml").write_text("[hyperparams]\nbatch_size = 2\nnum_epochs = 2\nwarmup_steps = 2\n")
    monkeypatch.setenv("RATCHET_HYPERPARAMS__BATCH_SIZE", "3")
    monkeypatch.setenv("RATCHET_HYPERPARAMS__NUM_EPOCHS", "3")
    found = load(hyperparams={"batch_size": 4}).hyperparams
    assert (found.batch_size, found.num_epochs, found.warmup_steps, found.max_length) == (4, 3, 2, 1024)


def test_an_explicit_file_takes_precedence_over_the_one_in_the_folder(folder: Path) -> None:
    Path("ratchet.toml").write_text("[queue]\nlow_water = 1\n")
    Path("mine.toml").write_text("[queue]\nlow_water = 2\n")
    assert load(Path("mine.toml")).queue.low_water == 2
    assert load().queue.low_water == 1
    with pytest.raises(SettingsError, match="no such file"):
        load(Path("absent.toml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[hyperparams]\nlearning_rat = 1e-3\n",
            "hyperparams.learning_rat: .* did you mean hyperparams.learning_rate?",
        ),
        ("[hyperparam]\nbatch_size = 4\n", "hyperparam: .* did you mean hyperparams?"),
        ("[hyperparams]\nlow_water = 4\n", "hyperparams.low_water: .* did you mean queue.low_water?"),
        ("[queue]\nbatchexamples = 4\n", "queue.batchexamples: .* did you mean queue.batch_examples?"),
        ("colour = 'red'\n", "colour: there is no such setting$"),
        ("[hyperparams]\nbatch_size = 0\n", "hyperparams.batch_size: .*greater than or equal to 1"),
        ("hyperparams = 5\nbatch_size = 3\n", "hyperparams: "),
        ("[[[", "ratchet.toml: "),
    ],
)
@pytest.mark.filterwarnings("ignore::ratchet.settings.sources.LegacySetting")
def test_a_wrong_key_in_a_file_is_named_with_the_nearest_known_one(folder: Path, text: str, said: str) -> None:
    Path("ratchet.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        load()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("RATCHET_HYPERPARAMS__BATCH_SISE", "did you mean hyperparams.batch_size?"),
        ("RATCHET_HYPERPARAM__BATCH_SIZE", "RATCHET_HYPERPARAM__BATCH_SIZE: .*did you mean hyperparams.batch_size?"),
    ],
)
def test_a_wrong_variable_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, said: str) -> None:
    monkeypatch.setenv(variable, "4")
    with pytest.raises(SettingsError, match=said):
        load()


def test_a_json_file_that_is_no_object_is_refused(folder: Path) -> None:
    Path("list.json").write_text("[1]")
    with pytest.raises(SettingsError, match=r"list.json: expected a JSON object, not list"):
        load(Path("list.json"))


@pytest.mark.parametrize("name", [name for name in names(Settings) if "." in name])
def test_the_nearest_of_a_known_name_is_a_field_of_that_name(name: str) -> None:
    assert str(nearest(name, Settings)).rpartition(".")[2] == name.rpartition(".")[2]


HYPERPARAMS = st.builds(
    dict,
    batch_size=st.integers(1, 4096),
    learning_rate=st.floats(1e-9, 1e-2, exclude_min=True),
    max_steps=st.none() | st.integers(1, 10**9),
    schedule=st.sampled_from(["constant", "linear_per_segment", "cosine_per_segment"]),
    max_length=st.integers(8, 1_048_576),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(hyperparams=HYPERPARAMS, prompt=TEXT, options=st.dictionaries(TEXT, st.booleans() | st.integers() | TEXT))
def test_dumped_settings_load_as_the_same(hyperparams: dict[str, Any], prompt: str, options: dict[str, Any]) -> None:
    sections = {
        "hyperparams": hyperparams,
        "monitoring": {"system_prompt_base": prompt},
        "profile": {"options": options},
        "redis": {"url": SecretStr("redis://:word@host")},
    }
    settings = Settings(**sections)
    assert Settings(**json.loads(json.dumps(reveal(settings)))) == settings
    own = {name: section for name, section in sections.items() if name in TrainerConfig.model_fields}
    config = TrainerConfig(data={"dataset_path": "rows.jsonl"}, output={"output_dir": "run"}, **own)
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config


@given(hyperparams=HYPERPARAMS)
def test_a_dumped_file_loads_as_the_same(hyperparams: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(hyperparams=hyperparams)
    file = tmp_path_factory.getbasetemp() / "dumped.json"
    file.write_text(json.dumps(reveal(settings)))
    assert load(file).hyperparams == HyperparamSettings(**hyperparams)
