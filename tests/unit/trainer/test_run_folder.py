"""The folder of a run: where it resumes, also after an earlier run in the same folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ratchet.errors import SettingsError
from ratchet.inference.model_folder import file_sha256
from trainer.run_folder import (
    IN_PROGRESS,
    drop_states_after,
    finished_step,
    keep_checkpoint,
    latest_checkpoint,
    promote,
    require_folder,
    resumed_step,
)


def place(folder: Path, step: int, *, offset: int = 5, digest: str = "") -> Path:
    """A checkpoint whose files contain its step."""
    for name in ("final_model", "state"):
        (folder / name).mkdir(parents=True)
        (folder / name / "step").write_text(str(step))
    position = {"digest": digest, "offset": offset, "rows": 10}
    (folder / "state" / "state.json").write_text(json.dumps({"global_step": step, "position": position}))
    return folder


def test_a_run_resumes_from_its_furthest_intact_checkpoint(tmp_path: Path) -> None:
    place(tmp_path / "checkpoint-4", 4)
    place(tmp_path / "checkpoint-9", 9)
    (tmp_path / "checkpoint-12" / "final_model").mkdir(parents=True)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert resumed_step(tmp_path / "checkpoint-9" / "state") == 9
    assert resumed_step(None) == -1


def test_a_half_written_state_is_ignored(tmp_path: Path) -> None:
    place(tmp_path / "checkpoint-4", 4)
    (place(tmp_path / "checkpoint-9", 9) / "state" / "state.json").write_text('{"global_step": 9, "posi')
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


def test_a_new_run_does_not_resume_an_older_one_in_its_folder(tmp_path: Path) -> None:
    place(tmp_path, 20)
    place(tmp_path / "checkpoint-10", 10)
    place(tmp_path / IN_PROGRESS, 3)
    drop_states_after(tmp_path, resumed_step(None))
    keep_checkpoint(tmp_path, 3)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert (tmp_path / "checkpoint-10" / "final_model").is_dir(), "models stay"


def test_dropping_states_after_a_step_keeps_the_earlier_ones(tmp_path: Path) -> None:
    for step in (5, 10):
        place(tmp_path / f"checkpoint-{step}", step)
    drop_states_after(tmp_path, 5)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_the_last_segment_replaces_the_earlier_one(tmp_path: Path) -> None:
    place(tmp_path, 4)
    place(tmp_path / IN_PROGRESS, 8)
    promote(tmp_path)
    assert {(tmp_path / name / "step").read_text() for name in ("final_model", "state")} == {"8"}
    assert not (tmp_path / IN_PROGRESS).exists()


@pytest.mark.parametrize("lacking", ["final_model", "state"])
def test_a_state_is_never_beside_a_foreign_checkpoint(tmp_path: Path, lacking: str) -> None:
    """A path that cannot be replaced simulates a kill before the replacement."""
    place(tmp_path, 4)
    (place(tmp_path / IN_PROGRESS, 8) / lacking).rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        promote(tmp_path)
    with pytest.raises(SettingsError, match="is no run to resume"):
        latest_checkpoint(tmp_path)


def test_a_run_that_has_trained_on_all_of_these_rows_has_nothing_left(tmp_path: Path) -> None:
    rows, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    rows.write_text("{}\n")
    other.write_text("{}\n{}\n")
    run = place(tmp_path / "run", 7, offset=10, digest=file_sha256(rows))
    assert finished_step(run, rows) == 7
    assert finished_step(run, other) is None
    assert finished_step(run, tmp_path / "absent.jsonl") is None
    assert finished_step(place(tmp_path / "begun", 7, offset=9, digest=file_sha256(rows)), rows) is None


def test_an_unwritable_folder_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file/below \(--output-dir\): Not a directory"):
        require_folder(tmp_path / "file" / "below")
    require_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
