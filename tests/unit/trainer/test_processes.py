"""Several processes train what one process would: real gloo processes, started by torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainer.segment import run_segment


def torchrun(spec: dict[str, Any], folder: Path, processes: int) -> dict[str, Any]:
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launcher, "-m", "trainer.segment", str(folder / "spec.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_go_on_from_its_state(
    sum_file: Path, base_model: Path, tmp_path: Path
) -> None:
    def spec(name: str, batch_size: int, **more: Any) -> dict[str, Any]:
        return {
            "data_path": str(sum_file),
            "output": str(tmp_path / name),
            "model": {"path": str(base_model)},
            "hyperparams": {"batch_size": batch_size, "gradient_accumulation": 2, "segment_max_steps": 5},
            "environment": {"device": "cpu"},
            **more,
        }

    alone = run_segment(spec("alone", 6), lambda _: None)
    after = {"model": {"path": alone["checkpoint"]}, "state": alone["state"]}
    alone_again = run_segment(spec("alone_again", 6, **after), lambda _: None)
    both = torchrun(spec("both", 3, **after), tmp_path, processes=2)

    for key in ("steps", "offset", "rows", "tokens", "trained_tokens", "global_step", "total_tokens"):
        assert both[key] == alone_again[key], key
    assert (both["processes"], both["finished"], both["offset"]) == (2, True, 100)
    for (step, loss), (other_step, other_loss) in zip(both["loss_curve"], alone_again["loss_curve"], strict=True):
        assert step == other_step
        assert loss == pytest.approx(other_loss, rel=1e-4)
    weights = [load_file(Path(result["checkpoint"]) / "model.safetensors") for result in (both, alone_again)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=1e-4)
