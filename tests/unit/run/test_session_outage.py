"""A run whose ledger goes away for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.run import session
from ratchet.run.local_stack import LocalStack
from ratchet.run.session import Run
from ratchet.settings import Settings


class StackStub:
    """No processes, and a ledger that is away at its first ``outages`` reads."""

    page = ""

    def __init__(self, ledger: Ledger, outages: int):
        self._ledger, self._outages = ledger, outages
        self.ledger = self

    def check(self) -> dict[str, Any]:
        return {}

    def endpoint(self) -> str:
        return ""

    def now(self) -> float:
        return self._ledger.now()

    @contextmanager
    def read(self) -> Iterator[Any]:
        if self._outages > 0:
            self._outages -= 1
            raise TransientError("the ledger is away.")
        with self._ledger.read() as opened:
            yield opened


class Recorder:
    """A view that ends the run once something was shown."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.over = threading.Event()

    def announce(self, text: str) -> None:
        self.said.append(text)

    def show(self, *_shown: object) -> None:
        self.over.set()


def test_a_run_waits_for_a_ledger_that_is_away_and_says_so_once(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CHECK_S", 0.01)
    view, stack = Recorder(), StackStub(ledger, outages=3)
    run = Run(Settings(home=tmp_path), view)
    assert run._watch(cast(LocalStack, stack), view.over, frozenset(), 0.0) is None
    assert view.over.is_set()
    assert view.said == ["the ledger is away. The run goes on, and waits for it."]
