"""The example of docs/training.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.examples import sums, write_examples

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


def test_the_example_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_examples(tmp_path / "sums.jsonl", sums(40))
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    exec(example[1], {})
    assert "Checkpoint: run/final_model" in capsys.readouterr().out
