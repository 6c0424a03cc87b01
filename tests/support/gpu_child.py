"""A child's target that tells which GPU it may see."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def told(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Its name, and the visible devices."""
    progress({"note": spec["word"]})
    return {"word": spec["word"], "devices": os.environ["CUDA_VISIBLE_DEVICES"]}
