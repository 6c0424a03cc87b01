"""`ratchet config check`: what the gate can prove with the confirm items that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ratchet.cli.config import ConfirmItems, confirm_items, low_power
from ratchet.evaluation.build_suites import build_suites
from ratchet.settings import Settings
from ratchet.settings.judging import GateSettings
from ratchet.stats.power import gate_power

from tests.support.home import small_home
from tests.support.tiny_model import build_tiny_model

from .running import ratchet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "mine")


def rows(file: Path, count: int) -> Path:
    lines = (json.dumps({"question": f"twice {n}?", "answer": str(2 * n)}) for n in range(count))
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_config_check_says_what_gain_the_rows_of_each_task_can_prove(home: Path, tmp_path: Path, model: Path) -> None:
    said = ratchet("init", "--model", str(model), "--data", str(rows(tmp_path / "sums.jsonl", 200))).stdout
    proof = re.search(r"On \d+ held-out rows a gain of \d+ points or more is proved with a chance of 80%", said)
    assert proof is not None, said
    checked = ratchet("config", "check").stdout
    assert "the settings are valid." in checked
    assert f"task sums: {proof[0]}" in checked


def test_rows_that_can_prove_nothing_are_said_to(home: Path, tmp_path: Path, model: Path) -> None:
    said = ratchet("init", "--model", str(model), "--data", str(rows(tmp_path / "sums.jsonl", 8))).stdout
    assert "Nothing can be proved on" in said
    assert "task sums: Nothing can be proved on" in ratchet("config", "check").stdout


def test_without_any_task_config_check_says_how_to_add_one(home: Path, model: Path) -> None:
    ratchet("init", "--model", str(model))
    assert "ratchet data add FILE" in ratchet("config", "check").stdout


def test_config_check_counts_the_items_of_families_that_exist(home: Path) -> None:
    """Of a finite level the pools take the held-out share at most, whatever size they are to have."""
    families = [{"name": "chain_sum", "levels": [1]}, {"name": "reverse", "levels": [3]}]
    settings = Settings.model_validate({"home": home, "suites": {"families": families}})
    suite = build_suites(settings.suites)["confirm"]
    found = confirm_items(settings)
    assert found.items == len(suite.items) != settings.suites.confirm_items
    assert found.protected == {
        name: sum(item.family == name for item in suite.items) for name in ("chain_sum", "reverse")
    }
    assert 0 < found.protected["chain_sum"] < 450


def test_after_the_first_run_the_suite_of_the_ledger_counts(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        assert confirm_items(home.settings).items == len(home.suite_items("confirm"))
        assert confirm_items(home.settings).kept


@pytest.mark.parametrize("items", [0, 1, 3])
@pytest.mark.parametrize("protected", [{}, {"sums": 0}, {"sums": 1}])
def test_a_plan_without_items_is_one_sentence(items: int, protected: dict[str, int]) -> None:
    settings = Settings()
    held = ConfirmItems(items, protected, kept=False)
    power = gate_power(GateSettings(), held.items, held.protected)
    assert not power.adequate
    assert f"{items} confirm items" in low_power(settings, held, power)


def test_a_plan_that_no_size_can_meet_is_reported() -> None:
    families = {f"family {number}": 200 for number in range(1_000)}
    power = gate_power(GateSettings(power=0.6), 900, families)
    assert not power.adequate
    assert power.items_needed is None
