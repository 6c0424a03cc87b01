"""A command in a process that is forked from one with everything imported: what ``python -m MODULE`` runs.

It is the target of a ChildRunner. Importing torch and what trains and asks models takes most of the time of a benchmark
at its smallest size, and all of them share it this way.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from typing import Any

from ratchet.processes.fork_server import Progress


def run(spec: dict[str, Any], _progress: Progress) -> dict[str, Any]:
    """Run ``spec["module"]`` with ``spec["arguments"]`` in the folder and environment given; return its exit code.

    Standard output goes to the file ``spec["stdout"]``, standard error to the log of the child.
    """
    os.chdir(spec["folder"])
    os.environ.clear()
    os.environ.update(spec["environment"])
    tempfile.tempdir = None  # it may have been chosen by the environment before
    sys.argv = [spec["module"], *spec["arguments"]]
    with open(spec["stdout"], "wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
    try:
        runpy.run_module(spec["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return {"exit_code": _exit_code(end.code)}
    finally:
        sys.stdout.flush()
    return {"exit_code": 0}


def _exit_code(code: object) -> int:
    """What the interpreter makes of the value of SystemExit."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1
