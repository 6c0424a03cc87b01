from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.home import small_home

from .by_heart import WATCHED


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    with small_home(tmp_path / "watched", **WATCHED) as home:
        yield home
