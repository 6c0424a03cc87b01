"""Every setting has an effect: code reads it, and a test shows what it changes. The table is in shown/.

To add a field: read it somewhere; write a test that gives it another value and sees what changes; and name that test,
with the field, in shown/. The field's name must stand in the test. A field that changes nothing is taken out.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from ratchet.settings import Settings
from ratchet.settings.sources import names
from ratchet.settings.training import TrainerConfig

from .shown import SHOWN

ROOT = Path(__file__).parents[3]
SETTINGS = ROOT / "shared" / "ratchet" / "settings"

ROWS = [(name, path, test) for path, tests in SHOWN.items() for test, names in tests.items() for name in names]


@cache
def fields() -> tuple[str, ...]:
    """Every field of the loop's settings and of a run's configuration, sections left out."""
    both = [*names(Settings), *(name for name in names(TrainerConfig) if name.startswith(("data.", "output.")))]
    return tuple(sorted({name for name in both if "." in name}))


@cache
def readers() -> dict[str, set[str]]:
    """Attributes read, and the modules that read them; of the settings package only what its properties derive."""
    found: dict[str, set[str]] = {}
    for folder in (ROOT / "shared", ROOT / "services"):
        for file in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
                if isinstance(node, ast.Attribute) and (SETTINGS not in file.parents or own):
                    found.setdefault(node.attr, set()).add(str(file.relative_to(ROOT)))
    return found


@cache
def sources_of(path: Path) -> dict[str, str]:
    """The functions of a file by name, each with its source and decorators."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("name", fields())
def test_a_field_is_read_by_code_that_acts_on_it(name: str) -> None:
    field = name.rpartition(".")[2]
    by_name = f'"{field}"'
    assert readers().get(field) or any(
        by_name in file.read_text(encoding="utf-8") for file in (ROOT / "services" / "trainer").rglob("*.py")
    ), f"nothing reads {name}: let it change something, or take it out"


@pytest.mark.parametrize("name", fields())
def test_every_field_has_a_test_that_shows_what_it_changes(name: str) -> None:
    rows = [(path, test) for shown, path, test in ROWS if shown == name]
    assert len(rows) == 1, (
        f"{name} has {len(rows)} rows in tests/unit/settings/shown/ and needs one: write a test that gives it "
        "another value and sees what changes, in the file that mirrors the code that reads it, and name it there as "
        f'"test_...": ("{name}",). If it changes nothing, take the setting out.'
    )


@pytest.mark.parametrize(("name", "path", "test"), ROWS)
def test_the_test_that_shows_a_field_names_it(name: str, path: str, test: str) -> None:
    assert name in fields(), f"there is no setting {name} any more: take its row out"
    assert test.startswith("test_")
    source = sources_of(ROOT / "tests" / path).get(test)
    assert source is not None, f"tests/{path} has no {test} any more: name the test that shows {name} now"
    field = name.rpartition(".")[2]
    is_named = re.search(rf"(?<![a-z0-9_]){field}(?![a-z0-9_])", source.replace("__", "."))
    assert is_named, f"{test} does not name {field}: does it show what {name} changes?"
