"""A segment in a child process, and several ranks under one launcher: one result, one stop, no process left behind."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ratchet.errors import ChildFailed, Stopping
from ratchet.processes.child_runner import ChildRunner
from trainer import launch
from trainer.launch import run_segment
from trainer.segment import ErrorKind, SegmentResult, SegmentSpec

from tests.support.segments import segment_spec
from tests.support.workers import wait_until


@pytest.fixture
def spec(sum_file: Path, base_model: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes an encoded spec for a folder of this name."""

    def make(name: str = "segment", model: Path | str = base_model, **more: Any) -> dict[str, Any]:
        sections = {"hyperparams": {"batch_size": 4}, "monitoring": {"logging_steps": 1}, "model": {"path": str(model)}}
        return segment_spec(sum_file, tmp_path / name, **sections, **more).encode()

    return make


def test_the_result_is_json_with_every_column_of_the_ledger(
    spec: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = run_segment(spec(), lambda _: None)
    assert SegmentResult.decode(json.loads(json.dumps(result))).encode() == result
    assert (result["success"], result["finished"], result["steps"], result["offset"]) == (True, True, 25, 100)
    assert (result["global_step"], result["rows"], result["ended_by"]) == (25, 100, "rows")
    assert result["tokens_per_s"] > 0
    assert len(result["loss_curve"]) == 25
    assert Path(result["last_checkpoint_path"], "model.safetensors").is_file()
    assert Path(result["state_path"], "state.json").is_file()
    assert json.loads((tmp_path / "segment" / "training_status.json").read_text())["state"] == "finished"


def test_progress_has_step_loss_speed_and_rows(spec: Callable[..., dict[str, Any]]) -> None:
    told: list[dict[str, Any]] = []
    run_segment(spec(), told.append)
    assert told
    assert {"step", "loss", "tokens_per_s", "examples_done", "examples_total"} < set(told[0])
    assert [message["step"] for message in told] == sorted(message["step"] for message in told)
    assert told[-1]["examples_done"] <= told[-1]["examples_total"] == 100


def test_sigterm_ends_and_saves_the_segment(spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
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


def test_a_failing_callback_never_stops_training(spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def gone(_: dict[str, Any]) -> None:
        raise BrokenPipeError

    assert run_segment(spec(), gone)["finished"]
    status = json.loads((tmp_path / "segment" / "training_status.json").read_text())
    assert status["report_error"].startswith("BrokenPipeError")


def test_a_spec_crosses_the_process_boundary_unchanged_with_its_secrets(sum_file: Path, tmp_path: Path) -> None:
    monitoring = {"preview_backend": "remote_3090", "preview_url": "http://host", "preview_api_key": "secret"}
    spec = segment_spec(sum_file, tmp_path / "out", ranks=2, offset=5, monitoring=monitoring)
    assert SegmentSpec.decode(json.loads(json.dumps(spec.encode()))) == spec


HERE = str(Path(__file__).parent)
PATIENCE_S = 200.0


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where launchers have their sockets."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def runner(temporary: Path) -> Iterator[ChildRunner]:
    path = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "TMPDIR": str(temporary)}
    with ChildRunner(["torch", "accelerate", "trainer.launch"], env=environment) as runner:
        yield runner


def told(folder: Path, *then: str) -> dict[str, Any]:
    """A spec with the actions of each rank."""
    profile = {"options": {"then": list(then)}}
    return segment_spec(folder / "none.jsonl", folder / "segment", ranks=len(then), profile=profile).encode()


class Launched:
    """A launch of such ranks, with the received progress."""

    def __init__(self, runner: ChildRunner, log: Path) -> None:
        self.runner, self.log = runner, log
        self.pids: dict[int, int] = {}

    def run(self, *then: str, target: str = "launch", stop_once_started: bool = False, **limits: Any) -> dict[str, Any]:
        def stop() -> bool:
            return stop_once_started and len(self.pids) == len(then)

        spec = told(self.log.parent, *then)
        return self.runner.run(
            f"rank_targets:{target}", spec, on_progress=self.note, should_stop=stop, log_path=self.log, **limits
        )

    def note(self, message: dict[str, Any]) -> None:
        if "rank" in message:
            self.pids[message["rank"]] = message["pid"]

    def assert_all_gone(self) -> None:
        assert self.pids
        wait_until(lambda: not any(map(psutil.pid_exists, self.pids.values())), PATIENCE_S, "all ranks to be gone")


@pytest.fixture
def launched(runner: ChildRunner, tmp_path: Path) -> Launched:
    return Launched(runner, tmp_path / "log")


def test_a_failure_of_one_rank_is_the_result(launched: Launched) -> None:
    result = launched.run("wait", "fail")
    assert (result["error_kind"], result["global_step"]) == ("diverged", 1)
    launched.assert_all_gone()


def test_a_rank_that_raises_is_named_with_its_traceback(launched: Launched) -> None:
    with pytest.raises(ChildFailed, match=r"rank 1 ended with code 1(?s:.*)ValueError: rank 1 has nothing to train"):
        launched.run("wait", "raise")
    launched.assert_all_gone()


def test_a_killed_rank_is_reported_before_its_consequences(launched: Launched, temporary: Path) -> None:
    left_before = set(temporary.glob("ratchet-ranks-*"))
    with pytest.raises(ChildFailed, match="killed by SIGKILL") as caught:
        launched.run("fail later", "be killed")
    assert caught.value.killed
    assert "rank 1 was killed by SIGKILL" in caught.value.trace
    assert set(temporary.glob("ratchet-ranks-*")) == left_before
    launched.assert_all_gone()


def test_every_rank_is_asked_to_stop_and_rank_0_returns_the_result(launched: Launched) -> None:
    result = launched.run("wait for the stop", "wait for the stop", stop_once_started=True, grace_s=lambda: PATIENCE_S)
    assert (result["success"], result["global_step"]) == (True, 0)
    assert launched.pids.keys() == {0, 1}
    launched.assert_all_gone()


def test_ranks_that_ignore_a_stop_are_killed_after_the_grace_period(launched: Launched) -> None:
    with pytest.raises(Stopping):
        launched.run("wait", "wait", stop_once_started=True, grace_s=lambda: 0.1)
    launched.assert_all_gone()


def test_hanging_ranks_are_killed_and_each_logs_its_stack(launched: Launched) -> None:
    with pytest.raises(ChildFailed, match="made no progress") as caught:
        launched.run("wait", "wait", target="launch_with_signs_of_life", stall_s=3.0)
    assert caught.value.trace.count("in wait_for_ever") == 2
    launched.assert_all_gone()


def test_a_stop_and_the_smaller_micro_batch_reach_ranks_that_begin_again(
    sum_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bool]] = []

    def launch_once(spec: SegmentSpec, _progress: object, stop: threading.Event, _module: str) -> SegmentResult:
        rows = spec.config.hyperparams
        seen.append((rows.batch_size, rows.gradient_accumulation, stop.is_set()))
        if rows.batch_size > 2:  # and none of the ranks can write down that half would fit
            return SegmentResult(success=False, error_kind=ErrorKind.OUT_OF_MEMORY, fits_smaller=rows.batch_size // 2)
        return SegmentResult(success=True)

    def ask_to_stop(_message: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(launch, "_launch_once", launch_once)
    spec = segment_spec(sum_file, tmp_path / "segment", ranks=2, hyperparams={"batch_size": 8})
    assert launch.launch_ranks(spec.encode(), ask_to_stop)["success"]
    accumulation = spec.config.hyperparams.gradient_accumulation
    assert seen == [(8, accumulation, False), (4, 2 * accumulation, True), (2, 4 * accumulation, True)]


@pytest.mark.slow
def test_an_out_of_memory_rank_restarts_all_with_half_the_micro_batch(
    runner: ChildRunner, sum_file: Path, base_model: Path, tmp_path: Path
) -> None:
    spec = segment_spec(
        sum_file,
        tmp_path / "segment",
        ranks=2,
        status_path=tmp_path / "status" / "training_status.json",
        model={"path": str(base_model)},
        hyperparams={"batch_size": 4, "save_steps": 2},
    ).encode()
    messages: list[dict[str, Any]] = []
    log = tmp_path / "log"
    result = runner.run("short_of_memory:launch", spec, on_progress=messages.append, log_path=log)
    assert result["success"], result["error_message"]
    assert (result["batch_size"], result["gradient_accumulation"]) == (2, 2)
    assert (result["processes"], result["steps"]) == (2, 2)
    assert {"note": "no memory: again with a batch_size of 2"} in messages


def test_no_rank_outlives_the_fork_server(launched: Launched, tmp_path: Path) -> None:
    """The last test, since the next one would have to wait for another fork server."""

    def kill_the_server(message: dict[str, Any]) -> None:
        launched.note(message)
        if len(launched.pids) == 2:
            os.kill(launched.runner.start(), signal.SIGKILL)

    with pytest.raises(ChildFailed, match="SIGKILL"):
        launched.runner.run("rank_targets:launch", told(tmp_path, "wait", "wait"), on_progress=kill_the_server)
    launched.assert_all_gone()
