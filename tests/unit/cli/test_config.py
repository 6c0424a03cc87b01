"""`ratchet config check`: what the gate can prove with the confirm items that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ratchet.cli.config import ConfirmItems, confirm_items, low_power
from ratchet.evaluation.build_suites import build_suites
from ratchet.settings import Settings, load
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


def test_config_check_after_init_with_few_rows_names_a_sufficient_number(
    home: Path, tmp_path: Path, model: Path
) -> None:
    ratchet("init", "--model", str(model), "--data", str(rows(tmp_path / "sums.jsonl", 200)))
    held = len(build_suites(load().suites)["confirm"].items)
    said = " ".join(ratchet("config", "check", code=2).stderr.split())
    assert f"{held} confirm items" in said
    assert re.search(r"about [\d,]+ confirm items, for which suites.files need about [\d,]+ rows", said)
    assert "Traceback" not in said


def test_the_suggested_number_of_rows_is_sufficient(home: Path, tmp_path: Path, model: Path) -> None:
    file = rows(tmp_path / "sums.jsonl", 200)
    ratchet("init", "--model", str(model), "--data", str(file))
    said = " ".join(ratchet("config", "check", code=2).stderr.split())
    found = re.search(r"about ([\d,]+) rows", said)
    assert found is not None, said
    rows(file, int(found[1].replace(",", "")) * 11 // 10)
    assert "the settings are valid" in ratchet("config", "check").stdout


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_rows_for_a_pool_are_refused_with_a_sufficient_number(
    home: Path, tmp_path: Path, model: Path, count: int
) -> None:
    file = rows(tmp_path / "sums.jsonl", 200)
    ratchet("init", "--model", str(model), "--data", str(file))
    rows(file, count)
    said = " ".join(ratchet("config", "check", code=2).stderr.split())
    assert "too few for three pools" in said
    assert re.search(r"about [\d,]+ rows", said)


def test_config_check_counts_the_items_that_exist(home: Path, tmp_path: Path) -> None:
    """Of a finite level the pools take the held-out share at most, whatever size they are to have."""
    settings = Settings.model_validate(
        {
            "home": home,
            "suites": {
                "families": [{"name": "chain_sum", "levels": [1]}, {"name": "reverse", "levels": [3]}],
                "files": [rows(tmp_path / "sums.jsonl", 400)],
            },
        }
    )
    suite = build_suites(settings.suites)["confirm"]
    found = confirm_items(settings)
    assert found.items == len(suite.items) != settings.suites.confirm_items
    assert found.protected == {
        name: sum(item.family == name for item in suite.items) for name in ("chain_sum", "reverse")
    }
    assert 0 < found.protected["chain_sum"] < 450


def test_after_the_first_run_the_suite_of_the_ledger_counts(tmp_path: Path) -> None:
    """A file is read at the first run alone: later changes of it, and its loss, change no suite."""
    file = rows(tmp_path / "sums.jsonl", 300)
    with small_home(tmp_path / "run", suites={"files": [file]}) as home:
        held = len(home.suite_items("confirm"))
        assert confirm_items(home.settings).items == held
        file.unlink()
        assert confirm_items(home.settings).items == held
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
