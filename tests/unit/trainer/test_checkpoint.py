"""Saving on a full disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ratchet.inference.model_folder import weights_digest
from trainer.checkpoint import load_state
from trainer.core import TrainingResult
from trainer.segment import ErrorKind

from .full_disk import files_of_at_most

Train = Callable[..., TrainingResult]


@pytest.mark.parametrize("limit", [300_000, 700_000], ids=["the model", "the optimizer"])
def test_a_full_disk_is_waited_out_and_existing_files_stay(train: Train, sum_file: Path, limit: int) -> None:
    """The model's file has 480 KB, that of the moments twice as many."""
    first = train(sum_file, stop_after=1)
    with files_of_at_most(limit):
        second = train(sum_file, "second", after=first)
        again = train(sum_file, stop_after=2)
    for result in (second, again):
        assert result.error_kind is ErrorKind.TRANSIENT, result.error_message
        assert "is full" in str(result.error_message)
        assert "Traceback" not in str(result.error_message)
    assert load_state(Path(str(first.state_path))).weights == weights_digest(Path(str(first.last_checkpoint_path)))
    assert train(sum_file, "second", after=first).global_step > 1
