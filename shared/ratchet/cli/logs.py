"""`ratchet logs`: what the workers of this machine write, readable."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.output import clock
from ratchet.errors import PreconditionFailed
from ratchet.lines import split_lines
from ratchet.settings import load

EVERY_S = 0.5
READ_BYTES = 1_000_000
TRAIL = ("event", "subject", "claim", "lane")


def logs(
    system: Annotated[str | None, typer.Argument(help="A system, as testing; without it all of them.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines of each file.")] = 30,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come; Ctrl-C ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they were written.")] = False,
) -> None:
    """Show the logs of a system's workers and model processes on this machine."""
    folder = load().log_folder
    files = _files(folder, system)
    ends = {}
    for file in files:
        lines, ends[file] = _tail(file, limit)
        _print(file, lines, as_json, several=len(files) > 1)
    while follow:
        try:
            time.sleep(EVERY_S)
        except KeyboardInterrupt:
            return
        for file in _files(folder, system):
            lines, ends[file] = _since(file, ends.get(file, 0))
            _print(file, lines, as_json, several=True)


def _files(folder: Path, system: str | None) -> list[Path]:
    files = sorted(folder.glob("*.log"))
    chosen = [file for file in files if system in (None, _system(file))]
    if not chosen:
        known = sorted({_system(file) for file in files})
        raise PreconditionFailed(
            f"no logs of {system or 'anything'} in {folder}; there are: {', '.join(known) or 'none yet'}."
        )
    return chosen


def _system(file: Path) -> str:
    """``testing`` of ``testing@host+0.log`` and of ``testing.child.log``."""
    return file.name.split("@")[0].split(".")[0]


def _tail(file: Path, limit: int) -> tuple[list[str], int]:
    size = file.stat().st_size
    lines, end = _since(file, max(0, size - READ_BYTES))
    return lines[-limit:], end


def _since(file: Path, start: int) -> tuple[list[str], int]:
    """Whole lines from that byte, and the byte after them; a file that was rotated is read from its beginning."""
    with file.open("rb") as stream:
        stream.seek(start if start <= file.stat().st_size else 0)
        begin = stream.tell()
        whole, newline, _ = stream.read().rpartition(b"\n")
    return split_lines(whole.decode(errors="replace")), begin + len(whole) + len(newline)


def _print(file: Path, lines: list[str], as_json: bool, *, several: bool) -> None:
    name = f"{file.stem.split('@')[0]:<12} " if several else ""
    for line in lines:
        typer.echo(line if as_json else name + _readable(line))


def _readable(line: str) -> str:
    try:
        fields = json.loads(line)
        head = f"{clock(float(fields['at']))} {fields['level']:<7} {fields['message']}"
    except (ValueError, KeyError, TypeError):
        return line
    trail = " ".join(f"{key}={fields[key]}" for key in TRAIL if fields.get(key))
    text = f"{head}  [{trail}]" if trail else head
    return text + "\n" + fields["traceback"] if fields.get("traceback") else text
