"""One job of the page as a process: ``python -m ratchet.web.job FOLDER`` makes the call that the folder describes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ratchet.atomic_files import atomic_write

CALL, OUTPUT, EXIT = "call.json", "output.log", "exit"


def main(folder: Path) -> int:
    """Make the call with its output in the folder, and leave its exit code there."""
    handle = os.open(folder / OUTPUT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = call(json.loads((folder / CALL).read_text(encoding="utf-8"))["arguments"])
    sys.stdout.flush()
    atomic_write(folder / EXIT, str(code))
    return code


def call(arguments: list[str]) -> int:
    """The exit code of ``ratchet ARGUMENTS``."""
    from ratchet.cli.main import app

    try:
        app(arguments, standalone_mode=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
