"""`import ratchet` is light: a machine without torch can hold the ledger, the bus and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ratchet.systems.registry import systems

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "scipy", "numpy", "reasoning_gym", "sympy")
LIGHT = (
    "ratchet",
    "ratchet.artifacts",
    "ratchet.cli.main",
    "ratchet.data",
    "ratchet.events",
    "ratchet.ledger",
    "ratchet.settings",
    "ratchet.systems",
)
SLOW_TO_IMPORT = ("alembic", "celery", "httpx", "prometheus_client", "pydantic", "redis", "rich", "sqlalchemy")
PROBE = """
import importlib, json, sys
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""

PRELOADED = """
import ast, importlib, inspect, json, os, sys
for name in {heavy!r}:
    importlib.import_module(name)
for names in {lists!r}:
    if os.fork() == 0:
        for name in names:
            importlib.import_module(name)
        ours = [sys.modules[name] for name in names if name not in {heavy!r}]
        used = {{node.module for module in ours for node in ast.walk(ast.parse(inspect.getsource(module)))
                if isinstance(node, ast.ImportFrom)}}
        print(json.dumps([*names, "misses", *sorted(used - sys.modules.keys())]), flush=True)
        os._exit(0)
    os.wait()
"""


def loaded(python: Path, cwd: Path, names: tuple[str, ...] = LIGHT, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """Those of the heavy packages that importing the modules brings in."""
    code = PROBE.format(names=names, heavy=heavy)
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert run.returncode == 0, run.stderr
    found: list[str] = json.loads(run.stdout)
    return found


def test_importing_the_light_modules_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded(Path(sys.executable), tmp_path) == []


def test_the_command_line_starts_at_once(tmp_path: Path) -> None:
    names = ("ratchet.cli.main",)
    assert loaded(Path(sys.executable), tmp_path, names, HEAVY + SLOW_TO_IMPORT) == []


def test_a_model_child_finds_everything_preloaded() -> None:
    """What is not imported before the fork is imported again by every child, which can take seconds."""
    lists = sorted({system.preload for system in systems().values() if system.preload})
    code = PRELOADED.format(lists=lists, heavy=("torch", "transformers", "accelerate"))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in run.stdout.splitlines()] == [
        [*dict.fromkeys(names), "misses"] for names in lists
    ]


@pytest.mark.slow
def test_shared_alone_installs_and_runs_without_torch_and_scipy(tmp_path: Path) -> None:
    """pip, which has no index here, finds everything that the package requires among what the environment holds."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT / "shared"]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    needed = required_by("ratchet-shared")
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    for package in needed.values():
        link_into(packages, package)
    (wheel,) = tmp_path.glob("*.whl")
    install = ["--python", python, "install", "--quiet", "--no-index", "--no-compile", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, *install, wheel], check=True, capture_output=True)
    assert needed.keys().isdisjoint(map(canonicalize_name, HEAVY))
    assert loaded(python, tmp_path) == []
    shown = subprocess.run([python.with_name("ratchet"), "--help"], check=True, capture_output=True, text=True)
    assert "status" in shown.stdout


def required_by(root: str) -> dict[str, Distribution]:
    """The installed distributions that this one requires, directly or through others, with the extras asked for."""
    found: dict[str, Distribution] = {}
    waiting, seen = [Requirement(root)], set[str]()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        package = distribution(name)
        if name != root:
            found[name] = package
        extras = requirement.extras or {""}
        for needed in map(Requirement, package.requires or ()):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return found


def link_into(folder: Path, package: Distribution) -> None:
    """Make the top-level folders and files of an installed distribution importable from this folder too."""
    for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        link = folder / name
        if not link.exists():
            link.symlink_to(Path(str(package.locate_file(name))).resolve())
