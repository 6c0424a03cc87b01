from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.errors import UnknownPlugin
from ratchet.systems import registry

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


def test_a_system_without_a_function_is_broken(package: Path) -> None:
    (package / "ticker.py").write_text(TWELFTH.format(name="ticker").replace("do=lambda work: None", "do=None"))
    assert registry.systems() == {}
    assert "do of the lane 'tick' is None" in registry.broken()["ticker"]


def test_a_system_name_may_differ_from_its_module(package: Path) -> None:
    (package / "clock.py").write_text(TWELFTH.format(name="ticker"))
    assert registry.get("ticker").name == "ticker"
