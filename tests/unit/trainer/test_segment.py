from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from trainer.segment import run_segment


@pytest.fixture
def spec(sum_file: Path, base_model: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data_path": str(sum_file),
        "output": str(tmp_path / "segment"),
        "model": {"path": str(base_model)},
        "hyperparams": {"batch_size": 4},
        "monitoring": {"logging_steps": 1, "status_interval_s": 0.1},
    }


def test_the_result_is_json_with_all_that_a_ledger_keeps(spec: dict[str, Any], tmp_path: Path) -> None:
    result = run_segment(spec, lambda _: None)
    assert json.loads(json.dumps(result)) == json.loads(json.dumps(result))
    assert (result["success"], result["finished"], result["steps"], result["offset"]) == (True, True, 25, 100)
    assert (result["global_step"], result["rows"], result["ended_by"]) == (25, 100, "rows")
    assert result["tokens_per_s"] > 0
    assert len(result["loss_curve"]) == 25
    assert Path(result["checkpoint"], "model.safetensors").is_file()
    assert Path(result["state"], "state.json").is_file()
    assert json.loads((tmp_path / "segment" / "training_status.json").read_text())["state"] == "finished"


def test_progress_tells_of_step_loss_speed_and_rows(spec: dict[str, Any]) -> None:
    told: list[dict[str, Any]] = []
    run_segment(spec, told.append)
    assert told
    assert {"step", "loss", "tokens_per_s", "examples_done", "examples_total"} < set(told[0])
    assert [message["step"] for message in told] == sorted(message["step"] for message in told)
    assert told[-1]["examples_done"] <= told[-1]["examples_total"] == 100


def test_sigterm_ends_the_segment_in_good_order(spec: dict[str, Any], tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ask_to_stop(_: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    first = run_segment(spec, ask_to_stop)
    assert (first["success"], first["finished"], first["ended_by"]) == (True, False, "stopped")
    assert 0 < first["offset"] < 100
    assert signal.getsignal(signal.SIGTERM) is before

    rest = {
        **spec,
        "output": str(tmp_path / "rest"),
        "model": {"path": first["checkpoint"]},
        "state": first["state"],
        "offset": first["offset"],
    }
    second = run_segment(rest, lambda _: None)
    straight = run_segment({**spec, "output": str(tmp_path / "straight")}, lambda _: None)
    assert second["finished"]
    assert second["weights"] == straight["weights"]


def test_a_wrong_spec_is_a_failed_result(spec: dict[str, Any]) -> None:
    result = run_segment({**spec, "hyperparams": {"batch_size": -1}}, lambda _: None)
    assert (result["success"], result["error_kind"]) == (False, "settings")
    assert "hyperparams.batch_size" in result["error_message"]


def test_a_failing_listener_never_stops_training(spec: dict[str, Any], tmp_path: Path) -> None:
    def gone(_: dict[str, Any]) -> None:
        raise BrokenPipeError

    assert run_segment(spec, gone)["finished"]
    status = json.loads((tmp_path / "segment" / "training_status.json").read_text())
    assert status["report_error"].startswith("BrokenPipeError")
