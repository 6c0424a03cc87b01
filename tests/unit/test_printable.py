"""What becomes of text from outside before it is shown."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from ratchet.cli.safe_console import SafeConsole
from ratchet.printable import printable, printable_json, printable_text
from rich.table import Table
from rich.text import Text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"rows.jsonl", "rows.jsonl"),
        ("Zeilen ü.jsonl".encode(), "Zeilen ü.jsonl"),
        (b"bad\xff.jsonl", r"bad\xff.jsonl"),
        (b"two\nlines\x1b[31m", r"two\nlines\x1b[31m"),
        ("sep\u2028\x85".encode(), r"sep\u2028\x85"),
        ("\u202egnp.exe".encode(), r"\u202egnp.exe"),
    ],
)
def test_every_name_can_be_shown_and_kept(name: bytes, shown: str) -> None:
    assert printable(Path(os.fsdecode(name))) == shown
    assert json.loads(json.dumps(shown, ensure_ascii=False).encode()) == shown


def test_a_text_keeps_its_lines() -> None:
    assert (
        printable_text("a\tb\nc\r\n\x1b]0;title\x07\x9b31m\ud83d🦊")
        == "a\tb\nc\\r\n\\x1b]0;title\\x07\\x9b31m\\ud83d🦊"
    )


def test_json_stays_the_same_value() -> None:
    value = {"answer": "\x1b[31m \x7f \x9b \u202e \u2028 é 🦊", "lines": ["a\nb"]}
    shown = printable_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    assert "\n" in shown
    assert printable_text(shown) == shown


def test_a_terminal_gets_the_styles_of_the_console_and_no_others() -> None:
    file = io.StringIO()
    table = Table("answer", title="t")
    table.add_row(Text("\x1b[2J\x1b]0;owned\x07 [bold]7[/bold]", style="green"))
    SafeConsole(file=file, force_terminal=True, width=80, color_system="standard").print(table)
    written = file.getvalue()
    assert "\x1b[32m" in written
    assert "\x1b[2J" not in written
    assert "\x1b]" not in written
    assert "\x07" not in written
    assert r"\x1b[2J\x1b]0;owned" in written
    assert "[bold]" in written
