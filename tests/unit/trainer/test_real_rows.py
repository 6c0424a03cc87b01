"""Rows as people have them: four record shapes, nested metadata, circled digits, JSON answers, long prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ratchet.inference.tiny import build_tiny_model
from ratchet.inference.tiny_tokenizer import build_tiny_tokenizer
from ratchet.profiles import registry
from trainer.core import TrainingResult
from trainer.dataset import examples_of, prepare_rows

DATA = Path(__file__).parents[2] / "data"
FILES = sorted(DATA.glob("*.jsonl"))
ROWS = 12


@pytest.fixture
def first_rows(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The first rows of a file: enough for its shapes, few enough for a quick run."""
    lines = request.param.read_text(encoding="utf-8").splitlines(keepends=True)[:ROWS]
    path = tmp_path / request.param.name
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_there_are_files_to_test_with() -> None:
    assert len(FILES) >= 4


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_row_is_rendered_with_its_answer_trained(file: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    answers = [example.answer for _, example in examples_of(file)]
    rows = prepare_rows(
        examples_of(file), registry.get("plain"), tokenizer, system_prompt="Be brief.", max_length=100_000
    )
    assert len(rows) == len(answers)
    trained = [tokenizer.decode(row.ids[row.trained]) for row in rows.rows]
    assert trained == [f"{answer}<|im_end|>" for answer in answers]


@pytest.mark.parametrize("first_rows", FILES, indirect=True, ids=lambda file: file.stem)
def test_a_run_trains_on_them(train: Callable[..., TrainingResult], first_rows: Path, tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "roomy", max_position_embeddings=4096)
    result = train(first_rows, model__path=str(model), hyperparams__batch_size=2, hyperparams__max_length=4096)
    assert result.success, result.error_message
    assert result.finished
    assert result.summary["rows"] + result.summary["rows_too_long"] == ROWS
    curve = result.summary["loss_curve"]
    assert curve[-1][1] < 5.9, "the loss of guessing is ln 337 = 5.82"
