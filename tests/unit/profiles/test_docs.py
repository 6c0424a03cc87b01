"""The worked examples of the documents are true."""

from __future__ import annotations

import doctest
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "profiles.md"


def test_the_worked_examples_hold() -> None:
    failed, tried = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert tried > 25
    assert failed == 0
