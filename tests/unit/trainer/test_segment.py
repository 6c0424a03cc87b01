from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer.launch import run_segment
from trainer.segment import SegmentResult, SegmentSpec

from tests.support.segments import segment_spec


@pytest.fixture
def spec(sum_file: Path, base_model: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes an encoded spec for a folder of this name."""

    def make(name: str = "segment", model: Path | str = base_model, **more: Any) -> dict[str, Any]:
        sections = {"hyperparams": {"batch_size": 4}, "monitoring": {"logging_steps": 1}, "model": {"path": str(model)}}
        return segment_spec(sum_file, tmp_path / name, **sections, **more).encode()

    return make


def test_the_result_is_json_with_all_that_a_ledger_keeps(spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = run_segment(spec(), lambda _: None)
    assert SegmentResult.decode(json.loads(json.dumps(result))).encode() == result
    assert (result["success"], result["finished"], result["steps"], result["offset"]) == (True, True, 25, 100)
    assert (result["global_step"], result["rows"], result["ended_by"]) == (25, 100, "rows")
    assert result["tokens_per_s"] > 0
    assert len(result["loss_curve"]) == 25
    assert Path(result["last_checkpoint_path"], "model.safetensors").is_file()
    assert Path(result["state_path"], "state.json").is_file()
    assert json.loads((tmp_path / "segment" / "training_status.json").read_text())["state"] == "finished"


def test_progress_tells_of_step_loss_speed_and_rows(spec: Callable[..., dict[str, Any]]) -> None:
    told: list[dict[str, Any]] = []
    run_segment(spec(), told.append)
    assert told
    assert {"step", "loss", "tokens_per_s", "examples_done", "examples_total"} < set(told[0])
    assert [message["step"] for message in told] == sorted(message["step"] for message in told)
    assert told[-1]["examples_done"] <= told[-1]["examples_total"] == 100


def test_sigterm_ends_the_segment_in_good_order(spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ask_to_stop(_: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    first = run_segment(spec(), ask_to_stop)
    assert (first["success"], first["finished"], first["ended_by"]) == (True, False, "stopped")
    assert 0 < first["offset"] < 100
    assert signal.getsignal(signal.SIGTERM) is before

    rest = spec("rest", first["last_checkpoint_path"], resume_from=first["state_path"], offset=first["offset"])
    second = run_segment(rest, lambda _: None)
    straight = run_segment(spec("straight"), lambda _: None)
    assert second["finished"]
    assert second["weights"] == straight["weights"]


def test_a_wrong_spec_is_a_failed_result(spec: Callable[..., dict[str, Any]]) -> None:
    wrong = spec()
    wrong["config"]["hyperparams"]["batch_size"] = -1
    result = run_segment(wrong, lambda _: None)
    assert (result["success"], result["error_kind"]) == (False, "settings")
    assert "hyperparams.batch_size" in result["error_message"]


def test_a_failing_listener_never_stops_training(spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def gone(_: dict[str, Any]) -> None:
        raise BrokenPipeError

    assert run_segment(spec(), gone)["finished"]
    status = json.loads((tmp_path / "segment" / "training_status.json").read_text())
    assert status["report_error"].startswith("BrokenPipeError")


def test_a_spec_crosses_the_process_boundary_unchanged_with_its_secrets(sum_file: Path, tmp_path: Path) -> None:
    monitoring = {"preview_backend": "remote_3090", "preview_url": "http://host", "preview_api_key": "secret"}
    spec = segment_spec(sum_file, tmp_path / "out", ranks=2, offset=5, monitoring=monitoring)
    assert SegmentSpec.decode(json.loads(json.dumps(spec.encode()))) == spec
