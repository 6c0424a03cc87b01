"""docs/architecture.md: the files and tests that it names exist, and the path of a row is that of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from ratchet.systems import registry

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SOURCES = [ROOT / "shared", *sorted((ROOT / "services").iterdir())]
MOST_WORDS = 1_500
"""About three printed pages, tables and paths included."""


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def processes() -> dict[str, list[Path]]:
    """The files of each process on the path of a row, by the name that the page gives to it."""
    items = re.split(r"^\d+\. ", section("The path of a training row"), flags=re.M)[1:]
    named = {}
    for item in items:
        name = re.match(r"\*\*(.+?)\*\*", item)
        assert name is not None, item
        own = item.partition("\n\n")[0]
        named[name[1]] = [ROOT / path for path in re.findall(r"`([\w/]+\.py)`", own)]
    return named


def module_of(path: Path) -> str:
    source = next(source for source in SOURCES if path.is_relative_to(source))
    return ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules that a file imports anywhere in its code, with ``package.name`` for each name that it takes from one."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


WAY = processes()
NAMED = sorted(set(re.findall(r"`((?:shared|services|tests|scripts|compose)/[\w/.-]+)", PAGE)))


def test_the_page_is_short() -> None:
    assert len(PAGE.split()) <= MOST_WORDS


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:shared|services|tests|scripts|compose)/[\w/.-]+)", PAGE)))
)
def test_every_path_of_the_page_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+\.py)`", PAGE))))
def test_every_file_that_it_names_without_a_folder_is_one_of_the_product(name: str) -> None:
    assert any(list(source.rglob(name)) for source in SOURCES)


def test_there_are_eight_invariants_and_each_names_its_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", section("Invariants"))
    assert len(named) == 8
    for path, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.M), f"{path}::{test}"


@pytest.mark.parametrize("process", WAY)
def test_a_process_imports_its_files_in_this_order(process: str) -> None:
    """Each file is imported by an earlier one."""
    files = WAY[process]
    assert len(files) == len(set(files))
    for number, path in enumerate(files[1:], start=1):
        importers = [before for before in files[:number] if module_of(path) in imports(before)]
        assert importers, f"nothing before {path.relative_to(ROOT)} imports it"


@pytest.mark.parametrize("process", WAY)
def test_a_process_is_started_at_its_first_file(process: str) -> None:
    """As a command, as the worker of a system, as a child that an earlier file names, or by ``python -m``."""
    first = WAY[process][0]
    module = module_of(first)
    if process.startswith("worker of "):
        system = registry.get(process.removeprefix("worker of "))
        assert module.rpartition(".")[2] == system.name
        assert system.lanes[0].do.__module__.partition(".")[0] == module.partition(".")[0]
    elif process.endswith(" child"):
        before = [path for files in WAY.values() for path in files]
        assert any(f'"{module}:' in path.read_text() for path in before[: before.index(first)])
    elif process == "inference server":
        local_stack = (ROOT / "shared" / "ratchet" / "run" / "local_stack.py").read_text()
        assert f'"{module}"' in local_stack
        assert '__name__ == "__main__"' in first.read_text()
    else:
        main = (ROOT / "shared" / "ratchet" / "cli" / "main.py").read_text()
        assert process == "`ratchet data add`"
        assert f'"{module.rpartition(".")[2]}:' in main


def test_each_process_is_woken_by_an_event_of_an_earlier_one() -> None:
    """From the data gate to the deployment, by the systems' own declarations."""
    workers = [registry.get(name.removeprefix("worker of ")) for name in WAY if name.startswith("worker of ")]
    for number, system in enumerate(workers[1:], start=1):
        emitted = {event for earlier in workers[:number] for event in earlier.emits}
        assert emitted & set(system.consumes), system.name


def test_the_files_shared_by_all_workers_form_a_chain() -> None:
    shared = re.findall(
        r"`(shared/[\w/]+\.py)`", section("The path of a training row").rpartition("Every worker runs")[2]
    )
    main, *others = [ROOT / path for path in shared]
    reached = imports(main)
    for path in reversed(others):
        assert module_of(path) in reached | {name for other in others for name in imports(other)}
    assert all(a != b for a, b in pairwise(shared))
