"""Runs command lines in forks of one interpreter, which has imported what they need, and prints how each has ended.

What to run comes on standard input, as a list of objects with ``target``, ``arguments`` and ``settings``. A target is a
module, or ``module:function`` for the main function of one. A fork finds no settings read, as a fresh process does.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from typing import Any

from ratchet.systems import registry

IMPORTED = ("ratchet.cli.config", "ratchet.serving.server", "ratchet.worker.main")


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    registry.systems()  # the supervisor calls it too before it forks workers
    print(json.dumps([run(**start) for start in json.load(sys.stdin)]))


def run(target: str, arguments: list[str], settings: dict[str, str]) -> dict[str, Any]:
    """The exit code and the output of one fork."""
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.environ.update(settings)
            call(target, arguments)
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "output": output.read().decode()}


def call(target: str, arguments: list[str]) -> None:
    """Call the target and end this process as it ends."""
    module, _, function = target.partition(":")
    sys.argv = [module, *arguments]
    loaded = importlib.import_module(module)
    sys.exit(getattr(loaded, function)() if function else 0)


if __name__ == "__main__":
    main()
