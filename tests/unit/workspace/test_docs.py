"""The documents agree with the code."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest
import typer
from ratchet.systems import registry

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("embed", ROOT / "scripts" / "embed.py")
assert spec is not None
assert spec.loader is not None
embed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(embed)

CALL = re.compile(r"(?:docker .* |\.venv/bin/)?ratchet (?P<rest>\S.*)")
DOCUMENTS = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in embed.documents()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_generated_parts_are_up_to_date(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert embed.render(text) == text, "run `make docs`"


def test_every_generated_part_is_used_somewhere() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in embed.documents())
    assert {found["name"] for found in embed.BLOCK.finditer(text)} == set(embed.PARTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_resolve(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_named_in_the_docs_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8"))) <= targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_shown_in_the_docs_exists(document: Path) -> None:
    """Its name, its options and the number of its arguments; their values are not checked."""
    shown = commands_in(document.read_text(encoding="utf-8"))
    assert {command: said for command in shown if (said := refusal(command))} == {}


def test_an_unknown_command_in_the_docs_is_found() -> None:
    text = "See `ratchet stauts`, `ratchet why 7 --jsn`.\n"
    shown = commands_in(text + "```\ndocker exec x ratchet deploy reset-fencing again --reason 'so'  # now\n```\n")
    assert shown == ["stauts", "why 7 --jsn", "deploy reset-fencing again --reason 'so'  # now"]
    assert all(refusal(command) for command in shown)
    assert refusal("queue add FILE.jsonl --priority high") is None


def commands_in(text: str) -> list[str]:
    """The arguments of ``ratchet`` in code: between backticks, and in lines of code blocks."""
    outside, blocks = (
        re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL),
        re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
    )
    inline = [re.sub(r"\s+", " ", found) for found in re.findall(r"`([^`]+)`", outside)]
    lines = [line for block in blocks for line in block.splitlines()]
    calls = (CALL.match(code) for code in (*inline, *lines))
    return [found["rest"] for found in calls if found and not found["rest"].startswith(("…", "="))]


def refusal(command: str) -> str | None:
    """The error of the command line, or None."""
    words = shlex.split(re.split(r" [|&>] | && ", command)[0], comments=True)
    found = typer.main.get_command(embed.app)
    while True:
        context = click.Context(found, resilient_parsing=True)
        try:
            _, words, _ = found.make_parser(context).parse_args(args=words)
        except click.UsageError as error:
            return error.format_message()
        if not hasattr(found, "commands"):
            return f"left over: {words}" if words else None
        if not words:
            return None
        if words[0] not in found.commands:
            return f"no command {words[0]}"
        found, words = found.commands[words[0]], words[1:]


PARTS = {
    "what it consumes": r"\*\*(Hears|Consumes)\*\*|\| (hears|consumes) \|",
    "what it emits": r"\*\*(Says|Emits)\*\*|\| (says|emits) \|",
    "the shape of its records": r"\*\*Record|\| (writes|record) \||`(provenance|deployments|calibrations\.numbers)",
    "what it refuses": r"\*\*Refuses",
    "its settings": r"\*\*Settings",
    "a command that shows it": r"`ratchet ",
}


@pytest.mark.parametrize("name", registry.systems())
def test_the_page_of_a_system_has_all_its_parts(name: str) -> None:
    text = (ROOT / "docs" / "systems" / f"{name}.md").read_text(encoding="utf-8")
    assert [part for part, pattern in PARTS.items() if not re.search(pattern, text)] == []
