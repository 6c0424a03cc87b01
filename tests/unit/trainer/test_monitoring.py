from __future__ import annotations

import json
import threading
from pathlib import Path

from trainer.monitoring import TrainingStatusWriter


def test_fields_add_up_and_a_new_run_forgets_them(tmp_path: Path) -> None:
    writer = TrainingStatusWriter(tmp_path / "deep" / "status.json")
    writer.start(state="loading")
    writer.write(step=3)
    first = json.loads(writer.path.read_text())
    assert (first["state"], first["step"]) == ("loading", 3)
    assert first["updated_at"] >= first["started_at"]
    writer.start(state="loading")
    assert "step" not in json.loads(writer.path.read_text())


def test_the_last_word_of_another_process_is_added_to_what_the_first_has_told(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    TrainingStatusWriter(path).start(state="training", step=3)
    TrainingStatusWriter(path).amend(state="failed", error="no memory")
    told = json.loads(path.read_text())
    assert (told["state"], told["step"], told["error"]) == ("failed", 3, "no memory")
    path.unlink()
    TrainingStatusWriter(path).amend(state="failed")
    assert json.loads(path.read_text())["state"] == "failed"


def test_a_reader_never_sees_half_a_status(tmp_path: Path) -> None:
    writer = TrainingStatusWriter(tmp_path / "status.json")
    writer.start(filler="x" * 20_000)
    done = threading.Event()

    def write() -> None:
        for step in range(300):
            writer.write(step=step)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while not done.is_set():
        assert len(json.loads(writer.path.read_text())["filler"]) == 20_000
        reads += 1
    thread.join()
    assert reads > 0
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    TrainingStatusWriter(tmp_path / "file" / "status.json").write(step=1)
    assert (tmp_path / "file").read_text() == ""
