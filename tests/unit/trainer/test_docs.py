"""The example of docs/training.md runs unchanged."""

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


SNIPPET = """
from trainer.core import TrainerEngine, TrainingResult
from trainer.config import create_default_config
from trainer.monitoring import TrainingStatusWriter

config = create_default_config('sums.jsonl', 'run')
engine = TrainerEngine(TrainingStatusWriter('status.json'))
result = engine.run_job(config)

if result.success:
    print(f"Training complete! Loss: {result.final_loss}")
    print(f"Checkpoint: {result.last_checkpoint_path}")
"""


def test_it_trains_the_built_in_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_examples(Path("sums.jsonl"), sums(16, longest=4))
    exec(SNIPPET, {})
    said = capsys.readouterr().out
    assert "Training complete! Loss: " in said
    assert "Checkpoint: run/final_model" in said
    assert Path("run/final_model/model.safetensors").is_file()
    assert '"state": "finished"' in Path("status.json").read_text()
