"""``torchrun -m in_step SPECS.json``: several segments, one after the other, in processes that start but once.

SPECS.json maps names to specs of trainer.launch; the first process prints the results under the same names, and under
``held`` what share of the first spec's model a process holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor
from trainer.distributed import Processes, device_mesh, shard
from trainer.hardware import Hardware
from trainer.launch import run_segment
from transformers import AutoModelForCausalLM


def main() -> None:
    specs: dict[str, dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    processes = Processes.from_environment()
    results: dict[str, Any] = {"held": share_held(next(iter(specs.values()))["config"]["model"]["path"], processes)}
    for name, spec in specs.items():
        results[name] = run_segment(spec, lambda _: None)
        processes.barrier()
    if processes.is_main:
        print(json.dumps(results))


def share_held(path: str, processes: Processes) -> float:
    model, hardware = (
        AutoModelForCausalLM.from_pretrained(path),
        Hardware("cpu", "fp32", "sdpa", processes, sharded=True),
    )
    shard(model, hardware, device_mesh(hardware))
    parameters = list(model.parameters())
    own = sum(p.to_local().numel() for p in parameters if isinstance(p, DTensor))
    return own / sum(p.numel() for p in parameters)


if __name__ == "__main__":
    main()
