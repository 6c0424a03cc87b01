"""The few lines that programs of the prior system begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.examples import sums, write_examples

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
