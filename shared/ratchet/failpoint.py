"""Named points at which a test may kill the process. Without ``RATCHET_FAILPOINTS`` they do nothing and cost nothing.

The variable names a folder. A test leaves a file there under the point's name (``tests.support.failpoints.arm``); the
next process that reaches the point deletes the file and kills itself with SIGKILL, so each file kills one process.
"""

from __future__ import annotations

import os
import signal

FOLDER = os.environ.get("RATCHET_FAILPOINTS")
DEPLOYING = (
    "after-challenge",
    "after-decision",
    "after-promotion",
    "after-load",
    "after-switch",
    "after-observation",
    "after-watch",
    "after-rollback",
    "after-return",
)
"""The failpoints of a deployment, in order; the last two are in a rollback."""

POINTS = ("after-claim", "after-artifact", "after-work", "before-relay", "after-commit", "after-plant", *DEPLOYING)


def failpoint(name: str) -> None:
    """Die here if a test has armed this point."""
    if FOLDER is None:
        return
    try:
        os.unlink(os.path.join(FOLDER, name))
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
