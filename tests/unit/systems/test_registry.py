from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.errors import PreconditionFailed, UnknownPlugin
from ratchet.ledger import Ledger
from ratchet.systems import registry

from tests.support.rows import worker_row

TWELFTH = """
from ratchet.events.catalogue import BatchQueued
from ratchet.systems import Lane, System

LANE = Lane("tick", consumes=(BatchQueued,), find=lambda session, settings: [], do=lambda work: None)
SYSTEM = System("{name}", "4090", "Ticks.", emits=(), sweep_s=60.0, lanes=(LANE,))
"""


def forget() -> None:
    registry.systems.cache_clear()
    registry._found.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / f"systems_{uuid.uuid4().hex}"  # what was imported once stays imported
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RATCHET_SYSTEMS", folder.name)
    forget()
    yield folder
    forget()


def test_a_twelfth_system_is_one_file(package: Path) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker"))
    (package / "reading.py").write_text("LINES = 3\n")
    system = registry.get("ticker")
    assert system.queue == "4090.ticker"
    assert [event.name for event in system.consumes] == ["batch.queued"]
    assert list(registry.systems()) == ["ticker"]


def test_an_unknown_name_lists_the_known_ones(package: Path) -> None:
    with pytest.raises(UnknownPlugin, match=r"no system 'tocker' is installed here"):
        registry.get("tocker")


def test_one_system_is_found_without_importing_the_others(package: Path) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker"))
    (package / "broken.py").write_text("raise ImportError('needs what is not installed')")
    assert registry.get("ticker").name == "ticker"


def test_a_module_that_cannot_be_imported_is_named_with_its_traceback_and_stops_no_other(package: Path) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker"))
    (package / "broken.py").write_text("raise ImportError('needs what is not installed')")
    assert list(registry.systems()) == ["ticker"]
    assert list(registry.broken()) == ["broken"]
    assert "ImportError: needs what is not installed" in registry.broken()["broken"]
    with pytest.raises(ImportError, match="needs what is not installed"):
        registry.get("broken")


def test_a_package_that_cannot_be_imported_stops_no_other(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker"))
    monkeypatch.setenv("RATCHET_SYSTEMS", f"no_such_package.systems_here,{package.name}")
    assert registry.get("ticker").name == "ticker"
    assert list(registry.systems()) == ["ticker"]
    assert "No module named 'no_such_package'" in registry.broken()["systems_here"]
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        registry.get("systems_here")


def test_a_module_in_the_place_of_a_package_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker"))
    monkeypatch.setenv("RATCHET_SYSTEMS", f"json.decoder,{package.name}")
    assert list(registry.systems()) == ["ticker"]
    assert "json.decoder is a module: an entry point of ratchet.systems names a package" in registry.broken()["decoder"]


def test_a_system_without_a_function_is_broken(package: Path) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker").replace("do=lambda work: None", "do=None"))
    assert registry.systems() == {}
    assert "do of the lane 'tick' is None" in registry.broken()["ticker"]


def test_a_system_name_may_differ_from_its_module(package: Path) -> None:
    (package / "clock.py").write_text(TWELFTH.format(name="ticker"))
    assert registry.get("ticker").name == "ticker"


def judges(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return registry.judges(session)


def register(ledger: Ledger, name: str, *, ago_s: float, is_judge: bool, state: str = "running") -> None:
    with ledger.write() as tx:
        row = worker_row("taste", tx.now - ago_s, declaration={"is_judge": is_judge}, state=state)
        row.name = name
        tx.session.merge(row)


def test_the_newest_registration_of_a_system_counts(package: Path, ledger: Ledger) -> None:
    register(ledger, "taste@a+0", ago_s=1.0, is_judge=True)
    register(ledger, "taste@b+0", ago_s=600.0, is_judge=False, state="stopped")
    assert judges(ledger) == ["taste"]
    register(ledger, "taste@b+0", ago_s=0.0, is_judge=False)
    assert judges(ledger) == []


def test_the_gate_waits_for_a_judge_however_long_its_worker_is_away(package: Path, ledger: Ledger) -> None:
    register(ledger, "taste@a+0", ago_s=30 * 86_400.0, is_judge=True, state="stopped")
    assert judges(ledger) == ["taste"]


def test_a_removed_judge_can_be_forgotten_and_registers_again(package: Path, ledger: Ledger) -> None:
    register(ledger, "taste@a+0", ago_s=1.0, is_judge=True)
    with pytest.raises(PreconditionFailed, match=r"taste@a\+0 was seen 1 s ago"), ledger.write() as tx:
        registry.forget(tx, "taste")
    assert judges(ledger) == ["taste"]
    register(ledger, "taste@a+0", ago_s=1.0, is_judge=True, state="stopped")
    with ledger.write() as tx:
        registry.forget(tx, "taste")
    assert judges(ledger) == []
    with pytest.raises(PreconditionFailed, match="no worker has registered a system 'taste'"), ledger.write() as tx:
        registry.forget(tx, "taste")
    register(ledger, "taste@a+0", ago_s=0.0, is_judge=True)
    assert judges(ledger) == ["taste"]


def test_a_system_that_is_installed_here_is_not_forgotten(package: Path, ledger: Ledger) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker"))
    with pytest.raises(PreconditionFailed, match="ticker is installed here"), ledger.write() as tx:
        registry.forget(tx, "ticker")
