"""What a child process does with a toy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any


def play(spec: dict[str, Any], progress: Callable[..., None]) -> dict[str, Any]:
    for step in range(10):
        progress({"note": f"play {step}"})
        time.sleep(0.1)
    return {"toy": spec["toy"], "pid": os.getpid(), "signal": signal.SIGKILL.value}
