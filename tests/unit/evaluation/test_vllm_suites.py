"""Testing's child with ``inference.engine = vllm``, over the stand-in for vLLM."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ratchet.errors import SettingsError, TransientError
from ratchet.evaluation.record import records_from_lines
from ratchet.inference.model_folder import weights_digest
from ratchet.inference.open_model import opened_model
from ratchet.inference.prompt_format import PromptFormat
from ratchet.settings.serving import InferenceSettings

from tests.support.adapters import build_adapter
from tests.support.server_processes import VLLM_COMMAND

from .asking import Spec, records, run

IN_VLLM: dict[str, Any] = {"engine": "vllm", "vllm_command": VLLM_COMMAND, "batch_size": 8}


def vllm_processes() -> list[int]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # one that ends meanwhile
            if "serve" in child.cmdline():
                found.append(child.pid)
    return found


def test_suites_are_answered_by_a_vllm_that_is_started_for_them(spec: Spec, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    inference = {"engine": "vllm", "vllm_command": VLLM_COMMAND, "batch_size": 8}
    result = run(spec(inference=inference), told.append)
    assert result.broken is None
    assert {name: suite.n for name, suite in result.suites.items()} == {"eval": 40, "probe": 20}
    assert result.suites["eval"].key.engine == "vllm-0.32.0"
    items = records_from_lines(result.suites["eval"].items.read_text().split("\n"))
    assert all(len(item.token_logprobs) == len(item.token_ids) > 0 for item in items)
    assert [message["done"] for message in told if message.get("suite") == "eval"][-1] == 40
    assert (tmp_path / "work" / "vllm.log").is_file()
    assert vllm_processes() == []


def test_a_run_that_was_killed_goes_on_and_gives_the_same_records(spec: Spec) -> None:
    class Killed(BaseException):
        pass

    def kill(message: dict[str, Any]) -> None:
        if message.get("suite") == "eval" and message["done"] > 0:
            raise Killed

    with pytest.raises(Killed):
        run(spec("first", inference=IN_VLLM), kill)
    assert vllm_processes() == []
    fresh = run(spec("other", inference=IN_VLLM))
    told: list[dict[str, Any]] = []
    resumed = run(spec("first", inference=IN_VLLM), told.append)
    assert next(message["done"] for message in told if message.get("suite") == "eval") > 0
    assert [records(suite) for suite in resumed.suites.values()] == [records(suite) for suite in fresh.suites.values()]


def test_the_loss_of_right_answers_and_the_noise_floor_are_measured(spec: Spec) -> None:
    made = spec(inference=IN_VLLM)
    made["suites"][0] |= {"score_gold": True, "noise_known": []}
    result = run(made)
    items = records_from_lines(result.suites["eval"].items.read_text().split("\n"))
    assert all(item.gold_nll is not None and item.gold_tokens for item in items)
    noise = result.suites["eval"].noise
    assert noise is not None
    assert noise.flips == 0


def test_adapters_are_merged_for_it_and_removed_afterwards(spec: Spec, checkpoint: Path, tmp_path: Path) -> None:
    adapters = build_adapter(tmp_path / "adapters", checkpoint)
    result = run(spec(checkpoint=str(adapters), inference=IN_VLLM))
    assert result.weights == weights_digest(adapters)
    assert result.suites["eval"].n == 40
    assert sorted(path.name for path in (tmp_path / "work").iterdir() if path.is_dir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "no-such-program {path} {name} {port}",
        f"{sys.executable} -c {shlex.quote('import sys; sys.exit(1)')} {{path}} {{name}} {{port}}",
    ],
)
def test_a_vllm_that_does_not_start_is_not_the_checkpoints_fault(spec: Spec, command: str) -> None:
    with pytest.raises(TransientError, match="vLLM does not start"):
        run(spec(inference=IN_VLLM | {"vllm_command": command}))


def test_a_damaged_checkpoint_is_a_result_as_without_vllm(spec: Spec, checkpoint: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(checkpoint, tmp_path / "bad")
    (bad / "model.safetensors").write_bytes(b"nothing")
    assert run(spec(checkpoint=str(bad), inference=IN_VLLM)).broken is not None


def test_a_profile_that_vllm_cannot_run_is_a_wrong_setting(checkpoint: Path, tmp_path: Path) -> None:
    settings, style = InferenceSettings(**IN_VLLM), PromptFormat.named("emoji_think", {}, "", "", {})  # type: ignore[arg-type]
    with (
        pytest.raises(SettingsError, match=r"inference\.engine"),
        opened_model(checkpoint, settings, None, style, tmp_path, lambda: None),
    ):
        pass
