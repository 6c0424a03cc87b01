"""The documents say what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("embed", ROOT / "scripts" / "embed.py")
assert spec is not None
assert spec.loader is not None
embed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(embed)

DOCUMENTS = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in embed.documents()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_generated_parts_are_up_to_date(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert embed.render(text) == text, "run `make docs`"


def test_every_generated_part_is_used_somewhere() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in embed.documents())
    assert {found["name"] for found in embed.BLOCK.finditer(text)} == set(embed.PARTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_and_target_it_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    assert set(re.findall(r"`ratchet ([a-z]+)", text)) <= set(embed.PLACES)
