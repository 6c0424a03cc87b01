"""The toys of the integration tests, to be thrown while things break."""

from __future__ import annotations

import sys
from pathlib import Path

TOYS = Path(__file__).parents[1] / "integration" / "worker"
if str(TOYS) not in sys.path:
    sys.path.insert(0, str(TOYS))
