from __future__ import annotations

import json
from pathlib import Path

from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.systems import Subject, Verdict
from ratchet.worker.status import StatusFile

from tests.support.home import small_home


def test_a_status_is_one_whole_record_whatever_stood_there_before(tmp_path: Path) -> None:
    path = tmp_path / "regression.json"
    path.write_text('{"checks": [{"step": 1, "metr')
    with small_home(tmp_path / "run") as home:
        status = StatusFile(path, home.bus(REGRESSION).controllers["regression"])
        status.write("idle")
        first = json.loads(path.read_text())
        for number in range(50):
            status.decided("judge", Subject("checkpoint", f"c{number:04}"), Verdict("cleared", "as good"), 0.1)
            status.write("working")
    last = json.loads(path.read_text())
    assert (first["system"], first["state"], first["last"]) == ("regression", "idle", None)
    assert (last["state"], last["last"]["subject_id"]) == ("working", "c0049")
    assert last.keys() == first.keys()
    assert [file.name for file in tmp_path.glob("*") if file.is_file()] == ["regression.json"]
