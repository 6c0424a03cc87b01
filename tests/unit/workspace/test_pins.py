"""One file pins everything, and the test environment is the one it describes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[3]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_constraints_pin_every_dependency_at_the_installed_version() -> None:
    pins = script("pins")
    assert (ROOT / "constraints.txt").read_text() == pins.render(pins.reach())


def test_torch_has_its_part_of_them_for_a_layer_of_its_own() -> None:
    pins = script("pins")
    part = (ROOT / "constraints-torch.txt").read_text()
    assert part == pins.render(pins.of_torch(), pins.TORCH_HEADER)
    assert "torch==2.13.0" in part.splitlines()
    assert set(part.splitlines()[1:]) < set((ROOT / "constraints.txt").read_text().splitlines())


def test_constraints_are_exact_and_carry_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    lines += (ROOT / "constraints-torch.txt").read_text().splitlines()[1:]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==([0-9]+!)?[0-9][0-9a-z.]*", line)] == []
