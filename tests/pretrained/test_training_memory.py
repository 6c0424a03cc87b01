"""The memory that training takes, of the built-in model and of a real pretrained one, is what the estimate says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ratchet.inference.tiny import build_tiny_model
from ratchet.processes.child_runner import ChildRunner
from ratchet.settings.training import RunDataSettings, RunOutputSettings, TrainerConfig
from ratchet.training_memory import estimate_memory, model_facts
from trainer.segment import SegmentResult, SegmentSpec

from tests.support.pretrained import pretrained_model

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(1_800)]

ROW_TOKENS = 256
ANSWER_TOKENS = 40


def rows_of(path: Path, count: int) -> Path:
    """Rows of nearly ROW_TOKENS tokens for SmolLM2, of which each of these words is one; 35 are the template's."""
    words = ROW_TOKENS - ANSWER_TOKENS - 35
    rows = [{"prompt": f"{n}" + " word" * words, "completion": "word" + " word" * ANSWER_TOKENS} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(model: Path, rank: int, rows: Path, folder: Path) -> TrainerConfig:
    return TrainerConfig.model_validate(
        {
            "model": {"path": str(model), "lora_rank": rank},
            "hyperparams": {"batch_size": 4, "max_length": ROW_TOKENS, "learning_rate": 1e-5, "fp_precision": "bf16"},
            "monitoring": {"preview_backend": "none"},
            "data": RunDataSettings(dataset_path=rows),
            "output": RunOutputSettings(output_dir=folder),
            "environment": {"device": "cpu"},
        }
    )


def peak_gb(config: TrainerConfig) -> float:
    """The peak memory of a training child until it saves."""
    peaks: list[float] = []

    def on_progress(message: dict[str, Any]) -> None:
        if message.get("state") == "saving":
            peaks.append(message["peak_memory_gb"])

    with ChildRunner() as children:
        answer = children.run(
            "trainer.launch:run_segment", SegmentSpec(config=config).encode(), on_progress=on_progress
        )
    result = SegmentResult.decode(answer)
    assert result.success, result.error_message
    return peaks[-1]


def estimated_gb(model: Path, config: TrainerConfig) -> float:
    share = ANSWER_TOKENS / ROW_TOKENS
    return (
        estimate_memory(model_facts(model), config.model, config.hyperparams, half=True, answer_share=share).total / 1e9
    )


@pytest.mark.parametrize("rank", [0, 16], ids=["all weights", "adapters"])
def test_the_estimate_for_a_pretrained_model_is_within_a_fifth_of_the_peak(tmp_path: Path, rank: int) -> None:
    model = pretrained_model()
    config = config_of(model, rank, rows_of(tmp_path / "rows.jsonl", count=8), tmp_path / "run")
    assert estimated_gb(model, config) == pytest.approx(peak_gb(config), rel=0.2)


def test_the_estimate_for_the_built_in_model_is_within_a_fifth_of_the_peak(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "1+2=", "completion": "3"}) + "\n", encoding="utf-8")
    config = config_of(model, 0, rows, tmp_path / "run")
    assert estimated_gb(model, config) == pytest.approx(peak_gb(config), rel=0.2)
