"""The source of each value, and the parsing of environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.errors import SettingsError
from ratchet.settings import Settings, load
from ratchet.settings.settings import from_values, load_with_origins
from ratchet.settings.sources import Layers, assign


def test_each_value_knows_where_it_came_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ratchet.toml").write_text("[queue]\nlow_water = 1\nhigh_water = 90000\n[hyperparams]\nbatch_size = 2\n")
    monkeypatch.setenv("RATCHET_QUEUE__LOW_WATER", "2")
    monkeypatch.setenv("RATCHET_HYPERPARAMS__BATCH_SIZE", "3")
    assign("hyperparams.batch_size=4", Settings)
    found, origins = load_with_origins(hyperparams={"num_epochs": 5})
    assert (found.queue.low_water, found.queue.high_water, found.hyperparams.batch_size) == (2, 90_000, 4)
    assert origins == {
        "queue.low_water": "RATCHET_QUEUE__LOW_WATER",
        "queue.high_water": "ratchet.toml",
        "hyperparams.batch_size": "--set",
        "hyperparams.num_epochs": "the call",
    }


def test_a_variable_that_is_set_again_after_the_command_line_is_a_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assign("queue.low_water=3", Settings)
    assert load_with_origins()[1] == {"queue.low_water": "--set"}
    monkeypatch.setenv("RATCHET_QUEUE__LOW_WATER", "2")
    assert load_with_origins()[1] == {"queue.low_water": "RATCHET_QUEUE__LOW_WATER"}


def test_tables_are_merged_and_everything_else_is_replaced() -> None:
    layers = Layers()
    layers.lay({"placement": {"vram_gb": {"testing": 4, "serving": 8}, "roles": ["3090"]}}, "below")
    layers.lay({"placement": {"vram_gb": {"testing": 6}, "roles": ["4090"]}}, "above")
    assert layers.tree == {"placement": {"vram_gb": {"testing": 6, "serving": 8}, "roles": ["4090"]}}
    assert layers.origins == {
        "placement.vram_gb.testing": "above",
        "placement.vram_gb.serving": "below",
        "placement.roles": "above",
    }


@pytest.mark.parametrize(
    ("variable", "text", "section", "field", "value"),
    [
        ("RATCHET_PLACEMENT__ROLES", '["4090"]', "placement", "roles", ("4090",)),
        ("RATCHET_PLACEMENT__VRAM_GB", '{"testing": 2}', "placement", "vram_gb", {"testing": 2.0}),
        ("RATCHET_PLACEMENT__VRAM_GB__TESTING", "2", "placement", "vram_gb", {"testing": 2.0}),
        ("RATCHET_PROFILE__OPTIONS", '{"a": true}', "profile", "options", {"a": True}),
        ("ratchet_model__path", "17", "model", "path", "17"),
        ("RATCHET_QUEUE", '{"low_water": 7}', "queue", "low_water", 7),
        ("RATCHET_DATA__SHUFFLE", "false", "data", "shuffle", False),
        ("RATCHET_ENVIRONMENT__PROCESSES", "2", "environment", "processes", 2),
    ],
)
def test_a_text_is_parsed_by_the_type_of_its_field(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, section: str, field: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(getattr(load(), section), field) == value


def test_a_field_takes_precedence_over_its_section(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_QUEUE__LOW_WATER", "8")
    monkeypatch.setenv("RATCHET_QUEUE", '{"low_water": 7, "high_water": 70000}')
    assert (load().queue.low_water, load().queue.high_water) == (8, 70_000)


def test_a_list_that_is_no_json_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_PLACEMENT__ROLES", "3090")
    with pytest.raises(SettingsError, match=r"placement.roles: .*valid tuple"):
        load()


def test_values_are_taken_as_they_are_without_file_or_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ratchet.toml").write_text("[queue]\nlow_water = 1\n")
    monkeypatch.setenv("RATCHET_QUEUE__HIGH_WATER", "3")
    assert from_values({"queue": {"low_water": 2}}) == Settings(queue={"low_water": 2})
    with pytest.raises(SettingsError, match=r"queue\.low_water"):
        from_values({"queue": {"low_water": -1}})


def test_a_variable_that_should_be_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_SUITES__FAMILIES", "{x")
    with pytest.raises(SettingsError, match="RATCHET_SUITES__FAMILIES: write a list, a table or"):
        load()


@pytest.mark.parametrize("name", ["ratchet.toml", "config.json"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, name: str) -> None:
    text = '{"queue": {"epoch_cap": 7}}' if name.endswith("json") else "[queue]\nepoch_cap = 7\n"
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
    assert load(tmp_path / name).queue.epoch_cap == 7


@pytest.mark.parametrize(("name", "text"), [("config.json", "[" * 100_000), ("ratchet.toml", "a = " + "[" * 5_000)])
def test_a_file_nested_too_deeply_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=name):
        load(tmp_path / name)
