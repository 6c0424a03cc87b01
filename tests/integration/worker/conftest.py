"""Real workers of the toy systems."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ratchet.settings.control import ControlSettings

from tests.support.playground import ROOT, Open, Playground
from tests.support.workers import SHORT, real_workers


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A worker of each toy system, for all tests of a module."""
    home = tmp_path_factory.mktemp("playground") / "home"
    with real_workers(home, ["catching", "counting"], packages=["tests.support.toys"], path=[ROOT]) as stack:
        yield Playground(stack)


@pytest.fixture
def open_playground(tmp_path: Path) -> Iterator[Open]:
    """Open one with other systems, control settings or ledger; it is closed after the test."""
    with ExitStack() as opened:

        def open_one(
            *systems: str, ledger_url: str | None = None, metrics_port: int = 0, **control: float
        ) -> Playground:
            chosen = ControlSettings(**{**SHORT.model_dump(), **control})
            stack = opened.enter_context(
                real_workers(
                    tmp_path / "home",
                    systems,
                    packages=["tests.support.toys"],
                    path=[ROOT],
                    control=chosen,
                    ledger_url=ledger_url,
                    metrics_port=metrics_port,
                )
            )
            return Playground(stack)

        yield open_one
