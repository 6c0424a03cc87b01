from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.home import Home, small_home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with small_home(tmp_path / "run") as home:
        yield home
